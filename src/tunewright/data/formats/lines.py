"""Blocks of bytes to physical lines, in bounded memory. Pure.

LF, CRLF and a lone CR end a line. U+2028, U+2029, NEL, form feed and vertical tab are text and do not.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tunewright.counting import counted
from tunewright.data.formats.records import MAX_ROW_BYTES, MisplacedError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LONGEST_MARK = 4
_END = re.compile(rb"\r\n|\r|\n")


class BrokenError(Exception):
    """The bytes cannot be read any further; the text says why."""


@dataclass
class Ends:
    """How the lines of a file end.

    Attributes:
        crlf: Lines that end in CRLF.
        cr: Lines that end in a lone CR.
        blank: Lines without text that were passed over.
    """

    crlf: int = 0
    cr: int = 0
    blank: int = 0

    def notes(self) -> list[str]:
        """Return what is worth saying, in words."""
        said: list[str] = []
        if self.crlf:
            said.append(f"{counted(self.crlf, 'line ends', 'lines end')} in CRLF, read as LF")
        if self.cr:
            said.append(f"{counted(self.cr, 'line ends', 'lines end')} in a lone CR, read as LF")
        if self.blank:
            said.append(f"{counted(self.blank, 'blank line')} passed over")
        return said


def marked(head: bytes) -> tuple[str, int]:
    """Return the encoding that a byte-order mark names, and the mark's length; UTF-8 and 0 without one."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


def as_utf8(blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield blocks of UTF-16 or UTF-32 as UTF-8.

    Raises:
        BrokenError: The bytes are not of that encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    done = 0
    for block in blocks:
        try:
            yield decoder.decode(block).encode("utf-8")
        except UnicodeDecodeError as error:
            # What was right before the fault decides on which line the fault is.
            yield error.object[: error.start].decode(encoding).encode("utf-8")
            place = done + len(block) - len(error.object) + error.start + 1
            raise BrokenError(f"byte {place:,} of the text is not {encoding.upper()}") from error
        done += len(block)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise BrokenError(f"the {encoding.upper()} text ends within a character") from error


def physical_lines(
    blocks: Iterable[bytes], ends: Ends, limit: int = MAX_ROW_BYTES
) -> Iterator[tuple[int, bytes | None]]:
    """Yield line number from 1 and bytes without the line end; None for a line over `limit` bytes.

    Raises:
        BrokenError: What the blocks raise.
    """
    number = 1
    for block in _whole(_with_pairs(blocks), limit):
        if block is None:
            yield number, None
            number += 1
            continue
        crlf = block.count(b"\r\n")
        ends.crlf += crlf
        ends.cr += block.count(b"\r") - crlf
        # bytes.splitlines knows LF, CRLF and CR only, unlike str.splitlines.
        for line in block.splitlines():
            yield number, line if len(line) <= limit else None
            number += 1


def _with_pairs(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks that never part a CR from the LF after it."""
    held = b""
    for block in blocks:
        whole = held + block
        held = b"\r" if whole.endswith(b"\r") else b""
        yield whole[: len(whole) - len(held)]
    if held:
        yield held


def _whole(blocks: Iterable[bytes], limit: int) -> Iterator[bytes | None]:
    """Yield blocks of whole lines, and None for each line that outgrew the limit before its end came."""
    parts: list[bytes] = []
    held = 0
    skipping = False
    for given in blocks:
        block = given
        if skipping:
            end = _END.search(block)
            if end is None:
                continue
            skipping, block = False, block[end.end() :]
        cut = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        if cut:
            yield b"".join([*parts, block[:cut]])
            parts, held, block = [], 0, block[cut:]
        parts.append(block)
        held += len(block)
        if held > limit:
            yield None
            parts, held, skipping = [], 0, True
    if held:
        yield b"".join(parts)


def as_text(blocks: Iterable[bytes], ends: Ends) -> Iterator[str]:
    """Yield UTF-8 blocks as text in which every line ends in LF.

    Raises:
        BrokenError: A byte is not UTF-8, or what the blocks raise.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    for given in _with_pairs(blocks):
        crlf = given.count(b"\r\n")
        ends.crlf += crlf
        ends.cr += given.count(b"\r") - crlf
        block = given.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in given else given
        try:
            yield decoder.decode(block)
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode("utf-8")
            raise BrokenError(not_utf8(error)) from error
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise BrokenError("the text ends within a character") from error


def not_utf8(error: UnicodeDecodeError) -> str:
    """Return what is wrong with the byte, in words."""
    return f"the byte 0x{error.object[error.start]:02X} is not UTF-8"


def text_of(line: bytes) -> str:
    """Return a line's text.

    Raises:
        MisplacedError: It is not UTF-8, or holds a NUL byte.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        said = f"{not_utf8(error)} (byte {error.start + 1} of the line)"
        column = len(line[: error.start].decode("utf-8")) + 1
        raise MisplacedError(said, column) from error
    if "\0" in text:
        column = text.index(chr(0)) + 1
        raise MisplacedError(f"there is a NUL at column {column}", column)
    return text
