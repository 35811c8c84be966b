"""Files of JSON lines that training appends to; a full disk costs lines for a while, never the training."""

import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewright.artifacts import fsync

RETRY_SECONDS = 10.0
"""How long lines are kept in memory after the disk refused them, before it is asked again."""


class Journal:
    """Appends rows to a file, each as one whole line in a single write."""

    def __init__(self, file: Path, refused: Callable[[OSError], None]) -> None:
        """Write to `file`; `refused` is told when the system will not take a line."""
        self._file = file
        self._refused = refused
        self._pending = b""
        self._not_before = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; if the system refuses it, it is kept and tried again with a later one."""
        self._pending += line_of(row)
        if time.monotonic() >= self._not_before:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        if not self._pending:
            return
        try:
            _append(self._file, self._pending)
        except OSError as error:
            self._not_before = time.monotonic() + RETRY_SECONDS
            self._refused(error)
        else:
            self._pending = b""


def _append(file: Path, data: bytes) -> None:
    """Append everything or nothing.

    Raises:
        OSError: Nothing was written.
    """
    # Unbuffered: what does not fit must be known here, and not when the file is closed.
    with file.open("ab", buffering=0) as stream:
        start = stream.tell()
        if stream.write(data) != len(data):
            stream.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


def keep(
    file: Path, wanted: Callable[[Mapping[str, Any]], bool], *, writes: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of a file that are wanted, and with `writes` leave only these in it.

    A line that is no row, such as one that a kill has cut off, is moved to a file of the same name
    with `.torn` behind it. The file is replaced as a whole, and only where something leaves it.

    Raises:
        OSError: The system refused; the file is as it was.
    """
    raw = file.read_bytes() if file.is_file() else b""
    rows: list[dict[str, Any]] = []
    kept: list[bytes] = []
    torn: list[bytes] = []
    for line in raw.splitlines(keepends=True):
        row = parsed(line)
        if row is None:
            torn.append(line.rstrip(b"\n") + b"\n")
        elif wanted(row):
            rows.append(row)
            kept.append(line)
    if torn and writes:
        _append(file.with_name(f"{file.name}.torn"), b"".join(torn))
    if writes and sum(map(len, kept)) != len(raw):
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            draft.write_bytes(b"".join(kept))
            fsync(draft)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    return rows


def line_of(row: Mapping[str, Any]) -> bytes:
    """Return a row as its line."""
    return json.dumps(row).encode() + b"\n"


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the row that a line is; None: it is cut off, or no JSON object."""
    return parsed_object(line) if line.endswith(b"\n") else None


def parsed_object(text: bytes) -> dict[str, Any] | None:
    """Return a JSON object; None: it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
