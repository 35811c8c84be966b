"""The lines of a manuscript, told apart: headings, scene marks, and paragraphs. Pure.

Files differ: lines may be wrapped or hold a paragraph each, with or without empty lines between them.
`layout_of` tells which it is; `blocks` then groups the lines.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Kind = Literal["text", "heading", "scene", "end", "blank", "skip"]
NUMBER = (
    r"(?:[IVXLCDM]+|[ivxlcdm]+|\d+|(?i:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|first"
    r"|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last))"
)
_DIVISION = r"(?i:chapter|part|book|letter|volume|vol\.|canto|act|scene|stave)"
_STRONG = re.compile(
    r"#{1,6}\s+\S.*|_?"
    + _DIVISION
    + r"\s+(?:(?i:the)\s+)?"
    + NUMBER
    + r"\b(?:[\s.:—–_-].{0,80})?"
    + r"|(?i:preface|prologue|epilogue|introduction|prelude|finale|postscript|conclusion|interlude"
    + r"|foreword|afterword|acknowledge?ments)\.?"
)
_SCENE = re.compile(r"(?:[*#~•⁂❦❧§◆◇○●+=_·—–-]\s*)+")
_END_MARK = re.compile(
    r"\W*(?:the\s+end|finis|end\s+of\s+(?:the\s+)?(?:\w+\s+)?(?:volume|book|part)(?:\s+\w+)?)\W*",
    re.IGNORECASE,
)
_NUMERAL = re.compile(r"(?:(\d{1,3})|([IVXLC]+))\.?")
_UNDERLINE = re.compile(r"={3,}|-{3,}")
_OPENERS = "\"'“‘«([_*-—–"
_CLOSERS = "\"'”’»)]_*"
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_CHAPTER_WORDS = 120
"""Words a numbered chapter has on average at least; with fewer the numbers belong to a list."""
_LONG_LINE = 200
"""Characters: a longer line that stops without a mark was cut by a program, not by the author."""


@dataclass(frozen=True)
class Line:
    """A physical line.

    Attributes:
        number: From 1.
        start: Offset of its first character that is no space.
        body: Its text without the space around it.
        indent: Characters of space before it.
    """

    number: int
    start: int
    body: str
    indent: int


@dataclass(frozen=True)
class Layout:
    """How a file sets its paragraphs.

    Attributes:
        width: Characters of a full line.
        wrapped: A paragraph runs over several lines.
        spaced: Empty lines stand between paragraphs.
        indented: The first line of a paragraph is set in.
    """

    width: int
    wrapped: bool
    spaced: bool
    indented: bool


@dataclass(frozen=True)
class Block:
    """A heading, a mark, or a paragraph.

    Attributes:
        kind: What it is.
        lines: Its lines in order.
    """

    kind: Kind
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Dropped:
    """A line that is in no chunk.

    Attributes:
        line: Physical line, from 1.
        text: The line without the space around it.
        reason: Why it is left out, in words.
    """

    line: int
    text: str
    reason: str


def lines_of(text: str) -> list[Line]:
    """Return the physical lines of a text with LF line ends."""
    found: list[Line] = []
    at = 0
    for number, line in enumerate(text.split("\n"), 1):
        body = line.strip()
        indent = len(line) - len(line.lstrip()) if body else 0
        found.append(Line(number, at + indent, body, indent))
        at += len(line) + 1
    return found


def layout_of(lines: Sequence[Line]) -> Layout:
    """Return how a file sets its paragraphs, told from the lengths of its lines."""
    full = [line for line in lines if line.body]
    if not full:
        return Layout(0, wrapped=False, spaced=False, indented=False)
    lengths = sorted(len(line.body) for line in full)
    width = lengths[max(0, int(len(lengths) * 0.9) - 1)]
    longest = lengths[int((len(lengths) - 1) * 0.995)]
    filled = sum(0.8 * width <= n <= 1.15 * width for n in lengths)
    wrapped = 40 < width <= 140 and longest <= 1.4 * width and filled >= 0.35 * len(lengths)
    gaps = sum(bool(a.body) and not b.body for a, b in pairwise(lines))
    set_in = sum(2 <= line.indent <= 12 for line in full)
    return Layout(
        width,
        wrapped=wrapped,
        spaced=gaps * 12 > len(full),
        indented=0.03 * len(full) <= set_in <= 0.6 * len(full),
    )


def key_of(line: str) -> str:
    """Return a heading's words without number, marks and case, so that two forms of it compare."""
    bare = re.sub(rf"^\W*(?:{_DIVISION}\s+)?(?:(?i:the)\s+)?{NUMBER}\b[\s.:)—–-]*", "", line)
    return " ".join(re.findall(r"[^\W_]+", bare.casefold()))


def is_strong_heading(body: str) -> bool:
    """Tell a line that names its division: `CHAPTER IV`, `Book the First - Sowing`, `# Title`."""
    return len(body) <= 110 and bool(_STRONG.fullmatch(body)) and not body.endswith((",", ";"))


def is_heading(body: str) -> bool:
    """Tell a heading: one that names its division, or a line in capitals that is no shout."""
    if len(body) > 110 or not (body[:1].isupper() or body[:1] in "#_"):
        return False
    if is_strong_heading(body):
        return True
    return (
        is_capitals(body) and len(body) <= 80 and _is_quiet(body) and not _NUMERAL.fullmatch(body)
    )


def is_capitals(body: str) -> bool:
    """Tell a line whose letters are all capitals."""
    return any(c.isalpha() for c in body) and body.upper() == body


def _is_quiet(body: str) -> bool:
    bare = body.rstrip("\"'”’)_*")
    return bare[-1:].isalnum() or (bare.endswith((".", "?")) and " " in bare)


def ends_sentence(body: str) -> bool:
    """Tell whether a line could be the last of a sentence."""
    bare = body.rstrip(_CLOSERS)
    quoted = body[-1:] in "\"'”’»" and bare[-1:] in "-—–"
    return bare[-1:] in tuple(".!?…。\uff01\uff1f") or quoted


def starts_lower(body: str) -> bool:
    """Tell whether a line begins with a small letter."""
    return body.lstrip(_OPENERS)[:1].islower()


def is_title(body: str) -> bool:
    """Tell a short line set as a title: most of its long words begin with a capital."""
    if len(body) > 80 or not body.lstrip("_*")[:1].isupper() or body.endswith((",", ";", ":")):
        return False
    if is_capitals(body):
        return True
    long = [word for word in re.findall(r"[^\W\d_]+", body) if len(word) > 3]
    raised = sum(word[0].isupper() for word in long)
    return not body.rstrip("_*").endswith((".", "!", "?", '"', "”")) and raised >= 0.6 * len(long)


def blocks(
    lines: Sequence[Line], skipped: Collection[int] = (), titles: Collection[str] = ()
) -> list[Block]:
    """Return headings, marks and paragraphs in order.

    Args:
        lines: All lines of the file.
        skipped: Numbers of lines that are left out; a paragraph may run on across them.
        titles: Keys of headings that are known, from a table of contents.
    """
    layout = layout_of([line for line in lines if line.number not in skipped])
    kinds = _kinds(lines, layout, skipped, titles)
    found: list[Block] = []
    current: list[Line] = []
    gap = bridge = False
    for line, kind in zip(lines, kinds, strict=True):
        if kind in ("blank", "skip"):
            gap, bridge = gap or kind == "blank", bridge or kind == "skip"
            continue
        runs_on = kind == "text" and bool(current) and _runs_on(current[-1], line, layout, gap=gap)
        across = kind == "text" and bool(current) and gap and bridge and _is_torn(current[-1], line)
        if current and not (runs_on or across):
            found.append(Block("text", tuple(current)))
            current = []
        if kind == "text":
            current.append(line)
        else:
            found.append(Block(kind, (line,)))
        gap = bridge = False
    return [*found, Block("text", tuple(current))] if current else found


def _is_torn(before: Line, line: Line) -> bool:
    """Tell a sentence that a page break has torn in two."""
    return not ends_sentence(before.body) and starts_lower(line.body)


def _runs_on(before: Line, line: Line, layout: Layout, *, gap: bool) -> bool:
    """Tell whether a line continues the paragraph of the line before it."""
    if gap:
        return False
    if not layout.wrapped:
        cut_off = len(before.body) > _LONG_LINE and (
            before.body[-1].isalnum() or before.body[-1] == ","
        )
        return _is_torn(before, line) or cut_off
    if layout.indented and line.indent >= 2 and before.indent < 2 and ends_sentence(before.body):
        return False
    return layout.spaced or starts_lower(line.body) or not _ends_paragraph(before.body, layout)


def _ends_paragraph(body: str, layout: Layout) -> bool:
    """Tell the last line of a paragraph in wrapped text without empty lines: it is short."""
    closed = ends_sentence(body) or body[-1] in ":—-" or body[-1] in "\"'”’)"
    return len(body) < 0.8 * layout.width and closed


def _kinds(
    lines: Sequence[Line], layout: Layout, skipped: Collection[int], titles: Collection[str]
) -> list[Kind]:
    numerals = _numerals(lines, skipped)
    kinds: list[Kind] = []
    before: Line | None = None  # the line of text just above, without an empty line between
    after_heading = False
    for index, line in enumerate(lines):
        kind = _plain_kind(line, skipped)
        if kind == "text":
            opens = before is None or not layout.wrapped or _ends_paragraph(before.body, layout)
            closed = opens or (before is not None and ends_sentence(before.body))
            named = bool(titles) and len(line.body) <= 80 and key_of(line.body) in titles
            if (
                (closed and (is_strong_heading(line.body) or line.number in numerals))
                or (opens and (is_heading(line.body) or (named and is_title(line.body))))
                or (after_heading and _is_subtitle(lines, index, layout))
                or (opens and _is_underlined(lines, index))
            ):
                kind = "heading"
        elif (
            kind == "scene"
            and kinds
            and kinds[-1] == "heading"
            and _is_underlined(lines, index - 1)
        ):
            kind = "heading"
        kinds.append(kind)
        if kind != "skip":
            before = line if kind == "text" else None
        if kind not in ("blank", "skip"):
            after_heading = kind == "heading"
    return kinds


def _plain_kind(line: Line, skipped: Collection[int]) -> Kind:
    if line.number in skipped and line.body:
        return "skip"
    if not line.body:
        return "blank"
    if _SCENE.fullmatch(line.body):
        return "scene"
    return "end" if _END_MARK.fullmatch(line.body) else "text"


def _is_underlined(lines: Sequence[Line], index: int) -> bool:
    """Tell a Markdown heading that a row of signs below it makes one."""
    body = lines[index].body
    below = lines[index + 1].body if index + 1 < len(lines) else ""
    alone = index == 0 or not lines[index - 1].body
    return (
        alone and len(body) <= 80 and not ends_sentence(body) and bool(_UNDERLINE.fullmatch(below))
    )


def _is_subtitle(lines: Sequence[Line], index: int, layout: Layout) -> bool:
    """Tell the title under a chapter's number from its first line of prose."""
    body = lines[index].body
    if not is_title(body) or (layout.wrapped and len(body) >= 0.9 * layout.width):
        return False
    below = lines[index + 1].body if index + 1 < len(lines) else ""
    if below and layout.wrapped and len(below) < 0.75 * layout.width:
        return below[:1] in "\"'“‘" or is_strong_heading(below)  # else it is verse
    following = next((line.body for line in lines[index + 1 : index + 6] if line.body), "")
    return bool(following) and not starts_lower(following)


def _numerals(lines: Sequence[Line], skipped: Collection[int]) -> set[int]:
    """Return the lines that hold only a chapter's number: I, II, III or 1, 2, 3 in order."""
    found: set[int] = set()
    run: list[tuple[int, int]] = []
    words = 0
    for line in lines:
        words += len(line.body.split())
        match = _NUMERAL.fullmatch(line.body) if line.body else None
        if not match or line.number in skipped:
            continue
        value = int(match[1]) if match[1] else roman(match[2])
        if value != len(run) + 1:
            run = []
        if value == len(run) + 1:
            run.append((line.number, words))
        if len(run) >= 2 and run[-1][1] - run[0][1] >= _CHAPTER_WORDS * (len(run) - 1):
            found.update(number for number, _ in run)
    return found


def roman(numeral: str) -> int:
    """Return the value of a Roman numeral of I, V, X, L and C."""
    values = [_ROMAN[sign] for sign in numeral]
    pairs = zip(values, [*values[1:], 0], strict=True)
    return sum(-value if value < after else value for value, after in pairs)
