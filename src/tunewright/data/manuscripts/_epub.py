"""EPUB files to text: the chapters in reading order. What is left out is named in notes.

Source: EPUB 3.3, https://www.w3.org/TR/epub-33/ (container, package document, spine, encryption.xml).
"""

import posixpath
import re
from collections import Counter
from html.entities import html5
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from tunewright.data.manuscripts._archive import open_archive, read_member, refused


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_FONT_HIDING = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_BLOCKS = _set(
    "address article aside blockquote body caption center dd div dl dt fieldset figcaption figure footer h1 "
    "h2 h3 h4 h5 h6 header hr li main ol p pre section table tbody td tfoot th thead tr ul"
)
_SKIPPED = _set("head script style svg math audio video object iframe nav template rp rt")
_PAGE_TYPES = _set("pagebreak noteref")
_NOTE_TYPES = _set("footnote endnote footnotes endnotes rearnote rearnotes")
_MATTER = {
    "cover": "cover",
    "toc": "table of contents",
    "landmarks": "table of contents",
    "titlepage": "title page",
    "title-page": "title page",
    "copyright-page": "copyright page",
    "loi": "list of pictures",
    "index": "index",
}
_SIGNS = {"hr": "* * *", "br": "\n"}
_TYPE = "{http://www.idpf.org/2007/ops}type"
_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]*);")
_XML_ENTITIES = (b"amp", b"lt", b"gt", b"quot", b"apos")


def read_epub(file: Path) -> tuple[str, list[str]]:
    """Return a book's text, a paragraph a line and an empty line between, and notes.

    Raises:
        TunewrightError: E_DATA_ROW, the file is damaged, protected, or no EPUB.
    """
    with open_archive(file) as archive:
        package = _package_name(file, archive)
        root = _xml(file, read_member(file, archive, package), package)
        chapters, notes = _spine(root, posixpath.dirname(package))
        _refuse_protected(file, archive, chapters)
        found: list[str] = []
        left_out: Counter[str] = Counter()
        for name in chapters:
            page = _xml(file, _with_characters(read_member(file, archive, name)), name, notes)
            kind = _matter_of(page)
            if kind:
                notes.append(f"{name} left out: {kind}")
            else:
                found += _paragraphs(page, left_out)
    if not chapters:
        raise refused(file, "The book names no chapters (its spine is empty).")
    notes += [f"{count} {what} left out" for what, count in sorted(left_out.items())]
    return "\n\n".join(found), notes


def _xml(file: Path, data: bytes, name: str, notes: list[str] | None = None) -> Any:
    """Return the root of a part; that it is not well formed is an error, or a note where notes are given."""
    parser = etree.XMLParser(
        recover=True,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.LxmlError, ValueError) as error:
        raise refused(file, f"The file is damaged: {name} is not XML.") from error
    if root is None:
        raise refused(file, f"The file is damaged: {name} is empty or not XML.")
    if len(parser.error_log):
        if notes is None:
            raise refused(file, f"The file is damaged: {name} is not well formed XML.")
        notes.append(f"{name} is not well formed: read as far as it can be")
    return root


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rsplit("}", 1)[-1].lower() if isinstance(tag, str) else ""


def _all(root: Any, name: str) -> list[Any]:
    return [element for element in root.iter() if _local(element) == name]


def _package_name(file: Path, archive: ZipFile) -> str:
    if _CONTAINER not in archive.namelist():
        raise refused(file, f"The file is no EPUB: {_CONTAINER} is missing.")
    root = _xml(file, read_member(file, archive, _CONTAINER), _CONTAINER)
    names = [element.get("full-path") for element in _all(root, "rootfile")]
    if not names or not names[0]:
        raise refused(file, f"The file is damaged: {_CONTAINER} names no package.")
    return names[0]


def _spine(root: Any, folder: str) -> tuple[list[str], list[str]]:
    """Return the files of the chapters in reading order, and notes about those left out."""
    items = {item.get("id"): item for item in _all(root, "item")}
    guide = {
        _resolve(folder, reference.get("href") or ""): _MATTER[
            (reference.get("type") or "").lower()
        ]
        for reference in _all(root, "reference")
        if (reference.get("type") or "").lower() in _MATTER
    }
    chapters: list[str] = []
    notes: list[str] = []
    for reference in _all(root, "itemref"):
        item = items.get(reference.get("idref"))
        if item is None or not item.get("href"):
            notes.append(
                f"spine entry '{reference.get('idref')}' left out: the book has no such file"
            )
            continue
        name = _resolve(folder, item.get("href"))
        reason = guide.get(name)
        if "nav" in (item.get("properties") or "").split():
            reason = "table of contents"
        elif "html" not in (item.get("media-type") or "html"):
            reason = f"{item.get('media-type')}, no text"
        elif reference.get("linear") == "no":
            reason = reason or "not in the reading order"
        if reason:
            notes.append(f"{name} left out: {reason}")
        elif name not in chapters:
            chapters.append(name)
    return chapters, notes


def _resolve(folder: str, href: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(href.split("#", 1)[0])))


def _refuse_protected(file: Path, archive: ZipFile, chapters: list[str]) -> None:
    if _ENCRYPTION not in archive.namelist():
        return
    root = _xml(file, read_member(file, archive, _ENCRYPTION), _ENCRYPTION)
    for data in _all(root, "encrypteddata"):
        methods = [method.get("Algorithm") for method in _all(data, "encryptionmethod")]
        names = [unquote(ref.get("URI") or "") for ref in _all(data, "cipherreference")]
        if any(name in chapters for name in names) and not set(methods) & set(_FONT_HIDING):
            raise refused(
                file,
                f"The book is protected (DRM): {names[0]} is encrypted.",
                fix="Use a copy without protection, such as the manuscript itself.",
            )


def _with_characters(data: bytes) -> bytes:
    """Return XHTML with HTML's named characters as numbers, which XML knows without a DTD."""

    def number(match: re.Match[bytes]) -> bytes:
        known = html5.get(match[1].decode("ascii") + ";")
        if match[1] in _XML_ENTITIES or known is None:
            return match[0]
        return "".join(f"&#{ord(sign)};" for sign in known).encode("ascii")

    return _ENTITY.sub(number, data)


def _types(element: Any) -> set[str]:
    role = (element.get("role") or "").replace("doc-", "")
    return {*(element.get(_TYPE) or "").lower().split(), *role.split()}


def _matter_of(page: Any) -> str | None:
    """Return what a page is that is not the author's text, told from its marked outer elements."""
    for body in _all(page, "body"):
        outer = [body, *body]
        for element in [body] if len(outer) > 2 else outer:
            for kind in _types(element):
                if kind in _MATTER:
                    return _MATTER[kind]
    return None


class _Text:
    """Paragraphs found so far, and the words of the one that is open."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.words: list[str] = []

    def add(self, text: str | None) -> None:
        """Add words; a line end in the file is a space on the page."""
        self.words.append((text or "").replace("\n", " "))

    def close(self, element: Any) -> None:
        """End the open paragraph; an element h1 to h6 makes it a heading."""
        lines = (" ".join(line.split()) for line in "".join(self.words).split("\n"))
        text = "\n".join(filter(None, lines))
        self.words.clear()
        level = int(_local(element)[1:]) if re.fullmatch(r"h[1-6]", _local(element)) else 0
        if text:
            self.found.append(f"{'#' * level} {' '.join(text.split())}" if level else text)


def _paragraphs(page: Any, left_out: Counter[str]) -> list[str]:
    text = _Text()
    body = next(iter(_all(page, "body")), page)
    skipped: Any = None
    for event, element in etree.iterwalk(body, events=("start", "end")):
        if event == "start" and skipped is None:
            if _local(element) in _BLOCKS:
                text.close(element if element is body else element.getparent())
            if _is_skipped(element, left_out):
                skipped = element
            elif isinstance(element.tag, str):
                text.add(element.text)
            else:
                left_out["characters that the book does not define"] += 1
        elif event == "end" and skipped in (None, element):
            skipped = None
            text.words.append(_SIGNS.get(_local(element), ""))
            if _local(element) in _BLOCKS:
                text.close(element)
            text.add(element.tail if element is not body else "")
    text.close(body)
    return text.found


def _is_skipped(element: Any, left_out: Counter[str]) -> bool:
    name, types = _local(element), _types(element)
    if types & _NOTE_TYPES:
        left_out["footnotes"] += 1
    if name in ("img", "svg", "image"):
        left_out["pictures"] += 1
    return name in _SKIPPED or bool(types & (_PAGE_TYPES | _NOTE_TYPES))
