"""Files of manuscripts to text, with every change to the text noted."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ftfy
from charset_normalizer import from_bytes

from tunewright.counting import counted
from tunewright.data.manuscripts._archive import refused
from tunewright.data.manuscripts._epub import read_epub
from tunewright.data.manuscripts._word import read_docx
from tunewright.errors import TunewrightError, failure

TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown")
SUFFIXES = (*TEXT_SUFFIXES, ".docx", ".epub")
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive, as docx and epub files are"),
    (b"%PDF", "a PDF"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0", "an old Word document"),
    (b"\x1f\x8b", "gzip data"),
)
_READERS: dict[str, Callable[[Path], tuple[str, list[str]]]] = {
    ".docx": read_docx,
    ".epub": read_epub,
}
_WESTERN = frozenset("àâäáãçèéêëíîïñóôöùúûüœÀÂÄÉÈÊÇÖÜŒßæ‘’“”–—…«»£€§°·½¼¾©®™\xa0¿¡•†")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_EXAMPLES = 3
_AROUND = 12
"""Characters shown on each side of a change."""


@dataclass(frozen=True)
class Manuscript:
    """The text of a file.

    Attributes:
        text: With LF line ends. For docx and epub a line is a line of this text, not of the file.
        notes: What was changed or left out, in words.
        lines: Number of lines.
    """

    text: str
    notes: tuple[str, ...]
    lines: int


def read(path: Path, *, html: bool = True) -> Manuscript:
    """Return the text of a .txt, .text, .md, .markdown, .docx or .epub file.

    Args:
        path: The file.
        html: Entities such as `&quot;` become characters, in a text without tags.

    Raises:
        TunewrightError: E_DATA_ROW, it is damaged, protected or no text. E_IO, it cannot be read.
    """
    try:
        text, notes = _READERS.get(path.suffix.lower(), _read_text)(path)
    except OSError as error:
        raise failure("E_IO", f"The file cannot be read: {error.strerror}.", where=path) from error
    text, repairs = repair(text, html=html)
    return Manuscript(text, (*notes, *repairs), text.count("\n") + 1 if text else 0)


def _read_text(path: Path) -> tuple[str, list[str]]:
    data = path.read_bytes()
    for start, kind in _OTHER_KINDS:
        if data.startswith(start):
            raise refused(
                path, f"The file is {kind}, not text.", fix="Save it as text, docx or epub."
            )
    text, notes = _decode(path, data)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        notes.append("line ends made LF")
    return text, notes


def _decode(path: Path, data: bytes) -> tuple[str, list[str]]:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), [f"read as {encoding.upper()}"]
            except UnicodeDecodeError as error:
                raise refused(
                    path, f"It begins as {encoding.upper()} but is not: {error.reason}."
                ) from error
    if b"\0" in data:
        raise _binary(path, data, data.index(b"\0"), "a zero byte")
    notes = ["byte order mark removed"] if data.startswith(b"\xef\xbb\xbf") else []
    try:
        return data.decode("utf-8-sig"), notes
    except UnicodeDecodeError as error:
        return _guess(path, data, error)


def _guess(path: Path, data: bytes, error: UnicodeDecodeError) -> tuple[str, list[str]]:
    where = f"it is no UTF-8 (line {_line(data, error.start)})"
    western = data.decode("cp1252", errors="replace")
    if _is_western(western):
        return western, [f"read as cp1252: {where}"]
    best = from_bytes(data).best()
    text = "" if best is None else str(best)
    if best is None or len(_CONTROL.findall(text)) > len(text) // 100:
        raise _binary(path, data, error.start, "no UTF-8, and no other encoding fits") from error
    return text, [f"read as {best.encoding}: {where}"]


def _is_western(text: str) -> bool:
    """Tell text of western Europe, whose few accents are too little for statistics to go by."""
    foreign = [sign for sign in text if sign > "\x7f"]
    return set(foreign) <= _WESTERN and len(foreign) * 8 < len(text) and not _CONTROL.search(text)


def _line(data: bytes, at: int) -> int:
    before = data[:at].replace(b"\r\n", b"\n")
    return before.count(b"\n") + before.count(b"\r") + 1


def _binary(path: Path, data: bytes, at: int, what: str) -> TunewrightError:
    where = f"{path}:{_line(data, at)}"
    fix = "Save the file as UTF-8 text."
    return failure("E_DATA_ROW", f"The file is no text: byte {at} is {what}.", where=where, fix=fix)


def repair(text: str, *, html: bool = True) -> tuple[str, list[str]]:
    """Return text without mojibake and control characters, and notes that show the changes.

    Quotation marks, wide letters and composed letters stay as they are. The number of lines does not
    change.
    """
    html = html and "<" not in text
    whole = _fixed(text, html=html)
    if whole == text:
        return text, []
    before, after = text.split("\n"), whole.split("\n")
    if len(before) != len(after):
        after = [_fixed(line, html=html).replace("\n", " ") for line in before]
    changes = [
        (number, old, new)
        for number, (old, new) in enumerate(zip(before, after, strict=True), 1)
        if old != new
    ]
    if not changes:
        return text, []
    shown = "; ".join(
        f"line {number}: {_difference(old, new)}" for number, old, new in changes[:_EXAMPLES]
    )
    lines = counted(len(changes), "line")
    return "\n".join(after), [f"mojibake or control characters repaired: {shown}; {lines} in all"]


def _fixed(text: str, *, html: bool) -> str:
    return ftfy.fix_text(
        text,
        unescape_html=html,
        uncurl_quotes=False,
        fix_character_width=False,
        fix_line_breaks=False,
        normalization=None,
    )


def _difference(old: str, new: str) -> str:
    """Return the words around the first change: 'caf\u00c3\u00a9' -> 'caf\u00e9'."""
    start = next(
        (n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b),
        min(len(old), len(new)),
    )
    tail = 0
    while tail < min(len(old), len(new)) - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    low = max(old.rfind(" ", 0, start) + 1, start - _AROUND)

    def part(line: str) -> str:
        stop = len(line) - tail
        space = line.find(" ", stop)
        return line[low : min(space if space >= 0 else len(line), stop + _AROUND, low + 60)]

    return f"{part(old)!r} -> {part(new)!r}"
