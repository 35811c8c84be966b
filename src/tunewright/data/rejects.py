"""Rows that cannot be used: all are listed in a file, a few of each reason are named, the rest counted."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.config.schema import PrepareSection
from tunewright.counting import counted
from tunewright.data.formats.records import file_of
from tunewright.data.spool import Spool
from tunewright.errors import Problem

SHOWN = 20
"""Problems that are named."""
EXAMPLES = 3
"""Problems of one reason that are named."""
MOST_REASONS = 200
"""Reasons that are told apart."""
COUNTED = 10
"""Reasons of which the rows that are not named are counted apart."""
OTHER = "other reasons"
LONGEST_REASON = 200
_COLUMNS = re.compile(r"[;,] the columns are [^;]*")
_PARTICULARS = re.compile(r"\d[\d,.]*|'[^']*'")
_ELSEWHERE = " and other files"
_FIX = "Correct them as the ones above, or leave bad rows out: --set prepare.on_bad_row=skip"


@dataclass(frozen=True)
class _Named:
    """A problem that is named, its reason, and the rows that it stands for."""

    problem: Problem
    reason: str
    rows: int


class Rejects:
    """Collects problems; the file lists every one.

    Attributes:
        count: All of them.
        path: The file.
        reasons: How often each reason came, without its particulars; a bounded number of them.
    """

    def __init__(self, file: Path) -> None:
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self.path = file
        self._files: list[_Named] = []
        self._rows: list[_Named] = []
        self._first: dict[str, tuple[str, str]] = {}
        # Of each reason its text with particulars while that is the same for all rows.
        self._texts: dict[str, str] = {}
        self._spool = Spool(file)

    @property
    def problems(self) -> list[Problem]:
        """The problems that are named: those of whole files first."""
        return [item.problem for item in (*self._files, *self._rows)][:SHOWN]

    def report(self, problem: Problem, data: Mapping[str, Any] | None = None) -> None:
        """Take one in; `data` is the row where it could be read."""
        self.enter(problem, data)
        self.name(problem)

    def enter(self, problem: Problem, data: Mapping[str, Any] | None = None) -> None:
        """Count a row and write it to the file, without naming it."""
        self.count += 1
        reason = self._reason(problem)
        self.reasons[reason] += 1
        text = _short(_text(problem))
        if self._texts.setdefault(reason, text) != text:
            self._texts[reason] = reason
        file = file_of(problem.where)
        code, place = self._first.setdefault(reason, (problem.code, file))
        if place != file and not place.endswith(_ELSEWHERE):
            self._first[reason] = code, f"{place}{_ELSEWHERE}"
        row: dict[str, Any] = {
            "where": problem.where,
            "reason": problem.message,
            "fix": problem.fix,
        }
        self._spool.add(row if data is None else {**row, "row": dict(data)})

    def name(self, problem: Problem) -> None:
        """Name the problem of a row that is listed, if there is room for it."""
        if len(self._rows) >= SHOWN:
            return
        reason = self._reason(problem)
        if sum(item.reason == reason for item in self._rows) < EXAMPLES:
            self._rows.append(_Named(problem, reason, 1))

    def name_file(self, problem: Problem, row: Problem, rows: int) -> None:
        """Name a problem that stands for all rows with the reason of `row`; they are listed already."""
        if len(self._files) < SHOWN:
            self._files.append(_Named(problem, self._reason(row), rows))

    def close(self) -> None:
        """End the file."""
        self._spool.close()

    def shortened(self) -> list[Problem]:
        """Return the problems that are named, and for each reason one more that counts the others."""
        left = self.reasons.copy()
        for item in (*self._files, *self._rows)[:SHOWN]:
            left[item.reason] -= item.rows
        others = (+left).most_common()
        more = [
            self._more(f"{counted(count, 'more row')}: {self._texts[reason]}", reason)
            for reason, count in others[:COUNTED]
        ]
        if len(others) > COUNTED:
            rest = others[COUNTED:]
            rows = sum(count for _, count in rest)
            more.append(
                self._more(
                    f"{counted(rows, 'more row')} of {len(rest):,} other reasons", rest[0][0]
                )
            )
        return [*self.problems, *more]

    def _more(self, message: str, reason: str) -> Problem:
        code, where = self._first[reason]
        return Problem(code, f"{message}.", where, _FIX)

    def _reason(self, problem: Problem) -> str:
        """Return why, without what differs from row to row."""
        text = _PARTICULARS.sub("\N{HORIZONTAL ELLIPSIS}", _text(problem))
        reason = _short(text)
        full = len(self.reasons) >= MOST_REASONS
        return OTHER if full and reason not in self.reasons else reason


def _text(problem: Problem) -> str:
    """Return what is wrong with a row, without the columns that it has."""
    text = problem.message.removeprefix("The row cannot be used: ").removesuffix(".")
    return _COLUMNS.sub("", text)


def _short(text: str) -> str:
    return "; ".join(dict.fromkeys(text.split("; ")))[:LONGEST_REASON]


def too_many(rejects: Rejects, good: int, options: PrepareSection) -> list[Problem]:
    """Return why the data are refused: every bad row, or with `skip` only a share of them over the limit."""
    share = rejects.count / max(1, rejects.count + good)
    if not rejects.count or (options.on_bad_row == "skip" and share <= options.max_bad):
        return []
    problems = rejects.shortened()
    if options.on_bad_row == "skip":
        message = (
            f"{rejects.count:,} of {rejects.count + good:,} rows cannot be used ({share:.1%}); "
            f"prepare.max_bad accepts {options.max_bad:.1%}."
        )
        fix = "Correct the rows, or accept more: --set prepare.max_bad=0.05 (a share of the rows)"
        return [Problem("E_DATA_ROW", message, "prepare.max_bad", fix), *problems]
    return problems
