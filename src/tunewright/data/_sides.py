"""The sides of a dataset as one sequence of rows, and the copies among them."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tunewright.config.schema import Config
from tunewright.data._gathered import answer_of, text_of
from tunewright.data.findings import Findings
from tunewright.data.near._links import EXACT, Links, against, links
from tunewright.data.spool import Rows
from tunewright.events import Listener
from tunewright.models.chat import messages_of

Place = Callable[[str, int, Mapping[str, Any]], str]
"""Side, number in the side from 0, row -> where a user finds it."""


class Sides:
    """Rows of all sides, numbered on from one side to the next.

    Attributes:
        sides: Name to rows.
        where: The dataset as a user knows it, for findings that have no single place.
    """

    def __init__(self, sides: Mapping[str, Rows], place: Place, where: object) -> None:
        self.sides = sides
        self.where = str(where)
        self._names: Sequence[str] = list(sides)
        self._starts = [0, *accumulate(map(len, sides.values()))]
        self._place = place

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def border(self) -> int:
        """Rows of the first side; 0 if it is the only one."""
        return self._starts[1] if len(self._names) > 1 else 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (where, row)."""
        for side, rows in self.sides.items():
            for number, row in enumerate(rows):
                yield self._place(side, number, row), row

    def row(self, number: int) -> dict[str, Any]:
        """Return a row."""
        side = bisect_right(self._starts, number) - 1
        return self.sides[self._names[side]][number - self._starts[side]]

    def place(self, number: int) -> str:
        """Return where a user finds a row."""
        side = bisect_right(self._starts, number) - 1
        return self._place(self._names[side], number - self._starts[side], self.row(number))

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield whole text and answer of every row."""
        for rows in self.sides.values():
            for row in rows:
                yield text_of(row), answer_of(row)

    def text(self, number: int) -> tuple[str, str]:
        """Return whole text and answer of a row."""
        row = self.row(number)
        return text_of(row), answer_of(row)


def find_links(sides: Sides, work: Path, threshold: float, listener: Listener) -> Links:
    """Return links between rows that are exact or near copies."""
    listener.started("check copies", len(sides), "rows")
    return links(
        sides.texts(),
        sides.text,
        folder=work,
        threshold=threshold,
        border=sides.border,
        progress=lambda done: listener.advanced(done, ""),
    )


def judge_copies(sides: Sides, found: Links, config: Config, findings: Findings) -> dict[str, int]:
    """Add leaks and copies to the findings, and return how many there are.

    Rows that `weight` repeats on purpose are no copies.
    """
    code = "W_LEAK" if config.check.allow_leakage else "E_LEAK"
    leaks = found.across(sides.border).pairs
    message = "The held-out row is nearly the same as the training row at {other}."
    leaking = _report(sides, leaks, code, message, findings)
    within = found.within(sides.border)
    exact: list[tuple[int, int]] = []
    near: list[tuple[int, int]] = []
    for one, other, kind in _listed(within):
        if kind == EXACT and is_copy(sides, one, other):
            exact += [(one, other)] if "copy" not in sides.row(other) else []
        else:
            near.append((one, other))
    code = "W_DUPLICATE" if config.check.allow_duplicates else "E_DUPLICATE"
    message = "The row is a copy of the row at {other}."
    copies = _report(sides, exact, code, message, findings)
    message = "The row, or its answer, is nearly the same as at {other}."
    alike = _report(sides, near, "W_NEAR_DUPLICATE", message, findings)
    return {"leaks": leaking, "exact_duplicates": copies, "near_duplicates": alike}


def is_copy(sides: Sides, one: int, other: int) -> bool:
    """Tell whether two rows are the same to the last character, the system message included."""
    return messages_of(sides.row(one)) == messages_of(sides.row(other))


def _listed(found: Links) -> Iterator[tuple[int, int, int]]:
    for pair, kind in zip(found.pairs, found.kinds, strict=True):
        yield int(pair[0]), int(pair[1]), int(kind)


def _report(
    sides: Sides, pairs: Iterable[Sequence[int]], code: str, message: str, findings: Findings
) -> int:
    """Add a finding for every row that is the second of a pair; return how many rows there are."""
    seen: set[int] = set()
    for one, other in pairs:
        if int(other) in seen:
            continue
        seen.add(int(other))
        full = findings.full(code)
        text = "" if full else message.format(other=sides.place(int(one)))
        findings.add(code, text, "" if full else sides.place(int(other)))
    return len(seen)


def judge_overlap(
    sides: Sides, second: Sides, work: Path, config: Config, findings: Findings, listener: Listener
) -> int:
    """Add rows that are near copies of a second dataset's, and return how many there are."""
    listener.started("check against", len(sides), "rows")
    found = against(
        second.texts(),
        sides.texts(),
        second.text,
        sides.text,
        folder=work,
        threshold=config.prepare.near_duplicate_threshold,
        progress=lambda done: listener.advanced(done, ""),
    )
    code = "W_LEAK" if config.check.allow_leakage else "E_LEAK"
    seen: set[int] = set()
    for one, other in found.pairs.tolist():
        if other not in seen:
            seen.add(other)
            message = (
                f"The row is nearly the same as one of the second dataset, {second.place(one)}."
            )
            fix = "Take it out of one of them, or set check.allow_leakage=true."
            findings.add(code, message, sides.place(other), fix)
    return len(seen)
