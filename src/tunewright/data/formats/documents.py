"""JSON over several lines to records, in bounded memory: an array, a list under a key, or values in a row. Pure.

The text is read through a window that holds one value at a time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.data.formats.jsontext import (
    DECODER,
    LENIENT,
    RefusedError,
    as_row,
    explained,
    too_deep,
    too_long_number,
)
from tunewright.data.formats.lines import BrokenError
from tunewright.data.formats.records import (
    MAX_ROW_BYTES,
    MisplacedError,
    Note,
    Record,
    Report,
    broken,
    too_large,
    unreadable,
)

WRAPPERS = ("data", "rows", "train", "examples", "items", "records", "samples")
"""Keys under which files keep their list of rows."""
_LONGEST_TOKEN = 16
"""Characters of the longest thing that a window's end can cut so that the fault seems to lie before it."""


def read_document(
    path: Path, texts: Iterator[str], report: Report, note: Note, *, wrapped: bool
) -> Iterator[Record]:
    """Yield the rows of a JSON text that begins with `[` or `{`.

    Args:
        path: For messages.
        texts: The text in blocks, every line end LF.
        report: Called for rows that cannot be used.
        note: Called with what is not read.
        wrapped: The objects are looked into for a list of rows under one of WRAPPERS.

    Raises:
        TunewrightError: E_DATA_ROW, from a place on the text is not JSON, or not UTF-8.
    """
    window = _Window(path, texts)
    if wrapped:
        window.peek()
        yield from _members(window, report, note)
    elif window.peek() == "[":
        yield from _elements(window, report)
    else:
        while window.peek():
            yield from _row(window, report)
    if window.peek():
        raise window.broken("There is more text after the closing bracket")
    if window.fault:
        raise window.broken("The file cannot be read to its end")


def _row(window: "_Window", report: Report) -> Iterator[Record]:
    line = window.line
    try:
        value, text = window.value()
        row = as_row(value, text)
    except ValueError as error:
        report(unreadable(window.path, line, f"The row is not usable: {error}."))
        return
    yield Record(row, line)


def _elements(window: "_Window", report: Report) -> Iterator[Record]:
    window.skip()
    if window.peek() == "]":
        window.skip()
        return
    while True:
        if not window.peek():
            raise window.broken("The list of rows is never closed: the file ends early")
        yield from _row(window, report)
        mark = window.peek()
        if mark == "]":
            window.skip()
            return
        if mark != ",":
            raise window.broken(
                "After this row a comma or `]` is missing"
                if mark
                else "The list of rows is never closed: the file ends early"
            )
        window.skip()
        if window.peek() == "]":
            raise window.broken("There is a comma after the last row")


def _members(window: "_Window", report: Report, note: Note) -> Iterator[Record]:
    """Yield the rows of the list under a known key, or the object itself where it has none."""
    line = window.line
    members: dict[str, Any] = {}
    rows_key = ""
    window.skip()
    while (mark := window.peek()) != "}":
        if members and mark == ",":
            window.skip()
            mark = window.peek()
        elif members:
            raise window.broken("A comma or `}` is missing")
        key = _key(window, mark, members)
        members[key] = None
        if key in WRAPPERS and window.peek() == "[":
            if rows_key:
                both = f"Both '{rows_key}' and '{key}' hold a list of rows"
                raise window.broken(both, "Save each list in a file of its own.")
            rows_key = key
            yield from _elements(window, report)
        else:
            members[key] = _member(window)
    window.skip()
    if not rows_key:
        yield Record(members, line)
    elif len(members) > 1:
        others = ", ".join(f"'{key[:40]}'" for key in members if key != rows_key)
        note(f"rows are under the key '{rows_key}'; not read: {others}")


def _key(window: "_Window", mark: str, members: dict[str, Any]) -> str:
    if mark != '"':
        raise window.broken('A key in double quotes is missing: `"key"`')
    key = _member(window)
    if key in members:
        raise window.broken(f"The key '{key[:60]}' is given twice")
    if window.peek() != ":":
        raise window.broken("A colon is missing")
    window.skip()
    window.peek()
    return key


def _member(window: "_Window") -> Any:
    try:
        return window.value()[0]
    except ValueError as error:
        raise window.broken(f"The value cannot be read: {error}") from error


@dataclass
class _Window:
    """The part of a text that is looked at.

    Attributes:
        path: For messages.
        texts: What comes after.
        text: What is held.
        at: The place that is read next.
        line: Its physical line.
        before: Characters of the line that lie before what is held.
        fault: Why the text ends where it does, where that is a fault.
    """

    path: Path
    texts: Iterator[str]
    text: str = ""
    at: int = 0
    line: int = 1
    before: int = 0
    ended: bool = False
    fault: str = ""

    def peek(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        while True:
            rest = len(self.text)
            to = self.at
            while to < rest and self.text[to] in " \t\n":
                to += 1
            self._move(to)
            if to < rest:
                return self.text[to]
            if not self._grow():
                return ""

    def skip(self) -> None:
        """Go past one character."""
        self._move(self.at + 1)

    def value(self) -> tuple[Any, str]:
        """Return the next value and its text.

        Raises:
            ValueError: The value does not mean one thing; it has been gone past.
            TunewrightError: It is not JSON, so nothing after it can be read.
        """
        refused: RefusedError | None = None
        while True:
            try:
                value, end = self._decoded(LENIENT if refused else DECODER)
            except RefusedError as error:
                refused = error
            except json.JSONDecodeError as error:
                if self._final(error) or not self._grow():
                    raise self._syntax(error) from error
            else:
                # A number at the end of the window may go on behind it.
                if end < len(self.text) or not self._grow():
                    break
        text = self.text[self.at : end]
        self._move(end)
        if len(text) > MAX_ROW_BYTES:
            raise ValueError(too_large())
        if refused:
            raise refused
        return value, text

    def _decoded(self, decoder: json.JSONDecoder) -> tuple[Any, int]:
        try:
            return decoder.raw_decode(self.text, self.at)
        except RecursionError as error:
            raise self.broken(f"In this row {too_deep()}") from error
        except (RefusedError, json.JSONDecodeError):
            raise
        except ValueError as error:
            raise self.broken(f"In this row {too_long_number()}") from error

    def broken(
        self,
        message: str,
        fix: str = "Correct the file from this line on.",
        of: Exception | None = None,
    ) -> Exception:
        """Return the error, to be raised, of this place."""
        said = f"{self.fault}: {message[0].lower()}{message[1:]}" if self.fault else message
        return broken(self.path, self.line, said, fix, of=of)

    def _final(self, error: json.JSONDecodeError) -> bool:
        near = error.pos >= len(self.text) - _LONGEST_TOKEN
        return not near and not error.msg.startswith("Unterminated string")

    def _syntax(self, error: json.JSONDecodeError) -> Exception:
        begun = self.line
        self._move(error.pos)
        column = self.at - self.text.rfind("\n", 0, self.at)
        column += self.before if "\n" not in self.text[: self.at] else 0
        row = f" (the row begins on line {begun})" if begun != self.line else ""
        said = f"Not JSON at column {column}: {explained(error)}{row}"
        return self.broken(said, of=MisplacedError(said, column))

    def _move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def _grow(self) -> bool:
        """Hold at least twice as much of the text; False when there is no more."""
        if self.ended:
            return False
        if len(self.text) - self.at > MAX_ROW_BYTES:
            raise self.broken(f"The row that begins here is {too_large()}")
        gone = self.text[: self.at]
        cut = gone.rfind("\n")
        self.before = len(gone) - cut - 1 if cut >= 0 else self.before + len(gone)
        parts = [self.text[self.at :]]
        self.at = 0
        wanted = max(1, len(parts[0]))
        try:
            while wanted > 0:
                parts.append(next(self.texts))
                wanted -= len(parts[-1])
        except StopIteration:
            self.ended = True
        except BrokenError as error:
            self.ended = True
            self.fault = str(error)[0].upper() + str(error)[1:]
        self.text = "".join(parts)
        return True
