"""Options of the comparison of base and tuned."""

from typing import Any

from pydantic import Field, field_validator

from tunewright.config.addresses import fault_of_endpoint
from tunewright.config.schema.base import Section
from tunewright.config.schema.rubrics import Rubrics


class CompareSection(Section):
    """Base against tuned."""

    num_prompts: int = Field(
        default=40,
        ge=4,
        description="Prompts from the held-out rows; rows are reused with other seeds.",
    )
    prompts: tuple[str, ...] = Field(
        default=(),
        description="Prompts of your own: shown, and searched for copies, but not scored.",
    )
    prompts_file: str | None = Field(
        default=None,
        description="More prompts of your own: a `.jsonl` with `prompt` or `messages`, else text with one a line.",
    )
    checkpoints: bool = Field(
        default=False,
        description="Compare each checkpoint that is there, too: score and memorisation over training.",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields that requests to compared endpoints get besides, such as `top_k`.",
    )
    judge_url: str | None = Field(
        default=None,
        description="OpenAI-compatible endpoint of a model that is asked which answer is better; never needed.",
    )
    judge_model: str | None = Field(
        default=None, description="Its model's name; unset: the only one that it lists."
    )
    judge_criterion: str = Field(
        default="Which answer fits the request better, and is better written?",
        min_length=1,
        description="The question that the judge is asked.",
    )
    rubrics: Rubrics = Field(
        default=(),
        description="What a structured answer must look like: names of bundled rubrics, or rubrics of your "
        "own. Every answer is tested, and the share that passes is told.",
    )
    max_minutes: float = Field(
        default=60.0,
        gt=0,
        description="Minutes that answering may take; when they are over, the answers that are there are compared.",
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
    max_neutral_ratio: float = Field(
        default=1.5,
        gt=0,
        description="Tuned over base perplexity on the bundled neutral text; more counts as degraded.",
    )
    fail_under: float | None = Field(
        default=None,
        description="Percent: a lower transfer score, or none, is a failed gate.",
    )

    @field_validator("judge_url")
    @classmethod
    def _url(cls, given: str | None) -> str | None:
        fault = fault_of_endpoint(given) if given else None
        if fault:
            raise ValueError(fault)
        return given
