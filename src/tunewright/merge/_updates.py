"""The arithmetic of a merge: rows of a tensor of the base, with what an adapter makes of them.

All is computed in float32 and rounded once. Where the base is float32 itself, a tensor is computed as a whole and in
PEFT's order, so that every bit is PEFT's; elsewhere a stretch of rows at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from tunewright.models.changes import Change

BLOCK = 2**17
"""Values computed at once: 512 kB of float32, which stay in a processor's cache; eight times as many took twice the time."""
Rows = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True)
class Parts:
    """What a change takes from the adapter, in float32.

    Attributes:
        a_RI: A; of an embedding (r, rows).
        b_OR: B; of an embedding (width, r).
        magnitude: m, DoRA's.
        bias_O: Of B.
        delta: The rows that are replaced, by their numbers.
    """

    a_RI: torch.Tensor | None = None
    b_OR: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None
    bias_O: torch.Tensor | None = None
    delta: torch.Tensor | None = None


def parts_of(change: Change, tensor_of: Callable[[str], torch.Tensor]) -> Parts:
    """Return a change's parts."""

    def of(name: str | None) -> torch.Tensor | None:
        return tensor_of(name).float() if name else None

    a, b = change.pair or (None, None)
    magnitude = of(change.magnitude)
    return Parts(
        of(a),
        of(b),
        None if magnitude is None else magnitude.flatten(),
        of(change.bias),
        of(change.delta),
    )


def merged_rows(
    rows_of: Rows, shape: tuple[int, ...], change: Change, parts: Parts, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """Give the rows of a merged tensor in order, some at a time.

    Args:
        rows_of: Gives rows of what the change starts from, in any precision.
        shape: Of the tensor.
        change: What becomes of it.
        parts: What that takes.
        dtype: Precision of the result.
    """
    rows, width = shape[0], shape[1] if len(shape) > 1 else 1
    whole = dtype in (torch.float32, torch.float64)
    step = rows if whole else max(1, BLOCK // max(width, 1))
    norm_I = None
    if change.embeds and parts.magnitude is not None:
        norm_I = _column_norm(rows_of, shape, change, parts, None if whole else step)
    for first in range(0, rows, step):
        end = min(first + step, rows)
        given = rows_of(first, end)
        if change.pair:
            made = _updated(given, None if whole else (first, end), change, parts, norm_I)
        elif parts.bias_O is not None:
            made = given + parts.bias_O * change.scale
        else:
            made = given
        made = made.to(dtype)
        if parts.delta is not None:
            made = _replaced(made, (first, end), change.rows, parts.delta)
        yield made


def _updated(
    given: torch.Tensor,
    rows: tuple[int, int] | None,
    change: Change,
    parts: Parts,
    norm_I: torch.Tensor | None,
) -> torch.Tensor:
    """Return rows of W + s B A, or of what DoRA makes of it; without `rows`, all.

    Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5.
    """
    made = _sum(given, rows, change, parts)
    if parts.magnitude is None:
        return made
    if norm_I is not None:
        return (parts.magnitude / norm_I).view(1, -1) * made
    magnitude = parts.magnitude[slice(*rows)] if rows else parts.magnitude
    return (magnitude / torch.linalg.norm(made, dim=1)).view(-1, 1) * made


def _sum(
    given: torch.Tensor, rows: tuple[int, int] | None, change: Change, parts: Parts
) -> torch.Tensor:
    if parts.a_RI is None or parts.b_OR is None:
        raise ValueError("a pair is needed")
    if rows is None:
        product = parts.b_OR @ parts.a_RI
        return given + (product.T if change.embeds else product) * change.scale
    first, end = rows
    if change.embeds:
        left, right = parts.a_RI[:, first:end].T, parts.b_OR.T
    else:
        left, right = parts.b_OR[first:end], parts.a_RI
    return given.float().addmm_(left, right, alpha=change.scale)


def _column_norm(
    rows_of: Rows, shape: tuple[int, ...], change: Change, parts: Parts, step: int | None
) -> torch.Tensor:
    """Return the norm of each column of W + s B A, which needs all rows before the first is written.

    Rows are taken so many at a time; without `step`, all at once.
    """
    if step is None:
        return torch.linalg.norm(_sum(rows_of(0, shape[0]), None, change, parts).T, dim=1)
    squares_I = torch.zeros(shape[1], dtype=torch.float64)
    for first in range(0, shape[0], step):
        end = min(first + step, shape[0])
        squares_I += _sum(rows_of(first, end), (first, end), change, parts).double().square().sum(0)
    return squares_I.sqrt().float()


def _replaced(
    made: torch.Tensor, rows: tuple[int, int], numbers: tuple[int, ...], delta: torch.Tensor
) -> torch.Tensor:
    first, end = rows
    places = [(number - first, at) for at, number in enumerate(numbers) if first <= number < end]
    if not places:
        return made
    made = made.clone()
    made[[row for row, _ in places]] = delta[[at for _, at in places]].to(made.dtype)
    return made
