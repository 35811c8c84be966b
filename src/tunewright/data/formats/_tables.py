"""Parquet, Arrow and Feather files to records, a batch at a time."""

import math
from collections.abc import Iterator, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunewright.data.formats.records import (
    MAX_ROW_BYTES,
    Note,
    Record,
    Report,
    broken,
    refused,
    unreadable,
)

BATCH_ROWS = 1024
_FIX = "Write the file again."
_MOST_GROUPS = 100_000
"""Row groups, and columns: damaged bytes that claim more cost minutes and gigabytes."""
# A damaged length asks for more memory than there is.
_DAMAGE = (pa.ArrowException, OSError, MemoryError)


def read_parquet(path: Path, report: Report, note: Note) -> Iterator[Record]:
    """Yield the rows of a Parquet file.

    Raises:
        TunewrightError: E_DATA_ROW, the file is damaged.
    """
    with path.open("rb") as stream:
        try:
            file = pq.ParquetFile(
                stream,
                pre_buffer=False,
                buffer_size=2**16,
                page_checksum_verification=True,
                thrift_string_size_limit=MAX_ROW_BYTES,
                thrift_container_size_limit=_MOST_GROUPS,
            )
            schema = file.schema_arrow
        except _DAMAGE as error:
            raise refused(path, f"The Parquet file is damaged: {_first(error)}.", _FIX) from error
        batches = _batches(file, _kept(path, schema, note))
        yield from _rows(path, batches, report, note)


def read_arrow(path: Path, report: Report, note: Note) -> Iterator[Record]:
    """Yield the rows of an Arrow file, an Arrow stream, or Feather of version 2.

    Raises:
        TunewrightError: E_DATA_ROW, the file is damaged.
    """
    with path.open("rb") as stream:
        try:
            schema, batches = _opened(stream.peek(8)[:8], stream)
            kept = _kept(path, schema, note)
        except _DAMAGE as error:
            raise refused(path, f"The Arrow file is damaged: {_first(error)}.", _FIX) from error
        yield from _rows(path, (batch.select(kept) for batch in batches), report, note)


def _batches(file: pq.ParquetFile, kept: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of one row group after the other.

    Across their borders the reader would put together columns whose groups differ in length. The lengths in
    the footer cannot be compared: damaged ones end the process.
    """
    rows = 0
    for group in range(file.num_row_groups):
        for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=kept):
            rows += batch.num_rows
            yield batch
    if rows != file.metadata.num_rows:
        raise pa.ArrowInvalid(f"it should have {file.metadata.num_rows:,} rows, and has {rows:,}")


def _opened(head: bytes, stream: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if head.startswith(b"ARROW1"):
        reader = pa.ipc.open_file(stream)
        return reader.schema, (reader.get_batch(n) for n in range(reader.num_record_batches))
    reader = pa.ipc.open_stream(stream)
    return reader.schema, iter(reader)


def _kept(path: Path, schema: pa.Schema, note: Note) -> list[str]:
    """Return the columns to read: all but those that hold bytes."""
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        text = f"The columns {', '.join(repr(name) for name in twice)} are there twice."
        raise refused(path, text, "Give every column a name of its own.")
    binary = [field.name for field in schema if _is_bytes(field.type)]
    for name in binary:
        note(f"column '{name}' holds bytes and is not read")
    return [name for name in names if name not in binary]


def _is_bytes(kind: pa.DataType) -> bool:
    inner = [kind.field(n).type for n in range(kind.num_fields)]
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
        or any(_is_bytes(part) for part in inner)
    )


def _rows(
    path: Path, batches: Iterator[pa.RecordBatch], report: Report, note: Note
) -> Iterator[Record]:
    number = 0
    nans: dict[str, int] = {}
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                break
            # A damaged length or offset would be read beyond the buffer.
            batch.validate(full=True)
        except _DAMAGE as error:
            text = f"From row {number + 1} on the file is damaged: {_first(error)}"
            raise broken(path, number + 1, text, _FIX) from error
        for start in range(0, batch.num_rows, BATCH_ROWS):
            for line, row in _plain_rows(batch.slice(start, BATCH_ROWS), number + start):
                if isinstance(row, str):
                    report(unreadable(path, line, row))
                else:
                    yield Record({key: _plain(row[key], key, nans) for key in row}, line)
        number += batch.num_rows
    for name, count in nans.items():
        note(f"column '{name}': {count:,} times NaN or infinity, read as null")


def _plain_rows(batch: pa.RecordBatch, before: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield row number and row, or what is wrong with it."""
    try:
        rows = batch.to_pylist(maps_as_pydicts="strict")
    except (UnicodeDecodeError, ValueError, KeyError, OverflowError):
        if batch.num_rows == 1:
            yield before + 1, "The row holds text that is not UTF-8, or a value without meaning."
            return
        for n in range(batch.num_rows):
            yield from _plain_rows(batch.slice(n, 1), before + n)
    else:
        yield from enumerate(rows, before + 1)


def _plain(value: Any, column: str, nans: dict[str, int]) -> Any:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        nans[column] = nans.get(column, 0) + 1
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(part, column, nans) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, column, nans) for part in value]
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def _first(error: Exception) -> str:
    """Return the first sentence of what the library says."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:160]
