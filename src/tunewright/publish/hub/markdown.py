"""Pieces of Markdown that every card is made of. Pure."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

BAR = 40
"""Characters of the longest bar of a plot."""
MAX_LISTED = 20


def text_plot(edges: Sequence[float], counts: Sequence[int]) -> str:
    """Return a histogram as lines of text, a bar for each bin; every bin with rows has a bar."""
    most = max(counts)
    bins = [f"{low:,.0f} to {high:,.0f}" for low, high in pairwise(edges)]
    wide, digits = max(map(len, bins)), len(f"{most:,}")
    return "\n".join(
        f"{name:>{wide}} | {count:>{digits},} {'#' * max(count > 0, round(BAR * count / most))}".rstrip()
        for name, count in zip(bins, counts, strict=True)
    )


def items(lines: Iterable[str]) -> str:
    """Return a list, the first of its lines if there are many."""
    given = list(lines)
    shown = [f"* {line}" for line in given[:MAX_LISTED]]
    if len(given) > MAX_LISTED:
        shown.append(f"* and {len(given) - MAX_LISTED:,} more")
    return "\n".join(shown)


def file_name(path: str) -> str:
    """Return the file's name without the folders of the machine where it lay."""
    plain = path.replace("\\", "/")
    outside = plain.startswith(("/", "~")) or plain[1:3] == ":/" or ".." in plain.split("/")
    return inline(PurePosixPath(plain).name if outside else plain)


def inline(value: object) -> str:
    """Return a value as one line that Markdown leaves as it is."""
    line = " ".join(str("" if value is None else value).split())
    for mark in "\\`*_[]|":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("<", "&lt;")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 0) -> str:
    """Return a table, whose last columns are set as numbers; its cells are Markdown already."""
    marks = ["---"] * (len(columns) - numbers) + ["---:"] * numbers
    lines = [columns, marks, *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def course_plot(points: Sequence[tuple[float, float]], most: int = 20) -> str:
    """Return values over steps as lines of text: the lowest value has the shortest bar, the highest the longest.

    Of many steps the first, the last and those evenly between them are shown.
    """
    last = len(points) - 1
    picked = sorted({round(k * last / (most - 1)) for k in range(most)}) if last >= most else None
    shown = [points[k] for k in picked] if picked else list(points)
    low = min(value for _, value in shown)
    span = max(value for _, value in shown) - low or 1.0
    wide = max(len(f"{step:,.0f}") for step, _ in shown)
    return "\n".join(
        f"{step:>{wide},.0f} | {value:.4f} {'#' * (1 + round((BAR - 1) * (value - low) / span))}"
        for step, value in shown
    )


def code(value: object) -> str:
    """Return a value as code in a line, also in a table."""
    line = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{line}`"
