"""Rows on their way from files to a dataset: on disk, with the few numbers a row that the split needs."""

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright.data._split import content_digest
from tunewright.data.formats.tally import Tally
from tunewright.data.rejects import Rejects
from tunewright.data.spool import Spool
from tunewright.errors import Problem
from tunewright.models.chat import messages_of

STRATA = ("agent", "style")
"""Fields that a split is stratified by where `prepare.stratify_by` is `auto` and rows have them."""
MOST_STRATA = 20
"""A field with more values is no grouping that equal shares could be held out of."""


class Gathered:
    """Collects rows. Memory is some forty bytes a row; texts are on disk only.

    Attributes:
        rows: Canonical rows with provenance, in the order of the sources.
        dropped: Lines of manuscripts that are in no row.
        rejects: Rows that cannot be used.
        groups: 64 bits that stand for what each row comes from; rows of one group stay on one side of
            the split.
        sizes: Characters of each row.
        digests: 64 bits that stand for each row's text.
        entries: Number of each row's source in `prepare.source`.
        usable: Rows, chunks and shots that could be used; variations of a shot are not counted.
        forms: For each file, how many rows of each form it has.
        broken: Files that cannot be read, or not to their end; no share of bad rows excuses them.
        reasons: For each file of rows, what it is and how that was told.
        preference_fixes: For each file of preference pairs, how to train on the chosen answers.
        notes: What was done to the text, in words.
    """

    def __init__(self, folder: Path, strata: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = Spool(folder / "rows.jsonl")
        self.dropped = Spool(folder / "dropped.jsonl")
        self.rejects = Rejects(folder / "rejected.jsonl")
        self.groups = array("Q")
        self.sizes = array("q")
        self.digests = array("Q")
        self.entries = array("l")
        self.usable = 0
        self.forms: dict[str, Tally] = {}
        self.broken = list[Problem]()
        self.reasons: dict[str, str] = {}
        self.preference_fixes: dict[str, str] = {}
        self.notes: list[str] = []
        self._strata = {field: _Stratum() for field in strata}

    def __len__(self) -> int:
        return self.rows.count

    def add(self, row: Mapping[str, Any], *, entry: int, group: str | None) -> None:
        """Take in a canonical row; without a group it belongs to no other row."""
        text = text_of(row)
        self.groups.append(content_digest(f"{len(self)}" if group is None else f"group {group}"))
        self.rows.add(row)
        self.sizes.append(len(text))
        self.digests.append(content_digest(text))
        self.entries.append(entry)
        self.usable += 1
        for field, stratum in self._strata.items():
            stratum.add(row.get(field))

    def tally(self, file: str) -> Tally:
        """Return the count of a file's rows by form, to be added to."""
        return self.forms.setdefault(file, Tally())

    def strata(self) -> "tuple[str, array[int]] | None":
        """Return the first field with 2 to 20 values, and each row's value as a number, -1 for none."""
        for field, stratum in self._strata.items():
            if 2 <= len(stratum.values) <= MOST_STRATA:
                return field, stratum.of_row
        return None

    def values_of(self, field: str) -> int:
        """Return how many values a field has among the rows; over 20 are not counted further."""
        return len(self._strata[field].values)

    def close(self) -> None:
        """End the files."""
        for spool in (self.rows, self.dropped):
            spool.close()
        self.rejects.close()


class _Stratum:
    """A field's value in each row, as a number; given up where it has too many values."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.of_row = array("l")

    def add(self, value: object) -> None:
        """Take in the value of a row."""
        name = str(value).strip() if isinstance(value, str | int | float) else ""
        if name and name not in self.values and len(self.values) <= MOST_STRATA:
            self.values[name] = len(self.values)
        self.of_row.append(self.values.get(name, -1))


def text_of(row: Mapping[str, Any]) -> str:
    """Return the text of a row, for comparing rows; a system message is the same in all and left out."""
    return "\n".join(m["content"] for m in messages_of(row) if m["role"] != "system")


def answer_of(row: Mapping[str, Any]) -> str:
    """Return the last answer of a row."""
    return messages_of(row)[-1]["content"]
