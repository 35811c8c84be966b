"""All sides answer the same prompts with the same seeds, whatever they are."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tunewright.errors import failure
from tunewright.events import Listener
from tunewright.models.messages import Message
from tunewright.models.sampling import Answer, TimeUpError


class Speaker(Protocol):
    """A side of the comparison: a model here, a GGUF file, or an endpoint."""

    @property
    def name(self) -> str:
        """What it is, in words."""
        ...

    def answer(
        self, prompts: Sequence[Sequence[Message]], *, seed: int, max_seconds: float
    ) -> list[Answer]:
        """Return one answer a prompt, in order.

        Raises:
            TimeUpError: `max_seconds` did not suffice.
        """
        ...


@dataclass(frozen=True)
class Asked:
    """The answers of all sides to the prompts that there was time for.

    Attributes:
        answers: Of each side one answer a prompt.
        planned: Number of prompts that were to be asked.
    """

    answers: tuple[list[Answer], ...]
    planned: int


def ask(
    sides: Sequence[Speaker],
    groups: Sequence[Sequence[Sequence[Message]]],
    *,
    batch_size: int,
    seed: int,
    max_seconds: float,
    listener: Listener,
    clock: Callable[[], float] = time.monotonic,
) -> Asked:
    """Return the answers of all sides; where the time ends before the prompts do, to the first prompts.

    The sides take turns, a batch each, so that all have answered what is compared. The batch that begins
    with prompt i is sampled with seed + i. No batch reaches over the end of a group: what is sampled together
    depends on each other, and the answers to one group are the same whatever else is asked.

    Raises:
        TunewrightError: E_TIME, there was no time for the first batch.
    """
    planned = sum(map(len, groups))
    names = " and ".join(side.name for side in sides)
    listener.started("compare", len(sides) * planned, f"answers of {names}")
    until = clock() + max_seconds
    answers: tuple[list[Answer], ...] = tuple([] for _ in sides)
    for batch in _batches(groups, batch_size):
        start = len(answers[0])
        made: list[list[Answer]] = []
        try:
            for speaker in sides:
                made.append(_in_time(speaker, batch, seed + start, until - clock()))
                done = len(sides) * start + sum(map(len, made))
                listener.advanced(done, speaker.name)
        except TimeUpError:
            break
        for known, new in zip(answers, made, strict=True):
            known.extend(new)
    if not answers[0]:
        raise failure(
            "E_TIME",
            f"{min(batch_size, planned)} prompts were not answered in the {max(0, max_seconds):.0f} s that were left.",
            where="compare.max_minutes",
        )
    if len(answers[0]) < planned:
        listener.said(
            f"The time is over (compare.max_minutes): {len(answers[0]):,} of {planned:,} prompts are compared."
        )
    return Asked(answers, planned=planned)


def _batches(
    groups: Sequence[Sequence[Sequence[Message]]], size: int
) -> Iterator[Sequence[Sequence[Message]]]:
    for group in groups:
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _in_time(
    speaker: Speaker, batch: Sequence[Sequence[Message]], seed: int, max_seconds: float
) -> list[Answer]:
    if max_seconds <= 0:
        raise TimeUpError
    return speaker.answer(batch, seed=seed, max_seconds=max_seconds)
