"""Figures and limits to one of four words, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from tunewright.evaluate.perplexity import Perplexity

Word = Literal["improved", "overfitted", "nothing learned", "degraded"]
MIN_CLEAR_SCORE = 10.0
MIN_DISTINCT_SHARE = 0.75


class Gate(TypedDict):
    """One thing that was proven, or was not."""

    gate: str
    value: str
    limit: str
    passed: bool


@dataclass(frozen=True)
class Limits:
    """The thresholds of the config's `compare` section, by the same names."""

    target_score: float
    max_copied_words: int
    max_copied_share: float
    max_perplexity_ratio: float


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        score: Transfer score with the ends of its interval; None if there is none.
        copied_words: Longest verbatim run of training text in the tuned answers.
        heldout_copied_words: The same in held-out text: what template and language share anyway.
        copied_share: Share of the tuned answers' 8-grams that the training text has.
        heldout_copied_share: The same for held-out text.
        heldout: Perplexities on held-out rows.
        training: Perplexities on training rows.
        distinct: Share of distinct word 3-grams within an answer: base, tuned, author.
    """

    score: tuple[float, float, float] | None
    copied_words: int
    heldout_copied_words: int
    copied_share: float
    heldout_copied_share: float
    heldout: Perplexity
    training: Perplexity
    distinct: tuple[float, float, float]


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        word: One of four.
        sentence: Why, with the figures.
        advice: What to try.
        gates: What was tested.
    """

    word: Word
    sentence: str
    advice: str
    gates: tuple[Gate, ...]


def judge(figures: Figures, limits: Limits) -> Verdict:
    """Return the verdict: overfitted before degraded before nothing learned before improved."""
    copies = (_longest_copy(figures, limits), _copied_share(figures, limits))
    rise = _held_out_rise(figures)
    damage = (_perplexity_ratio(figures, limits), _repetition(figures))
    gates = (*copies, rise, *damage)
    word: Word
    if not all(gate["passed"] for gate in (*copies, rise)):
        word, advice = "overfitted", _OVERFITTED
    elif not all(gate["passed"] for gate in damage):
        word, advice = "degraded", _DEGRADED
    elif _nothing_learned(figures):
        word, advice = "nothing learned", _NOTHING_LEARNED
    else:
        word, advice = "improved", _improved_advice(figures, limits)
    reason = _failed(gates) if word in ("overfitted", "degraded") else _gain(figures, limits)
    return Verdict(word, f"{_MEANING[word]} {reason}", advice, gates)


_MEANING: dict[Word, str] = {
    "overfitted": "The model has learned the training text by heart.",
    "degraded": "The model has become worse.",
    "nothing learned": "The comparison does not prove that the model has learned anything.",
    "improved": "The model has learned from the text and has not memorised it.",
}
_OVERFITTED = (
    "Train for fewer epochs (`train.num_train_epochs`), keep early stopping on, lower "
    "`train.learning_rate` or `train.lora.r`, or add text."
)
_DEGRADED = (
    "Lower `train.learning_rate`, and look at the training data: broken or mixed rows teach the "
    "model to write broken text."
)
_NOTHING_LEARNED = (
    "Train for more epochs or raise `train.learning_rate` or `train.lora.r`; if the figures point the "
    "right way, raise `compare.num_prompts` for a narrower interval."
)


def _longest_copy(figures: Figures, limits: Limits) -> Gate:
    limit = max(limits.max_copied_words, figures.heldout_copied_words)
    return Gate(
        gate="longest verbatim copy of training text",
        value=f"{figures.copied_words} words",
        limit=f"at most {limit} words",
        passed=figures.copied_words <= limit,
    )


def _copied_share(figures: Figures, limits: Limits) -> Gate:
    limit = figures.heldout_copied_share + limits.max_copied_share
    return Gate(
        gate="word 8-grams of the answers found in training text",
        value=f"{figures.copied_share:.1%}",
        limit=f"at most {limit:.1%}, of which held-out text has {figures.heldout_copied_share:.1%}",
        passed=figures.copied_share <= limit,
    )


def _held_out_rise(figures: Figures) -> Gate:
    heldout, training = figures.heldout.ratio, figures.training.ratio
    return Gate(
        gate="held-out loss while the training loss fell",
        value=f"{figures.heldout.base_loss:.3f} to {figures.heldout.tuned_loss:.3f}; training "
        f"{figures.training.base_loss:.3f} to {figures.training.tuned_loss:.3f}",
        limit="does not clearly rise (95 % intervals)",
        passed=not (heldout.low > 1 and training.high < 1),
    )


def _perplexity_ratio(figures: Figures, limits: Limits) -> Gate:
    return Gate(
        gate="held-out perplexity, tuned over base",
        value=f"{figures.heldout.ratio.value:.3f}",
        limit=f"at most {limits.max_perplexity_ratio:g}",
        passed=figures.heldout.ratio.value <= limits.max_perplexity_ratio,
    )


def _repetition(figures: Figures) -> Gate:
    base, tuned, author = figures.distinct
    limit = min(base, MIN_DISTINCT_SHARE * author)
    return Gate(
        gate="distinct word 3-grams in an answer",
        value=f"{tuned:.0%}",
        limit=f"at least {limit:.0%}, the lower of base and {MIN_DISTINCT_SHARE:.0%} of the author's",
        passed=tuned >= limit,
    )


def _nothing_learned(figures: Figures) -> bool:
    if figures.score is None:
        return figures.heldout.ratio.high >= 1
    _score, low, high = figures.score
    return low <= 0 or high < MIN_CLEAR_SCORE


def _improved_advice(figures: Figures, limits: Limits) -> str:
    if figures.score is not None and figures.score[0] < limits.target_score:
        return "For a stronger style: more text, more epochs, or a larger `train.lora.r`."
    return "Go on: merge, export, publish."


def _failed(gates: Sequence[Gate]) -> str:
    return " ".join(
        f"{gate['gate'].capitalize()}: {gate['value']} ({gate['limit']})."
        for gate in gates
        if not gate["passed"]
    )


def _gain(figures: Figures, limits: Limits) -> str:
    ratio = figures.heldout.ratio
    text = (
        f"Perplexity on held-out text went from {figures.heldout.base.value:.2f} to "
        f"{figures.heldout.tuned.value:.2f} (ratio {ratio.value:.3f}, {ratio.low:.3f} to {ratio.high:.3f})"
    )
    if figures.score is None:
        return f"{text}; there is no transfer score."
    score, low, high = figures.score
    side = "under" if score < limits.target_score else "at or over"
    return (
        f"{text}; the transfer score is {score:.0f} % ({low:.0f} to {high:.0f}), {side} the target of "
        f"{limits.target_score:.0f} %."
    )
