"""CSV and TSV to records, with the physical line of each. Pure.

Source: RFC 4180; a quote inside an unquoted value stands for itself.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tunewright.data.formats.lines import Ends, text_of
from tunewright.data.formats.records import (
    MAX_ROW_BYTES,
    MisplacedError,
    Note,
    Record,
    Report,
    broken,
    refused,
    too_large,
    unreadable,
)

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_LOOKED_AT = 20
"""Rows that the delimiter is told from."""
_QUOTE_FIX = 'Close the quote, and write a quote inside a quoted value twice: "".'


def read_csv(
    path: Path,
    numbered: Iterator[tuple[int, bytes | None]],
    ends: Ends,
    report: Report,
    note: Note,
    *,
    delimiter: str,
) -> Iterator[Record]:
    """Yield the rows below the header.

    Args:
        path: For messages.
        numbered: Line number and line, None for one that is too long.
        ends: Where blank lines are counted.
        report: Called for every row that has not as many values as the header, or is not text.
        note: Called with the names that were made up.
        delimiter: One of DELIMITERS.

    Raises:
        TunewrightError: E_DATA_ROW, the header is not usable, or a quote is never closed.
    """
    header: list[str] | None = None
    for line, cells in _records(path, numbered, delimiter, ends, report):
        if header is None:
            header = _header(path, line, cells, note)
        elif len(cells) != len(header):
            values = f"{len(cells)} value{'s' * (len(cells) != 1)}"
            report(unreadable(path, line, f"{values}, but the header has {len(header)} columns."))
        else:
            yield Record(dict(zip(header, cells, strict=True)), line)


def sniffed(text: str) -> str:
    """Return the delimiter with which most of the first rows are as wide as the header."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return max(DELIMITERS, key=lambda mark: _score([line for line in lines if line], mark))


def _score(lines: Sequence[str], mark: str) -> tuple[int, int]:
    widths: list[int] = []
    cells: list[str] = []
    held: list[str] | None = None
    for line in lines:
        try:
            held = _scan(line, mark, cells, held)
        except ValueError:
            held, cells = None, []
        if held is None:
            widths.append(len(cells))
            cells = []
        if len(widths) == _LOOKED_AT:
            break
    if not widths or widths[0] < 2:
        return 0, 0
    return widths.count(widths[0]), widths[0]


def _header(path: Path, line: int, cells: list[str], note: Note) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise refused(
            path,
            f"The header on line {line} names {', '.join(repr(name) for name in twice)} twice.",
            "Give every column a name of its own.",
        )
    for number, name in enumerate(names, 1):
        if not name:
            names[number - 1] = f"column_{number}"
            note(f"column {number} has no name and is called 'column_{number}'")
    if len(set(names)) < len(names):
        raise refused(path, "The header has columns without a name.", "Name every column.")
    return names


def _records(
    path: Path,
    numbered: Iterator[tuple[int, bytes | None]],
    mark: str,
    ends: Ends,
    report: Report,
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which a record begins, and its values."""
    first = True
    for line, raw in numbered:
        if raw is None:
            raise broken(path, line, f"The line is {too_large()}")
        if not raw.strip(b" "):
            ends.blank += 1
            continue
        try:
            text = text_of(raw)
            cells = [] if '"' in text else text.split(mark)
            held = None if cells else _scan(text, mark, cells, None)
        except ValueError as error:
            # Quotes in pairs mean that the line is most likely a whole record, and the next one too.
            # The header is never left out: the row below it would take its place.
            if first or raw.count(b'"') % 2:
                said = f"The line is not usable: {error}"
                raise broken(path, line, said, _QUOTE_FIX, of=error) from error
            report(unreadable(path, line, f"The line is not usable: {error}.", of=error))
            continue
        if held is not None:
            _continue(path, line, numbered, mark, cells, held)
        first = False
        yield line, cells


def _continue(
    path: Path,
    begun: int,
    numbered: Iterator[tuple[int, bytes | None]],
    mark: str,
    cells: list[str],
    open_: list[str],
) -> None:
    """Add the values of a record whose quoted value goes on over the next lines."""
    opened, size = begun, 0
    held: list[str] | None = open_
    for line, raw in numbered:
        size += len(raw or b"")
        if raw is None or size > MAX_ROW_BYTES:
            raise broken(
                path, opened, f"The quoted value that begins here is {too_large()}", _QUOTE_FIX
            )
        count = len(cells)
        try:
            held = _scan(text_of(raw), mark, cells, [*(held or []), "\n"])
        except ValueError as error:
            text = f"In the quoted value that begins here: on line {line} {error}"
            raise broken(path, opened, text, _QUOTE_FIX) from error
        if held is None:
            return
        opened = line if len(cells) > count else opened
    raise broken(path, opened, "The quote that opens here is never closed", _QUOTE_FIX)


def _scan(text: str, mark: str, cells: list[str], held: list[str] | None) -> list[str] | None:
    """Add the values of a line to `cells`; return the parts of a quoted value that stays open.

    Raises:
        MisplacedError: A quote stands where none may.
    """
    at = 0
    while True:
        if held is None and not text.startswith('"', at):
            end = text.find(mark, at)
            cell = text[at:] if end < 0 else text[at:end]
            if cell.startswith(" ") and cell.lstrip(" ").startswith('"'):
                said = f"there is a space before the quote at column {at + 1}"
                raise MisplacedError(said, at + 1)
            cells.append(cell)
            if end < 0:
                return None
            at = end + 1
            continue
        if held is None:
            held = []
            at += 1
        close = text.find('"', at)
        held.append(text[at:] if close < 0 else text[at:close])
        if close < 0:
            return held
        at = close + 1
        if text.startswith('"', at):
            held.append('"')
            at += 1
            continue
        cells.append("".join(held))
        held = None
        if at == len(text):
            return None
        if text[at] != mark:
            said = f"text follows the closing quote at column {at + 1}"
            raise MisplacedError(said, at + 1)
        at += 1
