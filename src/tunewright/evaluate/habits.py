"""Whether answers became worse in ways that need no author: length, ends, repetition."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.evaluate.intervals import Estimate, difference, independent, mean, share
from tunewright.evaluate.style import distinct_share, words_of
from tunewright.models.sampling import Answer


@dataclass(frozen=True)
class Habits:
    """How a side answers.

    Attributes:
        answers: How many there are.
        words: Words of an answer.
        tokens: Tokens of an answer.
        written: Share of answers that have a word.
        ended: Share of answers that ended by themselves.
        distinct_3: Share of distinct word 3-grams within an answer.
        different_answers: Different answers over all answers.
    """

    answers: int
    words: Estimate
    tokens: Estimate
    written: Estimate
    ended: Estimate
    distinct_3: Estimate
    different_answers: float

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {
            name: value.facts() if isinstance(value, Estimate) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Change:
    """Tuned less base, over the prompts that both answered.

    Attributes:
        words: Words of an answer.
        ended: Share of answers that ended by themselves.
        distinct_3: Share of distinct word 3-grams within an answer.
    """

    words: Estimate
    ended: Estimate
    distinct_3: Estimate

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {name: value.facts() for name, value in vars(self).items()}


def habits(
    answers: Sequence[Answer], groups: Sequence[Hashable], *, samples: int, seed: int
) -> Habits:
    """Return how a side answers; intervals are over questions, `groups` tells which answers are to the same."""

    def of(values: Sequence[float]) -> Estimate:
        return mean(values, samples=samples, seed=seed, groups=groups)

    texts = [answer.text for answer in answers]
    return Habits(
        answers=len(answers),
        words=of(_words(answers)),
        tokens=of([float(answer.tokens) for answer in answers]),
        written=share(sum(map(bool, _words(answers))), len(answers), of=independent(groups)),
        ended=share(sum(a.ended for a in answers), len(answers), of=independent(groups)),
        distinct_3=of(_distinct(texts)),
        different_answers=len(set(texts)) / len(texts),
    )


def change(
    base: Sequence[Answer],
    tuned: Sequence[Answer],
    groups: Sequence[Hashable],
    *,
    samples: int,
    seed: int,
) -> Change:
    """Return what changed from base to tuned, whose answers are paired."""

    def paired(of: Sequence[float], to: Sequence[float]) -> Estimate:
        return difference(of, to, samples=samples, seed=seed, groups=groups)

    texts = [[answer.text for answer in side] for side in (base, tuned)]
    return Change(
        words=paired(_words(base), _words(tuned)),
        ended=paired([float(a.ended) for a in base], [float(a.ended) for a in tuned]),
        distinct_3=paired(_distinct(texts[0]), _distinct(texts[1])),
    )


def _words(answers: Sequence[Answer]) -> list[float]:
    return [float(len(words_of(answer.text))) for answer in answers]


def _distinct(texts: Sequence[str]) -> list[float]:
    return [distinct_share([text]) for text in texts]
