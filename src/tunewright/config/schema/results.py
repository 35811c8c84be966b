"""Options of what is made of a trained adapter: merge, export, serve, publish."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tunewright.config.schema.base import Name, Section

QuantizationType = Literal["F32", "F16", "BF16", "Q8_0"]


class MergeSection(Section):
    """Adapter into base."""

    checkpoint: Literal["auto"] | Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Which state of the training: unset, the run's adapter; `auto`, of the adapter and the "
        "checkpoints that are kept the one with the lowest eval loss; a number, the checkpoint of that step.",
    )
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


_REPOSITORY = re.compile(r"\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
_MAX_REPOSITORY = 96
"""Source: the Hub's rules for names, as huggingface_hub's `validate_repo_id` states them."""


class PublishSection(Section):
    """The local model store, and the Hub."""

    store: str | None = Field(
        default=None,
        description="Folder of the store; unset: MODEL_STORE_ROOT, or `store` in the current folder.",
    )
    agent: Name = Field(default="default", description="Agent that the adapter belongs to.")
    adapter: Name | None = Field(
        default=None, description="Name of the adapter; unset: the config's name."
    )
    version: Name | None = Field(default=None, description="Unset: vYYYYMMDD-HHMM in UTC.")
    hub_dataset_id: str | None = Field(
        default=None, description="Hub repository of the dataset: `org/name`."
    )
    hub_private: bool = Field(
        default=True, description="A Hub repository that is created is private."
    )
    license: str | None = Field(
        default=None,
        description="Licence of the dataset on its card, as the Hub names it: `cc-by-4.0`, `cc0-1.0`, ...",
    )

    @field_validator("hub_dataset_id")
    @classmethod
    def _repository(cls, given: str | None) -> str | None:
        if given is None or (
            _REPOSITORY.fullmatch(given)
            and len(given) <= _MAX_REPOSITORY
            and not re.search(r"--|\.\.|\.git$", given)
        ):
            return given
        raise ValueError("org/name, of letters, digits, dots, hyphens and underscores")

    @field_validator("license")
    @classmethod
    def _licence(cls, given: str | None) -> str | None:
        if given is None or re.fullmatch(r"[a-z0-9._-]{1,60}", given):
            return given
        raise ValueError("an id of up to 60 lower-case letters, digits, dots, hyphens, underscores")
