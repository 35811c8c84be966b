"""Options of what is made of a trained adapter: merge, export, serve, publish."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, field_validator

from tunewright.config.schema.base import Name, Section

QuantizationType = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0",
    "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K",
]  # fmt: skip


class MergeSection(Section):
    """Adapter into base."""

    checkpoint: Literal["auto"] | Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Which state of the training: unset, the run's adapter; `auto`, of the adapter and the "
        "checkpoints that are kept the one with the lowest held-out loss; a number, the checkpoint of that step.",
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


_LIMITS: Mapping[QuantizationType, tuple[float, float, float, float]] = {
    "F32": (1e-6, 1e-5, 0.98, 1e-4),
    "F16": (1e-4, 1e-3, 0.95, 5e-3),
    "BF16": (1e-3, 1e-2, 0.95, 1e-2),
    "Q8_0": (5e-3, 0.05, 0.9, 2e-2),
    "Q5_1": (0.05, 0.5, 0.8, 0.05),
    "Q5_0": (0.06, 0.6, 0.8, 0.05),
    "Q4_1": (0.2, 1.0, 0.7, 0.2),
    "Q4_0": (0.2, 1.5, 0.7, 0.2),
    "Q6_K": (0.015, 0.15, 0.85, 0.03),
    "Q5_K_M": (0.04, 0.4, 0.8, 0.05),
    "Q5_K_S": (0.04, 0.4, 0.8, 0.05),
    "Q4_K_M": (0.12, 1.0, 0.7, 0.2),
    "Q4_K_S": (0.12, 1.0, 0.7, 0.2),
    "Q3_K_L": (0.3, 4.0, 0.65, 0.4),
    "Q3_K_M": (0.4, 4.0, 0.65, 0.4),
    "Q3_K_S": (0.6, 6.0, 0.6, 0.5),
    "Q2_K": (1.2, 8.0, 0.5, 1.0),
}
"""Mean KL, max KL, agreement, change of perplexity.

About ten times what the demo's model was measured to differ by, a hundred times where nothing is quantised,
since the rounding of activations grows with depth; three times the disagreement, at least five points.
The measurement: benchmarks/quantisation.py, docs/guides/which-quantisation.md.
"""


def _defaults(column: int) -> dict[QuantizationType, float]:
    return {name: limits[column] for name, limits in _LIMITS.items()}


def _of_each(column: int) -> BeforeValidator:
    """Return what completes a limit that was given for some types, or as one number for all."""

    def completed(given: object) -> object:
        defaults = _defaults(column)
        if isinstance(given, Mapping):
            return {**defaults, **cast("Mapping[str, object]", given)}
        return given if isinstance(given, bool) else dict.fromkeys(defaults, given)

    return BeforeValidator(completed)


_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(gt=0, le=1)]
_NAMED = "Types that are not named keep their default; one number is for all types."


class ExportSection(Section):
    """Merged model to GGUF and Modelfile."""

    quantization: tuple[QuantizationType, ...] = Field(
        default=("F16", "Q8_0"),
        min_length=1,
        description="Types of GGUF file to write; the last one is served. Those with a K need the extra "
        "`kquants` or a `llama-quantize` on the PATH.",
    )
    max_mean_kl: Annotated[dict[QuantizationType, _Positive], _of_each(0)] = Field(
        default_factory=lambda: _defaults(0),
        description="Nats a token: mean KL divergence of each type from the merged model. "
        + _NAMED,
    )
    max_kl: Annotated[dict[QuantizationType, _Positive], _of_each(1)] = Field(
        default_factory=lambda: _defaults(1),
        description="Nats: the largest KL divergence at a position. " + _NAMED,
    )
    min_top1_agreement: Annotated[dict[QuantizationType, _Share], _of_each(2)] = Field(
        default_factory=lambda: _defaults(2),
        description="Share of positions with the same most likely next token. " + _NAMED,
    )
    max_perplexity_change: Annotated[dict[QuantizationType, _Positive], _of_each(3)] = Field(
        default_factory=lambda: _defaults(3),
        description="Share by which the perplexity of the same held-out tokens may differ from the "
        "merged model's: 0.02 is 2 %. " + _NAMED,
    )
    llama_cpp: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of a llama.cpp checkout: its converter writes the models that Tunewright's own "
        "writer does not know.",
    )
    system: str | None = Field(default=None, description="System message in the Modelfile.")
    temperature: float = Field(default=0.7, ge=0, description="Modelfile parameter.")
    top_p: float = Field(default=0.8, gt=0, le=1, description="Modelfile parameter.")
    num_ctx: int = Field(
        default=2048,
        ge=128,
        description="Tokens: context length in the Modelfile and when serving.",
    )
    ollama_create: bool = Field(
        default=True,
        description="Run `ollama create tunewright/NAME`, NAME being the config's, where Ollama is installed.",
    )


class ServeSection(Section):
    """OpenAI-compatible endpoint."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to bind.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to bind; 0: any free one.")
    engine: Literal["auto", "llama.cpp", "transformers", "vllm"] = Field(
        default="auto",
        description="What computes the answers; `auto`: llama.cpp for GGUF files, vLLM where it is "
        "installed and there is a GPU, Transformers otherwise.",
    )
    max_model_len: int | None = Field(
        default=None,
        ge=16,
        description="Tokens: question and answer together; unset: `export.num_ctx`. Never more than the "
        "model was made for.",
    )
    allow_without_key: bool = Field(
        default=False,
        description="Bind an address that others can reach although no TUNEWRIGHT_API_KEY is set.",
    )


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
    push_to_hub: tuple[Literal["adapter", "merged", "gguf", "dataset"], ...] = Field(
        default=(),
        description="What `tunewright run` uploads to the Hub at its end; what is there already, as it is "
        "now, is not uploaded again.",
    )
    hub_model_id: str | None = Field(
        default=None, description="Hub repository of the adapter: `org/name`."
    )
    hub_merged_id: str | None = Field(
        default=None,
        description="Hub repository of the merged model; unset: that of the adapter with `-merged` behind it.",
    )
    hub_gguf_id: str | None = Field(
        default=None,
        description="Hub repository of the GGUF files; unset: that of the adapter with `-GGUF` behind it.",
    )
    hub_dataset_id: str | None = Field(
        default=None, description="Hub repository of the dataset: `org/name`."
    )
    hub_revision: str | None = Field(
        default=None,
        description="Branch of the Hub repositories; made where it is not there. Unset: `main`.",
    )
    hub_private: bool = Field(
        default=True, description="A Hub repository that is created is private."
    )
    license: str | None = Field(
        default=None,
        description="Licence of the dataset on its card, as the Hub names it: `cc-by-4.0`, `cc0-1.0`, ...",
    )
    model_license: str | None = Field(
        default=None,
        description="Licence of the model on its card, as the Hub names it: `apache-2.0`, `llama3.1`, ...",
    )

    @field_validator("hub_model_id", "hub_merged_id", "hub_gguf_id", "hub_dataset_id")
    @classmethod
    def _repository(cls, given: str | None) -> str | None:
        if given is None or (
            _REPOSITORY.fullmatch(given)
            and len(given) <= _MAX_REPOSITORY
            and not re.search(r"--|\.\.|\.git$", given)
        ):
            return given
        raise ValueError("org/name, of letters, digits, dots, hyphens and underscores")

    @field_validator("hub_revision")
    @classmethod
    def _branch(cls, given: str | None) -> str | None:
        if given is None or (
            re.fullmatch(r"\w[\w./-]{0,99}", given, re.ASCII)
            and not re.search(r"\.\.|//|[./]$", given)
        ):
            return given
        raise ValueError("the name of a branch")

    @field_validator("license", "model_license")
    @classmethod
    def _licence(cls, given: str | None) -> str | None:
        if given is None or re.fullmatch(r"[a-z0-9._+-]{1,60}", given):
            return given
        raise ValueError("an id of up to 60 lower-case letters, digits, and of . - _ +")
