"""Sides of a dataset to Parquet files, in memory that does not grow with the rows.

The rows are read twice: first for the columns and their types, which all row groups share, and for
secrets; then they are written.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunewright.errors import Problem
from tunewright.models.messages import messages_of
from tunewright.privacy import texts_in
from tunewright.publish.private import found_in

GROUP_ROWS = 10_000
GROUP_BYTES = 16_000_000
"""Bytes of text from which a row group is full."""
SHAPES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "instruction": ("instruction", "input", "output"),
    "prompt": ("prompt", "completion"),
    "text": ("text",),
}
"""The columns of each form of row; all others say where a row comes from."""
SEVERAL = "several"
MAX_NAMED = 20
_ORDER = tuple(name for names in SHAPES.values() for name in names)
_OWN = frozenset(_ORDER)
_CONVERSATION = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


@dataclass
class Survey:
    """What the first reading finds.

    Attributes:
        shapes: Rows of each form.
        raw: Rows of plain text, which no conversation can hold.
        rows: Rows of each side.
        words: Words of the answers of each side.
        secrets: The first rows with what looks like a secret.
        more_secrets: How many more there are.
    """

    shapes: dict[str, int] = field(default_factory=dict[str, int])
    raw: int = 0
    rows: dict[str, int] = field(default_factory=dict[str, int])
    words: dict[str, int] = field(default_factory=dict[str, int])
    secrets: list[Problem] = field(default_factory=list[Problem])
    more_secrets: int = 0
    _types: dict[str, pa.DataType | None] = field(default_factory=dict[str, pa.DataType | None])

    @property
    def shape(self) -> str:
        """The form that rows are written in: their own, or `messages` where they have several.

        With plain text among several forms it is `several`: each row keeps its own columns, and those of
        the other forms are null.
        """
        if not self.mixed:
            return next(iter(self.shapes), "messages")
        return SEVERAL if self.raw else "messages"

    @property
    def mixed(self) -> bool:
        """Whether the rows have several forms."""
        return len(self.shapes) > 1

    @property
    def _converted(self) -> bool:
        return self.mixed and not self.raw

    @property
    def json_columns(self) -> list[str]:
        """Columns that are written as JSON text."""
        return [name for name, found in self._types.items() if found is None]

    @property
    def schema(self) -> pa.Schema:
        """The columns: those of the form first."""
        known = [name for name in _ORDER if name in self._types]
        order = [*known, *(name for name in self._types if name not in known)]
        return pa.schema([(name, self._type(name)) for name in order])

    def table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return rows as a table with the columns of the dataset."""
        plain = [self._as_written(row) for row in rows]
        columns: list[pa.Array] = []
        for column in self.schema:
            values = [row.get(column.name) for row in plain]
            if self._types[column.name] is None:
                values = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
            columns.append(pa.array(values, type=column.type))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def learn(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Widen the columns and their types by these rows."""
        for name in {name: None for row in rows for name in row}:
            found = _infer([row.get(name) for row in rows], name)
            self._types[name] = _wider(self._types[name], found) if name in self._types else found

    def _type(self, name: str) -> pa.DataType:
        found = self._types[name]
        return pa.string() if found is None or pa.types.is_null(found) else found

    def _as_written(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._converted:
            return row
        other = {name: value for name, value in row.items() if name not in _OWN}
        return {**other, "messages": messages_of(row)}

    def close(self) -> None:
        """Replace the columns of several forms by that of conversations, where rows become such."""
        if self._converted:
            self._types = {k: v for k, v in self._types.items() if k not in _OWN}
            self._types["messages"] = _CONVERSATION


def survey(sides: Mapping[str, Path]) -> Survey:
    """Return what the rows of all sides need in common, and the secrets that are in them.

    Args:
        sides: Name of each side to its JSONL file, as `prepare` wrote it.
    """
    found = Survey()
    for side, file in sides.items():
        found.rows[side] = found.words[side] = 0
        for batch in _batches(file):
            for row in batch:
                found.rows[side] += 1
                _look(found, row, side, f"{file}:{found.rows[side]}")
            found.learn(batch)
    found.close()
    return found


def write(found: Survey, source: Path, target: Path) -> int:
    """Write a side as Parquet and return its size in memory, in bytes."""
    num_bytes = 0
    with pq.ParquetWriter(target, found.schema, compression="zstd") as writer:
        for batch in _batches(source):
            table = found.table(batch)
            num_bytes += table.nbytes
            writer.write_table(table)
    return num_bytes


def features_of(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the columns as the Hub's cards write them.

    Source: `features` of a card, as the library `datasets` reads it.
    """
    return [{"name": column.name, **_feature(column.type)} for column in schema]


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("dtype") or inner.get("struct") or inner}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": part.name, **_feature(part.type)} for part in kind]}
    return {"dtype": "float64" if pa.types.is_float64(kind) else str(kind)}


def _batches(file: Path) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    with file.open("rb") as stream:
        for line in stream:
            batch.append(json.loads(line))
            size += len(line)
            if len(batch) >= GROUP_ROWS or size >= GROUP_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _look(found: Survey, row: Mapping[str, Any], side: str, where: str) -> None:
    shape = next(name for name in SHAPES if name in row)
    found.shapes[shape] = found.shapes.get(shape, 0) + 1
    found.raw += shape == "text"
    found.words[side] += len(messages_of(row)[-1]["content"].split())
    for secret in found_in("\n".join(texts_in(row))):
        if len(found.secrets) == MAX_NAMED:
            found.more_secrets += 1
            continue
        message = f"What looks like a secret ({secret.kind}) is in the row: {secret.shown}."
        fix = "Revoke it, take it out of the source, and prepare again."
        found.secrets.append(Problem("E_SECRET_IN_ARTIFACT", message, where, fix))


def _infer(values: list[Any], name: str) -> pa.DataType | None:
    """Return the type that fits all values; None where no column type does without loss."""
    try:
        found = pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return None
    return None if name != "messages" and _has_struct(found) else found


def _wider(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    if one is None or other is None or one == other:
        return one if other is not None else None
    schemas = [pa.schema([("column", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _has_struct(kind: pa.DataType) -> bool:
    """Return whether objects are in it: a column would give every row the keys of all."""
    if pa.types.is_list(kind):
        return _has_struct(kind.value_type)
    return pa.types.is_struct(kind)
