"""Rows that cannot be used: all are listed in a file, the first are named, the rest counted."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.config.schema import PrepareSection
from tunewright.data.spool import Spool
from tunewright.errors import Problem

SHOWN = 20


class Rejects:
    """Collects problems; the file lists every one.

    Attributes:
        problems: The first of them.
        count: All of them.
        path: The file.
        reasons: How often each reason came, without its particulars.
    """

    def __init__(self, file: Path) -> None:
        self.problems: list[Problem] = []
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self.path = file
        self._spool = Spool(file)

    def report(self, problem: Problem, data: Mapping[str, Any] | None = None) -> None:
        """Take one in; `data` is the row where it could be read."""
        self.count += 1
        self.reasons[re.sub(r"\d[\d,.]*|'[^']*'", "_", problem.message)] += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)
        row: dict[str, Any] = {
            "where": problem.where,
            "reason": problem.message,
            "fix": problem.fix,
        }
        self._spool.add(row if data is None else {**row, "row": dict(data)})

    def close(self) -> None:
        """End the file."""
        self._spool.close()

    def shortened(self) -> list[Problem]:
        """Return the first problems, and one more that counts the rest by reason."""
        rest = self.count - len(self.problems)
        if not rest:
            return self.problems
        common = ", ".join(f"{count:,} x {reason}" for reason, count in self.reasons.most_common(3))
        more = Problem(
            self.problems[0].code,
            f"{rest:,} more rows cannot be used. Most common: {common}",
            self.problems[0].where.rpartition(":")[0] or self.problems[0].where,
            "Correct the first ones first, or leave bad rows out: --on-bad-row skip.",
        )
        return [*self.problems, more]


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
        fix = "Correct the rows, or raise --max-bad."
        return [Problem("E_DATA_ROW", message, "prepare.max_bad", fix), *problems]
    return problems
