"""Files of rows -> records: JSON lines, JSON, CSV, TSV, Parquet, Arrow; text ones also compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tunewright.data.formats.kinds import Kind
    from tunewright.data.formats.records import Note, Record, Report


def read(path: Path, report: Report, note: Note) -> Iterator[Record]:
    """Yield the rows of a file with their physical lines, in bounded memory.

    Args:
        path: `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv` (also `.gz`, `.zst`), `.parquet`, `.arrow`,
            `.feather`; the content decides where a suffix leaves it open.
        report: Called for every row that cannot be read; reading goes on with the next.
        note: Called with what was changed or passed over, counted, in words.

    Raises:
        TunewrightError: E_NOT_FOUND, E_IO; E_UNSAFE_FORMAT for pickles; E_DATA_EMPTY without rows;
            E_DATA_ROW for a file of another kind, and for a place from which on nothing can be read,
            after the rows before it have been given.
    """
    from tunewright.data.formats import _read

    return _read.read(path, report, note)


def kind_of(path: Path) -> Kind:
    """Return what a file of rows is, and in `reason` how that was told.

    Raises:
        TunewrightError: As `read`, for what can be told from the beginning of the file.
    """
    from tunewright.data.formats import _read

    return _read.kind_of(path)
