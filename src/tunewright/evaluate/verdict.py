"""Figures and limits to a verdict in one word, the reasons for it, and what to try."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.evaluate.gates import (
    MIN_ANSWERS,
    MIN_ROWS,
    Figures,
    Gate,
    Limits,
    copies_gates,
    damage_gates,
    rise_gates,
    score_gates,
)

Word = Literal["improved", "overfitted", "memorised", "degraded", "nothing learned", "undecided"]
FAULTS = ("overfitted", "memorised", "degraded")
"""Verdicts that name a fault."""
MIN_CLEAR_SCORE = 10.0
"""Percent: an interval of the score that ends below is as good as nothing."""
MAX_CLEAR_RATIO = 0.95
"""Perplexity of tuned over base: an interval that ends below shows by itself that something was learned."""


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        word: One of six.
        meaning: What it says, in a sentence.
        reasons: Why, with the figures: sentences.
        advice: What to try.
        gates: What was tested.
    """

    word: Word
    meaning: str
    reasons: tuple[str, ...]
    advice: str
    gates: tuple[Gate, ...]

    @property
    def sentence(self) -> str:
        """What the word means, and why."""
        return " ".join((self.meaning, *self.reasons))


def judge(figures: Figures, limits: Limits) -> Verdict:
    """Return the verdict; of several faults the first in the order of `Word` names it, all are reasons."""
    rise, copies = rise_gates(figures), copies_gates(figures, limits)
    damage = damage_gates(figures, limits)
    gates = (*copies, *rise, *damage, *score_gates(figures, limits))
    word = _word(figures, rise, copies, damage)
    failed = tuple(_told(gate) for gate in gates if not gate["passed"])
    reasons = (*failed, *_gains(figures, limits))
    meaning = _MEANING[word]
    if word == "improved" and figures.copied:
        meaning = "The model has learned from the text and has not memorised it."
    return Verdict(word, meaning, reasons, _advice(word, figures, limits), gates)


def _word(
    figures: Figures, rise: Sequence[Gate], copies: Sequence[Gate], damage: Sequence[Gate]
) -> Word:
    """Return the verdict.

    A held-out loss that rises while the training loss falls comes with copies and with every other damage, and
    names their cause: so it comes first.
    """
    faults: tuple[tuple[Word, Sequence[Gate]], ...] = (
        ("overfitted", rise),
        ("memorised", copies),
        ("degraded", damage),
    )
    for word, gates in faults:
        if not all(gate["passed"] for gate in gates):
            return word
    if _learned(figures):
        return "improved"
    tells = figures.score is not None or (figures.heldout and figures.heldout.rows >= MIN_ROWS)
    return "nothing learned" if tells else "undecided"


_MEANING: dict[Word, str] = {
    "overfitted": "The model has been trained too long on too little: it became better on the training text and "
    "worse on unseen text.",
    "memorised": "The model repeats the training text word for word.",
    "degraded": "The model has become worse.",
    "nothing learned": "The comparison does not prove that the model has learned anything.",
    "undecided": "There is not enough to tell whether the model has learned anything.",
    "improved": "The model has learned from the text.",
}
_ADVICE: dict[Word, str] = {
    "overfitted": "Train for fewer epochs (`train.num_train_epochs`), keep early stopping on, lower "
    "`train.learning_rate` or `train.lora.r`, or add text.",
    "memorised": "Train for fewer epochs (`train.num_train_epochs`), lower `train.lora.r`, take out rows that are "
    "there several times, or add text.",
    "degraded": "Lower `train.learning_rate`, and look at the training data: broken or mixed rows teach the model "
    "to write broken text.",
    "nothing learned": "Train for more epochs or raise `train.learning_rate` or `train.lora.r`; if the figures "
    "point the right way, raise `compare.num_prompts` for a narrower interval.",
    "undecided": "Hold out more text (`prepare.eval_split`) or add text; or ask more prompts (`compare.num_prompts`) for "
    "longer answers (`compare.max_new_tokens`). Endpoints alone have no author's text: `tunewright compare RUN`.",
    "improved": "Nothing speaks against using it.",
}


_STRONGER = "For a stronger style: more text, more epochs, or a larger `train.lora.r`."
_NO_SCORE = (
    "For a transfer score give what is missing: more held-out text (`prepare.eval_split`, or more text), or more and longer "
    "answers (`compare.num_prompts`, `compare.max_new_tokens`). If you need no score, nothing speaks against using it."
)


def _learned(figures: Figures) -> bool:
    """Return whether one of score, held-out perplexity and rubrics clearly shows that something was learned."""
    if figures.score is not None:
        _score, low, high = figures.score
        if low > 0 and high >= MIN_CLEAR_SCORE:
            return True
    held = figures.heldout
    if held and held.rows >= MIN_ROWS:
        limit = 1.0 if figures.score is None else MAX_CLEAR_RATIO
        if held.ratio.high < limit:
            return True
    enough = figures.tuned.answers >= MIN_ANSWERS
    return enough and any(rubric.difference.low > 0 for rubric in figures.rubrics)


def _advice(word: Word, figures: Figures, limits: Limits) -> str:
    under = figures.score is None or figures.score[0] < limits.target_score
    if word == "improved" and under:
        return _NO_SCORE if figures.score is None else _STRONGER
    return _ADVICE[word]


def _told(gate: Gate) -> str:
    return f"{gate['gate'][:1].upper()}{gate['gate'][1:]}: {gate['value']} ({gate['limit']})."


def _gains(figures: Figures, limits: Limits) -> list[str]:
    """Return what score and perplexity say, in sentences."""
    reasons: list[str] = []
    if figures.heldout:
        ratio = figures.heldout.ratio
        reasons.append(
            f"Perplexity on held-out text went from {figures.heldout.base.value:.2f} to "
            f"{figures.heldout.tuned.value:.2f} (ratio {ratio.value:.3f}, {ratio.low:.3f} to {ratio.high:.3f})."
        )
    if figures.score is None:
        reasons.append(f"There is no transfer score. {figures.score_reason}".strip())
        return reasons
    score, low, high = figures.score
    side = "under" if score < limits.target_score else "at or over"
    reasons.append(
        f"The transfer score is {score:.0f} % ({low:.0f} to {high:.0f}), {side} the target of "
        f"{limits.target_score:.0f} %."
    )
    if low <= 0:
        reasons.append("Its interval reaches 0: a likeness to the author is not proven.")
    return reasons


def facts(verdict: Verdict) -> dict[str, Any]:
    """Return it as JSON values."""
    return {
        "verdict": verdict.word,
        "sentence": verdict.sentence,
        "meaning": verdict.meaning,
        "reasons": list(verdict.reasons),
        "advice": verdict.advice,
        "gates": list(verdict.gates),
    }
