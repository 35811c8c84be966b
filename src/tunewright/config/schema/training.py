"""Options of the base, of training and of the comparison."""

from typing import Annotated, Literal

from pydantic import Field

from tunewright.config.schema.base import Section


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
    use_rslora: bool = Field(default=False, description="Scale by lora_alpha / sqrt(r) instead.")


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
    num_train_epochs: float = Field(default=3.0, gt=0, description="Passes over the data.")
    per_device_train_batch_size: int = Field(default=2, ge=1, description="Rows a forward pass.")
    gradient_accumulation_steps: int = Field(
        default=4, ge=1, description="Forward passes an optimizer step."
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate.")
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        default="cosine", description="Course of the learning rate after warm-up."
    )
    warmup_ratio: float = Field(
        default=0.03, ge=0, lt=1, description="Share of the steps in which it rises."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="The gradient is scaled down to this norm."
    )
    optim: Literal["adamw_torch", "adamw_torch_fused"] = Field(
        default="adamw_torch", description="Optimizer."
    )
    train_sampling_strategy: Literal["auto", "random", "group_by_length"] = Field(
        default="auto",
        description="Order of rows; `auto`: by length where padding costs 10 % or more.",
    )
    eval_steps: int | None = Field(
        default=None,
        ge=1,
        description="Optimizer steps between evaluations; unset: twenty in the run, at least every epoch.",
    )
    early_stopping_patience: int | None = Field(
        default=3,
        ge=1,
        description="Evaluations without a better eval loss before training stops; null: never.",
    )
    save_total_limit: int = Field(
        default=2, ge=1, description="Checkpoints kept, the best one included."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Precision of the base's weights; `auto`: what this machine computes fastest in.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations: less memory, slower."
    )
    lora: LoraSection = Field(default_factory=LoraSection, description="The adapter.")


class CompareSection(Section):
    """Base against tuned."""

    num_prompts: int = Field(
        default=40,
        ge=4,
        description="Prompts from the held-out rows; rows are reused with other seeds.",
    )
    prompts: tuple[str, ...] = Field(
        default=(), description="Prompts of your own, shown but not scored."
    )
    max_new_tokens: int = Field(default=80, ge=8, description="Tokens of an answer at most.")
    temperature: float = Field(default=0.8, gt=0, description="Sampling temperature.")
    top_p: float = Field(default=0.9, gt=0, le=1, description="Nucleus sampling.")
    batch_size: int = Field(default=16, ge=1, description="Answers generated at once.")
    bootstrap_samples: int = Field(
        default=1000, ge=100, description="Resamples behind the interval."
    )
    min_words: int = Field(
        default=800,
        ge=100,
        description="Words of text each side needs; with less there is no score.",
    )
    target_score: float = Field(
        default=60.0, description="Percent: the transfer score that counts as production quality."
    )
    max_copied_words: int = Field(
        default=25,
        ge=5,
        description="Words: a longer verbatim copy of training text counts as memorised.",
    )
    max_copied_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of generated 8-grams found in training text, above the held-out text's own.",
    )
    max_perplexity_ratio: float = Field(
        default=1.05,
        gt=0,
        description="Tuned over base perplexity on held-out rows; more counts as degraded.",
    )
