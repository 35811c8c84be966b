"""Word files (docx) to text: paragraphs, headings, tables. What is left out is counted in notes."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docx import Document
from docx.exceptions import PythonDocxError
from docx.opc.exceptions import OpcError
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from tunewright.data.manuscripts._archive import DAMAGE, open_archive, read_member, refused
from tunewright.errors import first_line

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TEXT = {f"{_W}noBreakHyphen": "-", f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n"}
_LEFT_OUT = {
    f"{_W}footnoteReference": "footnotes",
    f"{_W}endnoteReference": "endnotes",
    f"{_W}commentReference": "comments",
    f"{_W}del": "deletions",
    f"{_W}moveFrom": "moved passages at their old place",
    f"{_W}txbxContent": "text boxes",
    f"{_W}drawing": "pictures",
    f"{_W}pict": "pictures",
    f"{_W}object": "embedded objects",
}
_HIDDEN = {f"{_W}instrText", f"{_W}delText", f"{_W}pPr", f"{_W}rPr", f"{_W}sectPr"}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_WRONG = (
    *DAMAGE,
    OpcError,
    PythonDocxError,
    etree.LxmlError,
    AttributeError,
    IndexError,
    TypeError,
)
"""What python-docx raises for a document that is not built as Word builds it."""


def read_docx(file: Path) -> tuple[str, list[str]]:
    """Return a document's text, a paragraph a line and an empty line between, and notes.

    Raises:
        TunewrightError: E_DATA_ROW, the file is damaged or no Word document.
    """
    with open_archive(file) as archive:
        for name in archive.namelist():
            read_member(file, archive, name)  # every part's checksum
    left_out: Counter[str] = Counter()
    try:
        document = Document(str(file))
        headings = _headings(document)
        found = [
            _paragraph(p, headings, left_out) for p in _paragraphs(document.element.body, left_out)
        ]
    except _WRONG as error:
        message = f"The file is no Word document, or is damaged: {first_line(error)}."
        raise refused(file, message) from error
    notes = [f"{count} {what} left out" for what, count in sorted(left_out.items())]
    return "\n\n".join(text for text in found if text), notes


def _headings(document: Any) -> dict[str, int]:
    """Return the level of each style that is a heading, or is based on one."""
    levels: dict[str, int] = {}
    for style in document.styles:
        base, steps = style, 0
        while base is not None and steps < 20:
            name = str(base.name or "").lower()
            if name == "title" or (name.startswith("heading ") and name[8:].isdigit()):
                levels[style.style_id] = 1 if name == "title" else min(int(name[8:]), 6)
                break
            base, steps = getattr(base, "base_style", None), steps + 1
    return levels


def _paragraphs(parent: Any, left_out: Counter[str]) -> Iterator[Any]:
    """Yield paragraphs in order; those of tables and content controls where these stand."""
    for child in parent:
        if child.tag == f"{_W}p":
            yield child
        elif child.tag in (f"{_W}del", f"{_W}moveFrom"):
            left_out[_LEFT_OUT[child.tag]] += 1
        elif isinstance(child.tag, str) and child.tag not in _HIDDEN:
            yield from _paragraphs(child, left_out)


def _paragraph(paragraph: Any, headings: dict[str, int], left_out: Counter[str]) -> str:
    text = "".join(_runs(paragraph, left_out))
    text = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()
    style = paragraph.find(f"{_W}pPr/{_W}pStyle")
    level = headings.get(style.get(f"{_W}val"), 0) if style is not None else 0
    return f"{'#' * level} {' '.join(text.split())}" if level and text else text


def _runs(element: Any, left_out: Counter[str]) -> Iterator[str]:
    for child in element:
        if child.tag in _LEFT_OUT:
            left_out[_LEFT_OUT[child.tag]] += 1
        elif child.tag == f"{_W}t":
            yield child.text or ""
        elif child.tag in _TEXT:
            yield _TEXT[child.tag]
        elif isinstance(child.tag, str) and child.tag not in _HIDDEN and child.tag != _FALLBACK:
            yield from _runs(child, left_out)
