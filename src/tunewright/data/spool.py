"""Rows on disk, in order or by number: memory is eight bytes a row, however long the rows are."""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO


class Rows:
    """Rows of a JSONL file that Tunewright wrote. Closes the file when the block ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets = array("Q")
        self._file: BinaryIO = path.open("rb")
        at = 0
        for line in self._file:
            self._offsets.append(at)
            at += len(line)

    def __enter__(self) -> "Rows":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> dict[str, Any]:
        self._file.seek(self._offsets[number])
        return json.loads(self._file.readline())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as stream:
            for line in stream:
                yield json.loads(line)


class Spool:
    """A file that rows are added to, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row."""
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.count += 1

    def close(self) -> None:
        """End the file."""
        self._file.close()


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSONL, UTF-8, one object a line."""
    with closing(Spool(path)) as spool:
        for row in rows:
            spool.add(row)
