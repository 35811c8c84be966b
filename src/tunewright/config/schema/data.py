"""Options of data: sources, storyboards, prepare, check."""

import re
from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from tunewright.config.schema.base import Section

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
        default_factory=dict[ColumnRole, str],
        description="Which column of the file plays which role, where its name does not tell.",
    )
    name: str | None = Field(default=None, description="Hub datasets: the configuration (subset).")
    split: str | None = Field(
        default=None, description="Hub datasets: the split to read; unset: `train`."
    )
    revision: str | None = Field(default=None, description="Hub datasets: branch, tag or commit.")


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

    @field_validator("guidance_scale", "num_frames")
    @classmethod
    def _range(cls, given: tuple[float, float]) -> tuple[float, float]:
        if not 0 < given[0] <= given[1]:
            raise ValueError("two numbers over 0, the smaller one first")
        return given

    @field_validator("aspect_ratio")
    @classmethod
    def _ratios(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", ratio) for ratio in given):
            raise ValueError("width:height, such as 16:9")
        return given


class PrepareSection(Section):
    """Raw text, storyboards or rows to a dataset."""

    source: tuple[SourceSection, ...] = Field(
        description="A path (file, folder, `hub:org/name`, `sample:NAME`), or a list of paths or "
        "mappings with `path` and options of their own.",
    )
    format: SourceFormat = Field(
        default="auto", description="Format of sources that do not say their own."
    )
    columns: dict[ColumnRole, str] = Field(
        default_factory=dict[ColumnRole, str],
        description="Columns of sources that do not say their own.",
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
        default=0.1, gt=0, le=0.5, description="Share of the data that is held out, by source."
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
        entries: Any = [given] if isinstance(given, str | dict) else given
        if not isinstance(entries, list | tuple) or not entries:
            raise ValueError("a path, or a list of paths or mappings with `path`")
        items = cast("list[Any]", entries)
        return [{"path": entry} if isinstance(entry, str) else entry for entry in items]

    @model_validator(mode="after")
    def _window(self) -> "PrepareSection":
        if self.min_tokens * 2 > self.max_tokens:
            raise ValueError("have min_tokens of at most half of max_tokens")
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
    against: SourceSection | None = Field(
        default=None,
        description="A second dataset, such as a benchmark: rows that are near copies of its rows are refused.",
    )
    show: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="Rows kept as rendered samples, the mask made visible.",
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

    @field_validator("against", mode="before")
    @classmethod
    def _entry(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given
