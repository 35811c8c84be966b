"""Answers side by side, cut into what was copied from training text and what was not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.artifacts import Artifact

SHOWN = 6
FOLDED = 12
SIDES = ("base", "tuned", "author")


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: As the model wrote it.
        note: Number of the copy within the answer, from 1; 0: it is no copy.
        words: Words of the copy.
        source: Name of the training text that has it.
    """

    text: str
    note: int = 0
    words: int = 0
    source: str = ""


@dataclass(frozen=True)
class Sample:
    """A prompt with its answers.

    Attributes:
        number: Place in samples.jsonl, from 1.
        prompt: What was asked.
        own: The user's own prompt, which is not scored.
        sides: Pieces of each side's answer; the author has none to the user's own prompt.
        looked_up: Whether its answers were looked up in the training text.
    """

    number: int
    prompt: str
    own: bool
    sides: Mapping[str, Sequence[Piece]]
    looked_up: bool

    @property
    def has_copy(self) -> bool:
        """Whether an answer of the base or of the tuned model copies training text."""
        return any(piece.note for pieces in self.sides.values() for piece in pieces)


@dataclass(frozen=True)
class Samples:
    """The answers that are on the page.

    Attributes:
        first: Always seen: the user's own prompts, then the first others.
        folded: In a list to open: those with copies first.
        total: How many there are in the file.
    """

    first: Sequence[Sample] = ()
    folded: Sequence[Sample] = ()
    total: int = 0

    @property
    def elsewhere(self) -> int:
        """How many are in the file only."""
        return self.total - len(self.first) - len(self.folded)

    @property
    def looked_up(self) -> bool:
        """Whether all that are on the page were looked up in the training text."""
        shown = [*self.first, *self.folded]
        return bool(shown) and all(sample.looked_up for sample in shown)

    @property
    def has_copy(self) -> bool:
        """Whether one that is on the page copies training text."""
        return any(sample.has_copy for sample in [*self.first, *self.folded])


def read_samples(evaluation: Artifact | None) -> Samples:
    """Return the samples of an evaluation; none if there is no such file."""
    file = evaluation.path / "samples.jsonl" if evaluation else None
    if file is None or not file.is_file():
        return Samples()
    with file.open(encoding="utf-8") as lines:
        found = [_sample(number, json.loads(line)) for number, line in enumerate(lines, 1)]
    found.sort(key=lambda sample: not sample.own)
    rest = sorted(found[SHOWN:], key=lambda sample: not sample.has_copy)
    return Samples(found[:SHOWN], rest[:FOLDED], len(found))


def pieces(text: str, spans: Sequence[Sequence[Any]]) -> list[Piece]:
    """Return a text cut at spans of (start, end, words, source); joined, the pieces are the text.

    Spans that lie outside the text or in another one are left out.
    """
    result: list[Piece] = []
    at = note = 0
    for start, end, words, source in spans:
        if not at <= start < end <= len(text):
            continue
        note += 1
        result += [Piece(text[at:start]), Piece(text[start:end], note, words, source)]
        at = end
    return [piece for piece in (*result, Piece(text[at:])) if piece.text]


def _sample(number: int, row: Mapping[str, Any]) -> Sample:
    copied = row.get("copied")
    spans: Mapping[str, Any] = copied or {}
    own = row.get("scored") is False
    return Sample(
        number=number,
        prompt=str(row.get("prompt", "")),
        own=own,
        sides={
            side: pieces(row.get(side) or "", spans.get(side) or ())
            for side in SIDES
            if side != "author" or not own
        },
        looked_up=copied is not None,
    )
