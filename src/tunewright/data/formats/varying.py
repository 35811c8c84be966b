"""Columns that only some rows have, or whose values change their type from one row to the next. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.data.formats.columns import listed
from tunewright.data.formats.jsontext import kind

MOST_COLUMNS = 200
"""Columns that are looked at."""


@dataclass(slots=True)
class _Column:
    """What is known of a column: where it first had a value, and where first one of another type."""

    kind: str
    line: int
    rows: int = 1
    later_kind: str = ""
    later_line: int = 0


class Varying:
    """Looks at the rows of a file that can be used. Null counts as absent."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._rows = 0

    def add(self, data: Mapping[str, Any], line: int) -> None:
        """Take in a row as it stands in its file."""
        self._rows += 1
        for name, value in data.items():
            if value is None:
                continue
            column = self._columns.get(name)
            if column is None:
                if len(self._columns) < MOST_COLUMNS:
                    self._columns[name] = _Column(kind(value), line)
                continue
            column.rows += 1
            if not column.later_kind and (found := kind(value)) != column.kind:
                column.later_kind, column.later_line = found, line

    def notes(self, *, one_form: bool) -> list[str]:
        """Return what is worth saying, in words.

        Args:
            one_form: All rows have the same form; where they do not, that they have not the same columns
                goes without saying.
        """
        said: list[str] = []
        changed = [
            f"{name} is {column.kind} from line {column.line:,} and {column.later_kind} "
            f"from line {column.later_line:,}"
            for name, column in self._columns.items()
            if column.later_kind
        ]
        if changed:
            said.append(f"columns whose type changes: {listed(changed, mark='; ')}")
        some = [
            f"{name} ({column.rows:,} of {self._rows:,} rows, first on line {column.line:,})"
            for name, column in self._columns.items()
            if column.rows < self._rows
        ]
        if some and one_form:
            said.append(f"columns that only some rows have: {listed(some)}")
        return said
