"""What every reader of rows gives and takes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import Problem, TunewrightError

MAX_ROW_BYTES = 32 * 2**20
"""A row of a text file is at most this large; a larger one is a file that is not what it says."""
MAX_DEPTH = 64
"""Objects and lists inside each other; no row needs more, and the interpreter's own limit is not far."""
_PLACE = re.compile(r":\d+(:\d+)?$")
CORRECT = "Correct the line, or remove it."


@dataclass(frozen=True)
class Record:
    """One row as it stands in its file.

    Attributes:
        data: Column to value, as plain Python.
        line: Physical line from 1 on which the row begins; the row number from 1 for Parquet and Arrow.
    """

    data: Mapping[str, Any]
    line: int


class MisplacedError(ValueError):
    """What is wrong with a line at a place of it.

    Attributes:
        column: The place: characters from 1.
    """

    def __init__(self, text: str, column: int) -> None:
        super().__init__(text)
        self.column = column


Report = Callable[[Problem], None]
"""Called for every row that cannot be read; reading goes on with the next."""
Note = Callable[[str], None]
"""Called with what was changed while reading (byte-order mark, line ends), counted, in words."""


def unreadable(
    path: Path, line: int, message: str, fix: str = CORRECT, *, of: Exception | None = None
) -> Problem:
    """Return the problem of one row; `of` is the error that may know the column."""
    column = f":{of.column}" if isinstance(of, MisplacedError) else ""
    return Problem("E_DATA_ROW", message, f"{path}:{line}{column}", fix)


def broken(
    path: Path, line: int, message: str, fix: str = CORRECT, *, of: Exception | None = None
) -> TunewrightError:
    """Return the error, to be raised, of a place after which the rest of the file cannot be read."""
    text = f"{message.removesuffix('.')}. The rows from here on are not read."
    return TunewrightError([unreadable(path, line, text, fix, of=of)])


def file_of(where: str) -> str:
    """Return the file of a place that `unreadable` has named."""
    return _PLACE.sub("", where)


def refused(path: Path, message: str, fix: str, *, code: str = "E_DATA_ROW") -> TunewrightError:
    """Return the error, to be raised, of a file that is not read at all."""
    return TunewrightError([Problem(code, message, str(path), fix)])


def too_large() -> str:
    """Return the words for a row beyond the limit."""
    return f"larger than {MAX_ROW_BYTES // 2**20} MB"
