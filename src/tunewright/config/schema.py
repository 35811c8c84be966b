"""The only place where an option has a type, a default, a unit and a meaning."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from tunewright.config.names import check_name

Name = Annotated[str, AfterValidator(check_name)]
QuantizationType = Literal["F32", "F16", "BF16", "Q8_0"]
SourceFormat = Literal["auto", "manuscript", "storyboard", "rows"]
ColumnRole = Literal[
    "messages",
    "conversations",
    "system",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "text",
    "style",
    "negative_prompt",
    "tags",
    "chosen",
    "rejected",
    "source_id",
    "agent",
]
Variation = Literal["camera", "lens", "light", "style", "length", "order"]


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
    chat_template: str | None = Field(
        default=None,
        min_length=1,
        description="Unset: the model's own; `alpaca`, `style-prompt`, `plain` (no markers), or a Jinja "
        "file. It is saved with the adapter and used by every later stage.",
    )


class SourceSection(Section):
    """One of the places that rows come from."""

    path: str = Field(
        min_length=1,
        description="File, folder, `hub:org/name` for a Hub dataset, or `sample:NAME` for a bundled sample.",
    )
    format: SourceFormat = Field(
        default="auto",
        description="`manuscript` is cut into chunks, `storyboard` into shots, `rows` are used as they "
        "are; `auto` decides for each file by suffix and content, and says why.",
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="How often each training row is taken: 0.5 takes half of them, 2 takes each twice.",
    )
    columns: dict[ColumnRole, str] = Field(
        default_factory=dict,
        description="Which column of the file plays which role, where its name does not tell.",
    )
    name: str | None = Field(default=None, description="Hub datasets: the configuration (subset).")
    split: str | None = Field(
        default=None, description="Hub datasets: the split to read; unset: `train`."
    )
    revision: str | None = Field(
        default=None, description="Hub datasets: branch, tag or commit."
    )


class StoryboardSection(Section):
    """Storyboards, prompt schedules and shot lists to prompt rows."""

    augmentation_factor: int = Field(
        default=20, ge=1, le=200, description="Rows made of each shot, the original included."
    )
    instruction: str = Field(
        default="Write a video prompt for this shot:",
        min_length=1,
        description="What every row asks for; the idea of the shot follows.",
    )
    style: str = Field(
        default="cinematic", min_length=1, description="Style of shots that name none."
    )
    vary: tuple[Variation, ...] = Field(
        default=("camera", "lens", "light", "style", "length", "order"),
        description="What the variations change.",
    )
    aspect_ratio: tuple[str, ...] = Field(
        default=("16:9", "9:16", "1:1", "4:3", "21:9"),
        min_length=1,
        description="Aspect ratios to choose from where the shot has none.",
    )
    guidance_scale: tuple[float, float] = Field(
        default=(4.0, 9.0), description="Least and most guidance scale of the variations."
    )
    num_frames: tuple[int, int] = Field(
        default=(49, 241), description="Least and most frames of a shot without a length."
    )


class PrepareSection(Section):
    """Raw text, storyboards or rows to a dataset."""

    source: tuple[SourceSection, ...] = Field(
        min_length=1,
        description="File, folder, `hub:org/name` or `sample:NAME` (`manuscript`, `storyboards`, "
        "`shell-helper.jsonl`, `agents/critic.jsonl`, `agents/synthesizer.jsonl`), or a list of them; "
        "an entry with options of its own is a mapping, see `prepare.source[]`.",
    )
    format: SourceFormat = Field(
        default="auto", description="Format of sources that do not say their own."
    )
    columns: dict[ColumnRole, str] = Field(
        default_factory=dict, description="Columns of sources that do not say their own."
    )
    prompt_template: str | None = Field(
        default=None,
        min_length=1,
        description="Rows: the user's message, with fields of the row in braces: `Write about {topic}.`",
    )
    on_bad_row: Literal["raise", "skip"] = Field(
        default="raise",
        description="Rows that cannot be used: refuse the data, or leave them out and list them.",
    )
    max_bad: float = Field(
        default=0.01, ge=0, le=1, description="Share of bad rows that `skip` accepts."
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
    stratify_by: str | None = Field(
        default="auto",
        description="Field whose values are held out in equal shares; `auto`: `agent` or `style` where "
        "rows have one; null: none.",
    )
    near_duplicate_threshold: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Jaccard similarity of word 5-grams from which two rows count as near copies.",
    )
    storyboard: StoryboardSection = Field(
        default_factory=StoryboardSection, description="Storyboards to rows."
    )

    @field_validator("source", mode="before")
    @classmethod
    def _entries(cls, given: Any) -> Any:
        entries = [given] if isinstance(given, str | dict) else given
        if not isinstance(entries, list | tuple):
            raise ValueError("a path, or a list of paths or mappings with `path`")
        return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]

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
    allow_secrets: bool = Field(
        default=False, description="Accept what looks like a password, key or token."
    )
    against: str | None = Field(
        default=None,
        min_length=1,
        description="A second dataset, such as a benchmark: rows that are near copies of its rows are refused.",
    )
    max_unlearned: float = Field(
        default=0.1, ge=0, le=1, description="Share of rows that may have no token to learn from."
    )
    max_cut: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of rows that may lose the end of their answer to the length limit.",
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
        default=2048, ge=16, description="Tokens of a row."
    )
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
