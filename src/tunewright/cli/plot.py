"""Curves drawn with characters. Pure."""

import math
from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]

_EMPTY = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot of a braille character: four rows of two."""


def plot(
    title: str, points: Sequence[Point], *, width: int, height: int, braille: bool = True
) -> list[str]:
    """Return a curve as `height` lines of at most `width` characters, with title, scale and last step.

    Values that are no number are left out. Without `braille` every character is plain ASCII.

    Args:
        title: Stands above it, with the last value.
        points: Steps, rising, with their values.
        width: Characters of a line, at least 16.
        height: Lines, at least 4; the first is the title, the last the scale of steps.
        braille: Draw with dots, eight to a character.
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return [f"{title}: nothing yet"[:width], *[""] * (height - 1)]
    lowest, highest = min(y for _, y in finite), max(y for _, y in finite)
    labels = [f"{highest:.4g}", f"{lowest:.4g}"]
    margin = max(map(len, labels)) + 1
    columns, rows = max(1, width - margin), height - 2
    drawn = _draw(finite, columns, rows, braille=braille)
    sides = [labels[0], *[""] * (rows - 2), labels[1]] if rows > 1 else labels[:1]
    first, last = f"{finite[0][0]:g}", f"{finite[-1][0]:g}"
    steps = first if first == last else first + last.rjust(columns - len(first))
    return [
        f"{title} {finite[-1][1]:.4g}"[:width],
        *(f"{side:>{margin - 1}} {line}" for side, line in zip(sides, drawn, strict=True)),
        " " * margin + steps,
    ]


def _draw(points: Sequence[Point], columns: int, rows: int, *, braille: bool) -> list[str]:
    """Return the curve as lines of characters."""
    across, down = (2, 4) if braille else (1, 1)
    dots = _dots(points, columns * across, rows * down)
    lines: list[str] = []
    for row in range(rows):
        line = ""
        for column in range(columns):
            bits = sum(
                _DOTS[y][x]
                for y in range(down)
                for x in range(across)
                if (column * across + x, row * down + y) in dots
            )
            line += (chr(_EMPTY + bits) if braille else "*") if bits else " "
        lines.append(line.rstrip())
    return lines


def _dots(points: Sequence[Point], wide: int, high: int) -> set[tuple[int, int]]:
    """Return column and row, from above, of every dot: the points and straight lines between them."""
    left, right = points[0][0], points[-1][0]
    lowest, highest = min(y for _, y in points), max(y for _, y in points)
    placed = [
        (
            round((x - left) / ((right - left) or 1) * (wide - 1)),
            round((highest - y) / ((highest - lowest) or 1) * (high - 1)),
        )
        for x, y in points
    ]
    dots = set(placed)
    for (x0, y0), (x1, y1) in pairwise(placed):
        length = max(abs(x1 - x0), abs(y1 - y0))
        dots |= {
            (x0 + round(n * (x1 - x0) / length), y0 + round(n * (y1 - y0) / length))
            for n in range(1, length)
        }
    return dots
