"""Any file of rows to records: decides what it is, then reads it."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from tunewright.data.formats import documents
from tunewright.data.formats._open import blocks, head_of
from tunewright.data.formats._tables import read_arrow, read_parquet
from tunewright.data.formats.csvrows import read_csv
from tunewright.data.formats.jsonlines import read_jsonlines
from tunewright.data.formats.kinds import HEAD_BYTES, Kind, decide
from tunewright.data.formats.lines import (
    LONGEST_MARK,
    BrokenError,
    Ends,
    as_text,
    as_utf8,
    marked,
    physical_lines,
)
from tunewright.data.formats.records import Note, Record, Report, broken, refused
from tunewright.errors import Problem


def read(path: Path, report: Report, note: Note) -> Iterator[Record]:
    """Yield the rows of a file; see the facade."""
    found = False

    def counted(problem: Problem) -> None:
        nonlocal found
        found = True
        report(problem)

    try:
        for record in _records(path, counted, note):
            found = True
            yield record
    except OSError as error:
        raise _unread(path, error) from error
    if not found:
        raise refused(
            path, "The file has no rows.", "Add rows, or leave it out.", code="E_DATA_EMPTY"
        )


def kind_of(path: Path) -> Kind:
    """Return what a file is; see the facade."""
    try:
        parts, whole = head_of(_readable(path), HEAD_BYTES)
    except OSError as error:
        raise _unread(path, error) from error
    return decide(path, b"".join(parts), whole=whole)


def _unread(path: Path, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError):
        return refused(path, "There is no such file.", "Check the path.", code="E_NOT_FOUND")
    reason = (error.strerror or type(error).__name__).lower()
    return refused(path, f"The file cannot be read: {reason}.", "Check it.", code="E_IO")


def _records(path: Path, report: Report, note: Note) -> Iterator[Record]:
    kind = kind_of(path)
    if kind.reader == "parquet":
        yield from read_parquet(path, report, note)
    elif kind.reader == "arrow":
        yield from read_arrow(path, report, note)
    else:
        yield from _texts(path, kind, report, note)


def _texts(path: Path, kind: Kind, report: Report, note: Note) -> Iterator[Record]:
    ends = Ends()
    content = _content(path, note)
    if kind.reader in {"document", "wrapped"}:
        text = as_text(content, ends)
        wrapped = kind.reader == "wrapped"
        yield from documents.read_document(path, text, report, note, wrapped=wrapped)
    else:
        numbered = _guarded(path, physical_lines(content, ends))
        if kind.reader == "csv":
            mark = kind.delimiter
            yield from read_csv(path, numbered, ends, report, note, delimiter=mark)
        else:
            yield from read_jsonlines(path, numbered, ends, report)
    for said in ends.notes():
        note(said)


def _content(path: Path, note: Note) -> Iterator[bytes]:
    """Yield the content without byte-order mark, as UTF-8."""
    stream = blocks(path)
    head = b""
    for block in stream:
        head += block
        if len(head) >= LONGEST_MARK:
            break
    encoding, skip = marked(head)
    if skip:
        note(f"a byte-order mark ({encoding.upper()}) passed over")
    content = chain([head[skip:]], stream)
    yield from content if encoding == "utf-8" else as_utf8(content, encoding)


def _readable(path: Path) -> Iterator[bytes]:
    """Yield the content up to where it breaks; reading all of it says where and why."""
    some = False
    try:
        for block in blocks(path):
            some = True
            yield block
    except BrokenError as error:
        if not some:
            text = str(error)
            raise refused(path, f"{text[0].upper()}{text[1:]}.", "Make the file again.") from error


def _guarded(
    path: Path, numbered: Iterable[tuple[int, bytes | None]]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the same lines; what cannot be read any further is an error with the line where it begins."""
    last = 0
    try:
        for last, line in numbered:
            yield last, line
    except BrokenError as error:
        text = str(error)
        raise broken(path, last + 1, text[0].upper() + text[1:]) from error
