"""How the rows of an optimizer step are laid out in passes through the model. Pure.

Rows that begin with the same tokens share them: a pass is a list of pieces, each of which follows on pieces
before it. A position is shared only where no row learns what it predicts, so that every loss has positions of
its own row. Causal attention makes this exact: what a position computes depends on what comes before it alone,
and that is the same in all rows that share it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

IGNORED = -100
HELD = -1
"""Number of the piece that runs before all passes of a step, as the others name it."""
LEAST_SHARED = 16
"""Tokens that are worth a piece of their own: each is one more attention in every layer."""


@dataclass(frozen=True)
class Row:
    """A row of training.

    Attributes:
        tokens: Its token ids.
        labels: Of each position what the one before it is to predict; IGNORED: nothing.
    """

    tokens: Sequence[int]
    labels: Sequence[int]

    @cached_property
    def shareable(self) -> int:
        """Positions from the start that predict no label: the one before the first label is the row's own."""
        first = next((at for at, label in enumerate(self.labels) if at and label != IGNORED), None)
        return len(self.tokens) - 1 if first is None else first - 1

    @property
    def beginning(self) -> tuple[int, ...]:
        """The tokens that can be shared."""
        return tuple(self.tokens[: self.shareable])


@dataclass(frozen=True)
class Piece:
    """A run of tokens in a pass.

    Attributes:
        tokens: Their ids.
        targets: What each is to predict; IGNORED: nothing.
        start: Position of the first in its rows.
        before: Numbers of the pieces of the pass that come before it in its rows, in order; first of all HELD.
    """

    tokens: Sequence[int]
    targets: Sequence[int]
    start: int
    before: tuple[int, ...]


@dataclass(frozen=True)
class Laid:
    """An optimizer step.

    Attributes:
        held: What all its rows begin with, where they take several passes: it runs once, before them.
        passes: The pieces of each.
    """

    held: Piece | None
    passes: Sequence[Sequence[Piece]]

    @property
    def executed(self) -> int:
        """How many tokens go through the model."""
        held = len(self.held.tokens) if self.held else 0
        return held + sum(map(executed, self.passes))


def pieces(rows: Sequence[Row], *, sharing: bool, held: int = 0) -> list[Piece]:
    """Return the rows of a pass in pieces; without sharing each row is one.

    Args:
        rows: Of the pass.
        sharing: Equal beginnings are one piece.
        held: Tokens at the start of all rows that have run before.
    """
    found: list[Piece] = []
    if sharing:
        _grow(sorted(rows, key=lambda row: row.beginning), held, (HELD,) if held else (), found)
    else:
        found.extend(_rest(row, 0, ()) for row in rows)
    return found


def _grow(rows: Sequence[Row], depth: int, before: tuple[int, ...], found: list[Piece]) -> None:
    """Add the pieces of sorted rows that have their first `depth` tokens in common."""
    for group, shared in _groups(rows, depth + LEAST_SHARED):
        if len(group) == 1:
            found.append(_rest(group[0], depth, before))
            continue
        tokens = group[0].tokens[depth:shared]
        found.append(Piece(tokens, [IGNORED] * len(tokens), depth, before))
        _grow(group, shared, (*before, len(found) - 1), found)


def _rest(row: Row, depth: int, before: tuple[int, ...]) -> Piece:
    return Piece(row.tokens[depth:], [*row.labels[depth + 1 :], IGNORED], depth, before)


def _groups(rows: Sequence[Row], least: int) -> Iterator[tuple[Sequence[Row], int]]:
    """Give the neighbours that share at least so many tokens, with how many all of them share."""
    start, shared = 0, [in_common(a, b) for a, b in pairwise(rows)]
    for end in range(1, len(rows) + 1):
        if end == len(rows) or shared[end - 1] < least:
            yield rows[start:end], min(shared[start : end - 1], default=0)
            start = end


def in_common(a: Row, b: Row) -> int:
    """Return how many tokens two rows can share."""
    most = min(a.shareable, b.shareable)
    if list(a.tokens[:most]) == list(b.tokens[:most]):
        return most
    return next(at for at in range(most) if a.tokens[at] != b.tokens[at])


def executed(laid: Sequence[Piece]) -> int:
    """Return how many tokens go through the model."""
    return sum(len(piece.tokens) for piece in laid)


def passes(
    rows: Sequence[Row], *, sharing: bool, most_tokens: int, most_rows: int | None = None
) -> Laid:
    """Return an optimizer step in passes, each of at most so many executed tokens, but of one row at least.

    Args:
        rows: Of the step.
        sharing: Equal beginnings run once a pass, and what all rows begin with once in all.
        most_tokens: What is in memory at once.
        most_rows: Rows of a pass at most; None: as many as fit.
    """
    order = sorted(rows, key=lambda row: row.beginning) if sharing else list(rows)
    groups = _filled(order, 0, sharing=sharing, most_tokens=most_tokens, most_rows=most_rows)
    several = sharing and len(groups) > 1
    common = min(in_common(a, b) for a, b in pairwise(order)) if several else 0
    if common < LEAST_SHARED:
        return Laid(None, [pieces(group, sharing=sharing) for group in groups])
    held = Piece(order[0].tokens[:common], [IGNORED] * common, 0, ())
    room = most_tokens - common
    groups = _filled(order, common, sharing=True, most_tokens=room, most_rows=most_rows)
    return Laid(held, [pieces(group, sharing=True, held=common) for group in groups])


def _filled(
    order: Sequence[Row], held: int, *, sharing: bool, most_tokens: int, most_rows: int | None
) -> list[list[Row]]:
    """Return the rows of each pass; neighbours share what they begin with after what is held."""
    groups: list[list[Row]] = []
    taken = 0
    for row in order:
        own = len(row.tokens) - held
        if groups and sharing:
            shared = in_common(groups[-1][-1], row) - held
            own -= shared if shared >= LEAST_SHARED else 0
        full = not groups or taken + own > most_tokens or len(groups[-1]) == most_rows
        if full:
            groups.append([])
            taken, own = 0, len(row.tokens) - held
        groups[-1].append(row)
        taken += own
    return groups


def buckets(
    lengths: Sequence[int], *, most_tokens: int, pass_costs: int, most_rows: int | None = None
) -> list[list[int]]:
    """Return rows in padded batches, so that padding and passes together cost the least.

    A shortest path over the rows in order of length: a batch is a run of them.

    Args:
        lengths: Tokens of each row.
        most_tokens: Of a batch, padding counted; one row alone may have more.
        pass_costs: What one more batch costs, in tokens.
        most_rows: Of a batch; None: as many as fit.

    Returns:
        Row numbers of each batch.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        fitting = max(1, min(most_tokens // max(1, longest), most_rows or end))
        best.append(
            min(
                (best[start][0] + (end - start) * longest + pass_costs, start)
                for start in range(max(0, end - fitting), end)
            )
        )
    found: list[list[int]] = []
    end = len(order)
    while end:
        start = best[end][1]
        found.append(order[start:end])
        end = start
    return found
