"""Shots to rows: the original and its variations, no two of them nearly the same. Pure."""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tunewright.config.schema import StoryboardSection
from tunewright.counting import counted
from tunewright.data.storyboards import variations
from tunewright.data.storyboards.shot import Shot

WORDS = 5
NEAR = 0.8
"""Rows whose word 5-grams have this Jaccard similarity or more count as nearly the same."""
TRIES = 24
"""Draws for a variation before it is given up."""


@dataclass(frozen=True)
class Rows:
    """Rows made of shots, and what could not be made.

    Attributes:
        rows: Rows in the order of the shots, the original first.
        notes: Sentences for the user.
    """

    rows: list[dict[str, Any]]
    notes: tuple[str, ...]


def rows_of(shots: Sequence[Shot], options: StoryboardSection, seed: int) -> Rows:
    """Return up to `options.augmentation_factor` rows a shot, no two of all rows nearly the same.

    What a shot becomes depends on the seed, its id and its text, not on its place among the shots. Rows
    that would be near copies, as a whole or in their prompts, are drawn again and then left out with a note.
    """
    readings = [variations.read(shot, options.style) for shot in shots]
    ranked = sorted(range(len(shots)), key=lambda n: _digest(shots[n], seed))
    kept = _Kept(shot.text for shot in shots)
    made: dict[int, list[dict[str, Any]]] = {n: [] for n in ranked}
    notes: dict[int, str] = {}
    for n in ranked:
        row = variations.original(readings[n], options, Random(_digest(shots[n], seed)))
        if kept.take(row):
            made[n].append(row)
        else:
            notes[n] = f"Shot {shots[n].source_id} is nearly the same as another and is left out."
    for n in ranked:
        if made[n]:
            made[n] += _variations(readings[n], options, seed, kept)
            if len(made[n]) < options.augmentation_factor:
                notes[n] = _few(shots[n], len(made[n]), options.augmentation_factor)
    return Rows(
        [row for n in range(len(shots)) for row in made[n]],
        tuple(notes[n] for n in sorted(notes)),
    )


def _few(shot: Shot, count: int, wanted: int) -> str:
    """Return the note on a shot that has fewer rows than wanted."""
    rows = counted(count, "row")
    return (
        f"Shot {shot.source_id} has {rows} instead of {wanted:,}: "
        "no more variations could be made different enough."
    )


def _digest(shot: Shot, seed: int) -> int:
    text = "\0".join((str(seed), shot.source_id, shot.text))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _variations(
    reading: variations.Reading, options: StoryboardSection, seed: int, kept: "_Kept"
) -> list[dict[str, Any]]:
    rng = Random(_digest(reading.shot, seed) + 1)
    found: list[dict[str, Any]] = []
    for _ in range(1, options.augmentation_factor):
        drawn = (variations.variation(reading, options, rng, len(found) + 1) for _ in range(TRIES))
        row = next((row for row in drawn if kept.take(row)), None)
        if row is None:
            break
        found.append(row)
    return found


class _Kept:
    """The rows taken so far, as sets of word 5-grams that can be asked for a near copy.

    Two sets with a Jaccard similarity of t share at least one of the first `n - ceil(t * n) + 1` grams of
    each in any common order, so only those are looked up. Grams of the shots' own texts come first in the
    order, as few rows share them.

    Source: Bayardo, Ma, Srikant 2007, "Scaling up all pairs similarity search" (prefix filter).
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.own = {gram for text in texts for gram in grams(text)}
        self.found: Mapping[str, tuple[list[frozenset[str]], dict[str, list[int]]]] = {
            "whole": ([], defaultdict(list)),
            "prompt": ([], defaultdict(list)),
        }

    def take(self, row: Mapping[str, Any]) -> bool:
        """Keep a row and return True, or return False if it is a near copy of one that is kept."""
        sets = {
            "whole": grams(f"{row['instruction']} {row['prompt']}"),
            "prompt": grams(row["prompt"]),
        }
        first = {kind: self._first(found) for kind, found in sets.items()}
        if any(self._near(kind, found, first[kind]) for kind, found in sets.items()):
            return False
        for kind, found in sets.items():
            rows, index = self.found[kind]
            for gram in first[kind]:
                index[gram].append(len(rows))
            rows.append(found)
        return True

    def _first(self, found: frozenset[str]) -> list[str]:
        ordered = sorted(found, key=lambda gram: (gram not in self.own, gram))
        return ordered[: len(ordered) - math.ceil(NEAR * len(ordered)) + 1]

    def _near(self, kind: str, found: frozenset[str], first: list[str]) -> bool:
        rows, index = self.found[kind]
        others = {number for gram in first for number in index.get(gram, ())}
        return any(jaccard(found, rows[number]) >= NEAR for number in others)


def grams(text: str) -> frozenset[str]:
    """Return the word 5-grams of a text; the text itself if it has fewer words."""
    words = re.findall(r"\w+", text.lower())
    if len(words) <= WORDS:
        return frozenset({" ".join(words)})
    return frozenset(" ".join(words[n : n + WORDS]) for n in range(len(words) - WORDS + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of elements that two sets have in common."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)
