"""The only place where an option has a type, a default, a unit and a meaning."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from tunewright.config.names import check_name

Name = Annotated[str, AfterValidator(check_name)]
QuantizationType = Literal["F32", "F16", "BF16", "Q8_0"]


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )


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


class PrepareSection(Section):
    """Raw text to a dataset."""

    source: str = Field(
        description="Text file, folder of text files, or JSONL file of rows; `sample:NAME` for a bundled "
        "sample (`manuscript`, `shell-helper.jsonl`, `agents/critic.jsonl`, `agents/synthesizer.jsonl`)."
    )
    format: Literal["auto", "manuscript", "rows"] = Field(
        default="auto",
        description="`manuscript` is cut into chunks, `rows` are used as they are; `auto` decides by suffix.",
    )
    mode: Literal["standalone", "continuation"] = Field(
        default="standalone",
        description="Manuscripts: an empty input, or the passage before as input.",
    )
    instruction: str = Field(
        default="Continue this narrative in the author's style:",
        description="Manuscripts: the instruction of every row.",
    )
    min_tokens: int = Field(
        default=700, ge=8, description="Tokens: a shorter chunk is merged with its neighbour."
    )
    max_tokens: int = Field(default=2000, ge=16, description="Tokens: the most that a chunk holds.")
    eval_split: float = Field(
        default=0.1, gt=0, lt=1, description="Share of the data that is held out, by source."
    )
    near_duplicate_threshold: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Jaccard similarity of word 5-grams from which two rows count as near copies.",
    )

    @model_validator(mode="after")
    def _window(self) -> "PrepareSection":
        if self.min_tokens * 2 > self.max_tokens:
            raise ValueError("min_tokens must be at most half of max_tokens")
        return self


class CheckSection(Section):
    """What a dataset must satisfy."""

    allow_leakage: bool = Field(default=False, description="Accept near copies across the split.")
    allow_duplicates: bool = Field(
        default=True, description="Accept exact copies on the same side, with a warning."
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

    max_length: int = Field(
        default=2048, ge=16, description="Tokens of a row; longer rows are cut and counted."
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


class MergeSection(Section):
    """Adapter into base."""

    max_mean_kl: float = Field(
        default=1e-3,
        gt=0,
        description="Nats a token: mean KL divergence, merged against base with adapter.",
    )
    min_top1_agreement: float = Field(
        default=0.97,
        gt=0,
        le=1,
        description="Share of tokens with the same most likely next token.",
    )


_MAX_MEAN_KL: Mapping[QuantizationType, float] = {
    "F32": 5e-4,
    "F16": 5e-4,
    "BF16": 2e-3,
    "Q8_0": 1e-2,
}


class ExportSection(Section):
    """Merged model to GGUF and Modelfile."""

    quantization: tuple[QuantizationType, ...] = Field(
        default=("F16", "Q8_0"),
        min_length=1,
        description="Types of GGUF file to write; the last one is served.",
    )
    max_mean_kl: dict[QuantizationType, float] = Field(
        default_factory=lambda: dict(_MAX_MEAN_KL),
        description="Nats a token: mean KL divergence of each type against the merged model; types "
        "that are not named keep their default.",
    )
    min_top1_agreement: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of positions with the same most likely next token, for every type.",
    )
    system: str | None = Field(default=None, description="System message in the Modelfile.")
    temperature: float = Field(default=0.7, ge=0, description="Modelfile parameter.")
    top_p: float = Field(default=0.8, gt=0, le=1, description="Modelfile parameter.")
    num_ctx: int = Field(
        default=2048,
        ge=128,
        description="Tokens: context length in the Modelfile and when serving.",
    )

    @field_validator("max_mean_kl")
    @classmethod
    def _all_types(cls, given: dict[QuantizationType, float]) -> dict[QuantizationType, float]:
        return {**_MAX_MEAN_KL, **given}


class ServeSection(Section):
    """OpenAI-compatible endpoint."""

    host: str = Field(default="127.0.0.1", description="Address to bind.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to bind; 0: any free one.")


class PublishSection(Section):
    """The local model store."""

    store: str | None = Field(
        default=None,
        description="Folder of the store; unset: MODEL_STORE_ROOT, or `store` in the current folder.",
    )
    agent: Name = Field(default="default", description="Agent that the adapter belongs to.")
    adapter: Name | None = Field(
        default=None, description="Name of the adapter; unset: the config's name."
    )
    version: Name | None = Field(default=None, description="Unset: vYYYYMMDD-HHMM in UTC.")


class Config(Section):
    """A whole run: one section a stage."""

    name: Name = Field(default="run", description="Name of the run.")
    output_dir: str = Field(
        default="runs/{name}", description="Folder of the run; `{name}` is replaced."
    )
    seed: int = Field(default=42, ge=0, description="Seed of split, training and sampling.")
    model: ModelSection = Field(default_factory=ModelSection)
    prepare: PrepareSection
    check: CheckSection = Field(default_factory=CheckSection)
    train: TrainSection = Field(default_factory=TrainSection)
    compare: CompareSection = Field(default_factory=CompareSection)
    merge: MergeSection = Field(default_factory=MergeSection)
    export: ExportSection = Field(default_factory=ExportSection)
    serve: ServeSection = Field(default_factory=ServeSection)
    publish: PublishSection = Field(default_factory=PublishSection)

    @property
    def run_dir(self) -> str:
        """Folder of the run with the name filled in."""
        return self.output_dir.replace("{name}", self.name)
