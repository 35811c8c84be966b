"""JSONL files to rows, with the physical line of everything that is wrong."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunewright.errors import Problem, TunewrightError
from tunewright.models.chat import messages_of

MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Row:
    """One usable row.

    Attributes:
        data: The row as it stands in the file.
        line: Physical line, from 1.
    """

    data: Mapping[str, Any]
    line: int


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a JSONL file; blank lines and a byte-order mark are passed over.

    Raises:
        TunewrightError: E_DATA_ROW for every line that is not UTF-8, not JSON, or not a usable row; the
            first 20 in full, the rest counted.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    for number, raw in _lines(path):
        try:
            data = _parse(raw)
            messages_of(data)
        except ValueError as error:
            problems.append(
                Problem(
                    "E_DATA_ROW",
                    f"{_reason(error)}.",
                    f"{path}:{number}",
                    "Correct the line, or remove it.",
                )
            )
        else:
            rows.append(Row(data, number))
    if problems:
        raise TunewrightError(shortened(problems, path))
    return rows


def shortened(problems: list[Problem], where: object) -> list[Problem]:
    """Return the first problems, and one more that counts the rest."""
    rest = len(problems) - MAX_PROBLEMS
    if rest <= 0:
        return problems
    more = Problem(
        problems[0].code,
        f"{rest:,} more lines are wrong.",
        str(where),
        "Correct the first ones first.",
    )
    return [*problems[:MAX_PROBLEMS], more]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSONL, UTF-8, one object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def text_of(row: Mapping[str, Any]) -> str:
    """Return the text of a row, for comparing rows; a system message is the same in all and left out."""
    return "\n".join(m["content"] for m in messages_of(row) if m["role"] != "system")


def answer_of(row: Mapping[str, Any]) -> str:
    """Return the last answer of a row."""
    return messages_of(row)[-1]["content"]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, bytes) of lines ended by LF, CRLF or CR that are not blank."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(
        data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), 1
    ):
        if line.strip():
            yield number, line


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} of the line is not UTF-8") from error
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"a row is an object, not {type(value).__name__}")
    try:
        text_back = json.dumps(value, ensure_ascii=False)
        text_back.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair, which is not text") from error
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key '{key}' is given twice")
        seen[key] = value
    return seen


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _reason(error: ValueError) -> str:
    return str(error) or type(error).__name__
