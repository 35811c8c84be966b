"""Figures about the chunks of a manuscript. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from tunewright.data.manuscripts.cut import Chunk

_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Bin:
    """How many chunks have `low` to `high` tokens, both included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True)
class Statistics:
    """Figures about chunks.

    Attributes:
        chunks: Their number.
        words: Words in all.
        tokens: Tokens in all.
        mean_tokens: Tokens of a chunk on average.
        min_tokens: Tokens of the shortest.
        max_tokens: Tokens of the longest.
        histogram: Bins of equal width that cover all lengths.
    """

    chunks: int
    words: int
    tokens: int
    mean_tokens: float
    min_tokens: int
    max_tokens: int
    histogram: tuple[Bin, ...]


def statistics(chunks: Sequence[Chunk], *, bins: int = 12) -> Statistics:
    """Return the figures of chunks; zeros for none."""
    lengths = [item.tokens for item in chunks]
    if not lengths:
        return Statistics(0, 0, 0, 0.0, 0, 0, ())
    return Statistics(
        chunks=len(chunks),
        words=sum(len(item.text.split()) for item in chunks),
        tokens=sum(lengths),
        mean_tokens=sum(lengths) / len(lengths),
        min_tokens=min(lengths),
        max_tokens=max(lengths),
        histogram=histogram(lengths, bins=bins),
    )


def histogram(lengths: Sequence[int], *, bins: int = 12) -> tuple[Bin, ...]:
    """Return at most `bins` bins of equal, round width from the shortest to the longest."""
    if not lengths:
        return ()
    width = _round_up((max(lengths) - min(lengths) + 1) / max(1, bins - 1))
    first = min(lengths) // width
    counts = [0] * (max(lengths) // width - first + 1)
    for length in lengths:
        counts[length // width - first] += 1
    return tuple(
        Bin((first + n) * width, (first + n + 1) * width - 1, count)
        for n, count in enumerate(counts)
    )


def _round_up(value: float) -> int:
    """Return the least of 1, 2, 5, 10, 20, 50, ... that is not below the value."""
    scale = 10 ** (len(str(ceil(value))) - 1)
    return next(step * scale for step in _STEPS if step * scale >= value)
