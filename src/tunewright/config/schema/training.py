"""Options of the base, of training and of the comparison."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tunewright.config.schema.base import Section

INITIALISATIONS = r"^(gaussian|orthogonal|olora|eva|loftq|pissa|pissa_niter_[1-9]\d{0,2})$"


Recomputed = bool | Literal["selective"]
"""Which activations are recomputed in the backward pass; selective: those that are cheap."""


class ModelSection(Section):
    """The base model."""

    model_name_or_path: str = Field(
        default="tunewright/tiny",
        min_length=1,
        description="Hub id, folder, or `tunewright/tiny` for the bundled base.",
    )
    revision: str | None = Field(
        default=None, description="Hub branch, tag or commit; not for folders."
    )
    chat_template: str | None = Field(
        default=None,
        min_length=1,
        description="Unset: the model's own; `alpaca`, `style-prompt`, `plain` (no markers), or a Jinja "
        "file. It is saved with the adapter and used by every later stage.",
    )
    extra_special_tokens: tuple[str, ...] = Field(
        default=(),
        description="Special tokens to add to the tokenizer; their embeddings are trained with the adapter.",
    )


class LoraSection(Section):
    """The adapter, as PEFT's LoraConfig names it."""

    r: int = Field(default=16, ge=1, le=1024, description="Rank.")
    lora_alpha: int = Field(
        default=32, ge=1, description="Scale: the update is multiplied by lora_alpha / r."
    )
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the adapter.")
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default="all-linear", description="`all-linear`, or a list of module names."
    )
    modules_to_save: tuple[str, ...] = Field(
        default=(),
        description="Modules trained whole and saved with the adapter, such as `embed_tokens` and `lm_head`.",
    )
    use_rslora: bool = Field(default=False, description="Scale by lora_alpha / sqrt(r) instead.")
    use_dora: bool = Field(
        default=False, description="DoRA: train the magnitude of each weight beside its direction."
    )
    init_lora_weights: bool | Annotated[str, Field(pattern=INITIALISATIONS)] = Field(
        default=True,
        description="How A and B begin: true (B zero), `gaussian`, `orthogonal`, `pissa`, `pissa_niter_16`, "
        "`olora`, `eva`, `loftq`; false: both random, for tests.",
    )


class TrainSection(Section):
    """Supervised fine-tuning, as Transformers' TrainingArguments and TRL's SFTConfig name it."""

    max_length: int = Field(default=2048, ge=16, description="Tokens of a row.")
    excess_length_strategy: Literal["truncate", "drop", "split", "raise"] = Field(
        default="truncate",
        description="Longer rows: cut at the end, left out, cut into several rows with the same prompt, "
        "or refused. Rows and tokens lost are counted and listed.",
    )
    allow_special: bool = Field(
        default=False,
        description="Special tokens typed in the text (`<|im_start|>`, `</s>`) act as such; false: they are text.",
    )
    max_train_samples: int | None = Field(
        default=None, ge=1, description="Train on the first rows only, for a trial; unset: on all."
    )
    max_eval_samples: int | None = Field(
        default=None, ge=1, description="Evaluate on the first held-out rows only; unset: on all."
    )
    num_train_epochs: float = Field(default=3.0, gt=0, description="Passes over the data.")
    max_steps: int | None = Field(
        default=None, ge=1, description="Optimizer steps, in place of num_train_epochs."
    )
    per_device_train_batch_size: int = Field(
        default=2,
        ge=1,
        description="Rows a forward pass. Where they do not fit in memory, fewer at a time, with as much more "
        "accumulation: the rows of an optimizer step stay.",
    )
    per_device_eval_batch_size: int | None = Field(
        default=None, ge=1, description="The same in evaluations; unset: as in training."
    )
    gradient_accumulation_steps: int = Field(
        default=4, ge=1, description="Forward passes an optimizer step."
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate.")
    lr_scheduler_type: Literal[
        "cosine",
        "linear",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "polynomial",
        "inverse_sqrt",
    ] = Field(default="cosine", description="Course of the learning rate after warm-up.")
    warmup_ratio: float = Field(
        default=0.03, ge=0, lt=1, description="Share of the steps in which it rises."
    )
    warmup_steps: int | None = Field(
        default=None, ge=0, description="Steps in which it rises, in place of warmup_ratio."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay.")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's beta1.")
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's beta2.")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="AdamW's epsilon.")
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="The gradient is scaled down to this norm."
    )
    optim: Literal[
        "auto",
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_bnb_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "adafactor",
        "sgd",
    ] = Field(
        default="auto",
        description="Optimizer; `auto`: paged_adamw_8bit for a 4-bit base on CUDA, AdamW otherwise.",
    )
    train_sampling_strategy: Literal["auto", "random", "group_by_length"] = Field(
        default="auto",
        description="Order of rows; `auto`: by length where padding costs 10 % or more, random where rows are packed.",
    )
    dataloader_num_workers: int = Field(
        default=0, ge=0, le=64, description="Processes that make batches; 0: none beside training."
    )
    eval_steps: int | None = Field(
        default=None,
        ge=1,
        description="Optimizer steps between evaluations; unset: twenty in the run, at least every epoch.",
    )
    save_steps: int | None = Field(
        default=None,
        ge=1,
        description="Optimizer steps between checkpoints; unset: at every evaluation.",
    )
    early_stopping_patience: int | None = Field(
        default=3,
        ge=1,
        description="Evaluations without a better held-out loss before training stops; null: never.",
    )
    early_stopping_threshold: float = Field(
        default=0.0,
        ge=0,
        description="How much lower the held-out loss must be to count as better.",
    )
    save_total_limit: int = Field(
        default=2, ge=1, description="Checkpoints kept, the best one beside them."
    )
    logging_steps: int = Field(
        default=1, ge=1, description="Optimizer steps between rows of the metrics log."
    )
    sample_prompts: int = Field(
        default=2,
        ge=0,
        le=20,
        description="Held-out prompts that the model answers at evaluations, for `watch`; 0: none.",
    )
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = Field(
        default=(), description="Where metrics go beside the metrics log."
    )
    run_name: str | None = Field(
        default=None, description="Name of the run where it is reported; unset: the config's name."
    )
    project: str = Field(
        default="tunewright", description="Project of W&B and Trackio that the run is part of."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Precision of the base's weights; `auto`: what this machine computes fastest in.",
    )
    load_in_4bit: bool = Field(
        default=False, description="QLoRA: the base's linear weights in 4 bits (bitsandbytes)."
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(
        default="nf4", description="The 4-bit data type."
    )
    bnb_4bit_use_double_quant: bool = Field(
        default=True, description="The scales of the 4-bit weights are quantised as well."
    )
    bnb_4bit_compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Precision in which 4-bit weights are multiplied; `auto`: dtype.",
    )
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        default="auto", description="How attention is computed; `auto`: PyTorch's sdpa."
    )
    gradient_checkpointing: Literal["auto"] | Recomputed = Field(
        default="auto",
        description="Recompute activations: less memory, slower; `selective`: only those that are cheap, outputs of "
        "linears and attention are kept; `auto`: where memory is short.",
    )
    deepspeed: str | None = Field(
        default=None,
        description="DeepSpeed config (JSON file), passed on under `accelerate launch`.",
    )
    lora: LoraSection = Field(default_factory=LoraSection, description="The adapter.")

    @field_validator("report_to", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        if given in (None, "none"):
            return ()
        return [given] if isinstance(given, str) else given
