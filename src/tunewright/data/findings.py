"""What a check finds: errors (E_...) refuse the data, warnings (W_...) do not. Of each code the first are named."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tunewright.errors import CODES, WARNINGS, Problem

SHOWN = 5


class Findings:
    """Collects findings by code, in the order in which the codes were first found.

    Attributes:
        counts: Findings of each code.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._shown: dict[str, list[Problem]] = {}

    def add(self, code: str, message: str, where: object, fix: str | None = None) -> None:
        """Take in a finding; `fix` defaults to the code's own."""
        self.counts[code] += 1
        shown = self._shown.setdefault(code, [])
        if len(shown) < SHOWN:
            meaning = CODES[code] if code in CODES else WARNINGS[code]
            shown.append(Problem(code, message, str(where), fix or meaning.fix))

    def full(self, code: str) -> bool:
        """Tell whether enough of a code are named: more are only counted."""
        return len(self._shown.get(code, ())) >= SHOWN

    def extend(self, problems: Sequence[Problem]) -> None:
        """Take in errors that were collected and shortened elsewhere."""
        for problem in problems:
            self.counts[problem.code] += 1
            self._shown.setdefault(problem.code, []).append(problem)

    def errors(self) -> list[Problem]:
        """Return the errors: of each code the first, and one that counts the rest."""
        return [p for code in self._shown if code in CODES for p in self._named(code)]

    def warnings(self) -> list[dict[str, Any]]:
        """Return code, count and the first places of each kind of warning, as JSON values."""
        return [
            {"code": code, "count": self.counts[code], "first": [asdict(p) for p in shown]}
            for code, shown in self._shown.items()
            if code in WARNINGS
        ]

    def _named(self, code: str) -> list[Problem]:
        shown = self._shown[code]
        rest = self.counts[code] - len(shown)
        if rest <= 0:
            return shown
        place = shown[0].where.partition(" (")[0]
        where = place.rpartition(":")[0] or place
        return [*shown, Problem(code, f"{rest:,} more like these.", where, shown[0].fix)]
