"""The only place where an option has a type, a default, a unit and a meaning: one file a group of stages."""

from pydantic import ConfigDict, Field, field_validator

from tunewright.config.paths import fault_of
from tunewright.config.schema.base import Name, Section
from tunewright.config.schema.comparing import CompareSection
from tunewright.config.schema.data import (
    CheckSection,
    ColumnRole,
    PrepareSection,
    SourceFormat,
    SourceSection,
    StoryboardSection,
    Variation,
)
from tunewright.config.schema.results import (
    ExportSection,
    MergeSection,
    PublishSection,
    QuantizationType,
    ServeSection,
)
from tunewright.config.schema.speed import AccelSection, switched
from tunewright.config.schema.training import (
    LoraSection,
    ModelSection,
    Recomputed,
    TrainSection,
)

__all__ = [
    "AGENTS",
    "AccelSection",
    "CheckSection",
    "ColumnRole",
    "CompareSection",
    "Config",
    "ExportSection",
    "LoraSection",
    "MergeSection",
    "ModelSection",
    "PrepareSection",
    "PublishSection",
    "QuantizationType",
    "Recomputed",
    "Section",
    "ServeSection",
    "SourceFormat",
    "SourceSection",
    "StoryboardSection",
    "TeamConfig",
    "TrainSection",
    "Variation",
]

AGENTS = "agents"
"""The key that makes a config one of several agents."""


class Config(Section):
    """A whole run: one section a stage."""

    name: Name = Field(default="run", description="Name of the run.")
    output_dir: str = Field(
        default="runs/{name}",
        min_length=1,
        description="Folder of the run; `{name}` is replaced.",
    )
    seed: int = Field(
        default=42, ge=0, le=2**32 - 1, description="Seed of split, training and sampling."
    )
    model: ModelSection = Field(default_factory=ModelSection)
    prepare: PrepareSection
    check: CheckSection = Field(default_factory=CheckSection)
    train: TrainSection = Field(default_factory=TrainSection)
    accel: AccelSection = Field(default_factory=AccelSection)
    compare: CompareSection = Field(default_factory=CompareSection)
    merge: MergeSection = Field(default_factory=MergeSection)
    export: ExportSection = Field(default_factory=ExportSection)
    serve: ServeSection = Field(default_factory=ServeSection)
    publish: PublishSection = Field(default_factory=PublishSection)

    @field_validator("accel", mode="before")
    @classmethod
    def _switched(cls, value: object) -> object:
        return switched(value)

    @field_validator("output_dir")
    @classmethod
    def _path(cls, given: str) -> str:
        fault = fault_of(given)
        if fault:
            raise ValueError(f"a path; this one {fault}")
        return given

    @property
    def run_dir(self) -> str:
        """Folder of the run with the name filled in."""
        return self.output_dir.replace("{name}", self.name)


class AgentOptions(Section):
    """What an agent has of its own: any options, laid over those that all have."""

    model_config = ConfigDict(extra="allow")


class TeamConfig(Config):
    """A whole run: one section a stage."""

    agents: dict[Name, AgentOptions] = Field(
        default_factory=dict[str, AgentOptions],
        description="Several agents on one base: under each name the options that are its own, any of those "
        "here. What stands at the top level is for all of them. Each agent is a run of its own, in "
        "`output_dir`/AGENT.",
    )
