"""Lines of a manuscript that are not the author's text: what a publisher or a scanner added. Pure.

Found are Project Gutenberg's header and licence, title page, table of contents and publisher's notes
before the first chapter, page numbers, running heads, and marks for pictures. What is unsure stays.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from tunewright.data.manuscripts.layout import (
    Dropped,
    Layout,
    Line,
    ends_sentence,
    is_capitals,
    is_strong_heading,
    is_title,
    key_of,
    layout_of,
    lines_of,
    roman,
)

CONTENTS = "table of contents"
_GUTENBERG_START = re.compile(
    r"\*{2,}\s*START\s+OF\s+(?:THIS|THE)\s+PROJECT\s+GUTENBERG.*|\*END\W*THE SMALL PRINT.*",
    re.IGNORECASE,
)
_GUTENBERG_END = re.compile(
    r"\*{2,}\s*END\s+OF\s+(?:THIS|THE)\s+PROJECT\s+GUTENBERG.*"
    r"|End\s+of\s+(?:the\s+)?Project\s+Gutenberg(?:'s|’s)?\b.*",
    re.IGNORECASE,
)
_CREDIT = re.compile(
    r"(?:Produced|Transcribed|E-?text\s+prepared|This\s+e-?(?:text|book)\s+was\s+(?:produced|prepared))"
    r"\s+(?:by|from)\b.*|Transcriber['’]s\s+notes?\b.*",
    re.IGNORECASE,
)
_PICTURE = re.compile(r"\[(?:illustration|image|map|frontispiece)\b[^\]]*\]", re.IGNORECASE)
_PICTURE_START = re.compile(r"\[(?:illustration|image|map|frontispiece)\b[^\]]*", re.IGNORECASE)
_NOTE_START = re.compile(r"\[Transcriber['’]s\s+notes?\b[^\]]*", re.IGNORECASE)
_CONTENTS_LINE = re.compile(r"[#\s_*]*(?:table\s+of\s+)?contents[.:_*]*", re.IGNORECASE)
_ENTRY = re.compile(
    r"(?:(?:chapter|letter|book|volume|part|vol\.)\s+)?(?:[IVXLC]+|\d{1,3})(?:[\s.:)—–-]|$).*"
    r"|[-*]\s+\[.+\]\(.*\)|.+?(?:\.\s?){3,}\s*\d+",
    re.IGNORECASE,
)
_IMPRINT = re.compile(
    r"(?:written\s+)?by\b.{0,60}|.*\b(?:copyright|all rights reserved|isbn)\b.*|.*©.*"
    r"|(?:first\s+)?(?:published|printed)\b.*|(?:edited|illustrated|translated)\s+by\b.*"
    r"|.*\b(?:publishers?|press)\b\.?|(?:affectionately\s+)?(?:dedicated|inscribed)\b.*"
    r"|an?\s+(?:novel|romance|tale|story)\b.*|\(?\d{4}\)?",
    re.IGNORECASE,
)
_DEDICATION = re.compile(r"(?:to|for)\s+(?:my|the|our|all)\b.*", re.IGNORECASE)
_PAGE = re.compile(
    r"([-–—\[({|*]\s*)?(?:p(?:age|g)?\.?\s+)?(?:(\d{1,4})|([ivxlc]{1,7}))(?:\s*[-–—\])}|*])?",
    re.IGNORECASE,
)
_HEAD = re.compile(r"(?:(\d{1,4})\s+)?([^\W\d]\D{2,50}?)(?:\s+(\d{1,4}))?")
_FRONT_LINES, _CONTENTS_LINES, _PROSE_LINES = 40, 600, 4
_LEAST_PAGES, _LEAST_HEADS = 4, 5


def find_matter(text: str) -> list[Dropped]:
    """Return the lines that are not the author's, in order, each with the reason."""
    lines = lines_of(text)
    found: dict[int, Dropped] = {}

    def drop(chosen: Sequence[Line], reason: str) -> None:
        for line in chosen:
            if line.body:
                found.setdefault(line.number, Dropped(line.number, line.body, reason))

    def remaining() -> list[Line]:
        return [line for line in lines if line.number not in found]

    _gutenberg(lines, drop)
    _bracketed(remaining(), drop)
    _pages(remaining(), drop)
    _front(remaining(), layout_of(lines), drop)
    return [found[number] for number in sorted(found)]


_Drop = Callable[[Sequence[Line], str], None]


def _gutenberg(lines: Sequence[Line], drop: _Drop) -> None:
    """Drop what is outside of Project Gutenberg's start and end marks, the marks included."""
    marks = [
        (index, bool(_GUTENBERG_START.fullmatch(line.body)))
        for index, line in enumerate(lines)
        if _GUTENBERG_START.fullmatch(line.body) or _GUTENBERG_END.fullmatch(line.body)
    ]
    if not marks:
        return
    begin: int | None = None if marks[0][1] else 0
    at = 0
    for index, starts in marks:
        if starts and begin is None:
            begin = _mark_end(lines, index) + 1
            drop(lines[at:begin], "Project Gutenberg header")
        elif not starts and begin is not None:
            at, begin = index, None
    if begin is None:
        drop(lines[at:], "Project Gutenberg licence")


def _mark_end(lines: Sequence[Line], index: int) -> int:
    """Return the line in which a mark `*** START ... ***` ends; a long title breaks it."""
    for last in range(index, min(index + 4, len(lines))):
        if lines[last].body.endswith("*"):
            return last
    return index


def _bracketed(lines: Sequence[Line], drop: _Drop) -> None:
    """Drop marks for pictures and transcriber's notes that fill whole lines."""
    for index, line in enumerate(lines):
        if _PICTURE.fullmatch(line.body):
            drop([line], "picture")
        for pattern, reason in ((_PICTURE_START, "picture"), (_NOTE_START, "transcriber's note")):
            if not pattern.fullmatch(line.body):
                continue
            last = next(
                (n for n in range(index, min(index + 30, len(lines))) if "]" in lines[n].body),
                index,
            )
            if lines[last].body.endswith("]") and lines[last].body.count("]") == 1:
                drop(lines[index : last + 1], reason)


def _pages(lines: Sequence[Line], drop: _Drop) -> None:
    """Drop page numbers that rise by one or two through the file, and the running heads beside them."""
    full = [line for line in lines if line.body]
    words = 0
    run: list[tuple[int, int, int]] = []
    runs = [run]
    for index, line in enumerate(full):
        words += len(line.body.split())
        value = _page_value(line.body)
        if value is None:
            continue
        if run and not 0 < value - run[-1][0] <= 2:
            run = []
            runs.append(run)
        run.append((value, index, words))
    pages = [item for items in runs if _is_paging(items, full) for item in items]
    drop([full[index] for _, index, _ in pages], "page number")
    _running_heads(full, {index for _, index, _ in pages}, drop)
    _numbered_heads(full, drop)


def _page_value(body: str) -> int | None:
    match = _PAGE.fullmatch(body) if len(body) <= 14 else None
    if not match:
        return None
    return int(match[2]) if match[2] else roman(match[3].upper())


def _is_paging(run: Sequence[tuple[int, int, int]], full: Sequence[Line]) -> bool:
    """Tell numbers of pages from those of chapters or a list: some tear sentences, or are dressed."""
    dressed = sum(not full[index].body.rstrip(".").isalnum() for _, index, _ in run)
    return _is_close(run) and (_tears(run, full) or dressed >= 0.8 * len(run))


def _is_close(run: Sequence[tuple[int, int, int]]) -> bool:
    """Tell whether as many words lie between the numbers as fit on a page."""
    if len(run) < _LEAST_PAGES:
        return False
    return 40 <= median(after[2] - before[2] for before, after in pairwise(run)) <= 900


def _tears(run: Sequence[tuple[int, int, int]], full: Sequence[Line]) -> bool:
    torn = sum(index > 0 and not ends_sentence(full[index - 1].body) for _, index, _ in run)
    return torn >= 0.2 * len(run)


def _running_heads(full: Sequence[Line], pages: set[int], drop: _Drop) -> None:
    """Drop titles that stand beside many page numbers."""
    beside = {
        near
        for page in pages
        for near in (page - 1, page + 1)
        if 0 <= near < len(full) and is_title(full[near].body)
    }
    counted = Counter(full[index].body for index in beside)
    drop(
        [full[index] for index in beside if counted[full[index].body] >= _LEAST_HEADS],
        "running head",
    )


def _numbered_heads(full: Sequence[Line], drop: _Drop) -> None:
    """Drop lines that repeat with a page number that rises: `THE MONK   17`."""
    runs: dict[str, list[tuple[int, int, int]]] = {}
    words = 0
    for index, line in enumerate(full):
        words += len(line.body.split())
        match = _HEAD.fullmatch(line.body)
        if match and bool(match[1]) != bool(match[3]) and not is_strong_heading(line.body):
            value = int(match[1] or match[3])
            runs.setdefault(match[2].strip(), []).append((value, index, words))
    for run in runs.values():
        rising = all(0 < after[0] - before[0] <= 4 for before, after in pairwise(run))
        if rising and _is_close(run) and _tears(run, full):
            drop([full[index] for _, index, _ in run], "running head")


def _front(lines: Sequence[Line], layout: Layout, drop: _Drop) -> None:
    """Drop what stands before the first chapter and is no prose."""
    full = [line for line in lines if line.body]
    matter = _yaml(full)
    drop(full[:matter], "YAML front matter")
    full = full[matter:]
    _credits(lines, full[:_FRONT_LINES], drop)
    begin, end = _contents(full, layout)
    drop(full[begin:end], CONTENTS)
    _title_page(full[: begin or len(full)], followed=end > begin, layout=layout, drop=drop)


def _yaml(full: Sequence[Line]) -> int:
    if not full or full[0].number != 1 or full[0].body != "---":
        return 0
    close = next((n for n, line in enumerate(full[1:50], 1) if line.body in ("---", "...")), 0)
    keyed = all(re.match(r"[\w-]+:|[-#\s]", line.body) or line.indent for line in full[1:close])
    return close + 1 if close and keyed else 0


def _credits(lines: Sequence[Line], front: Sequence[Line], drop: _Drop) -> None:
    """Drop `Produced by ...` up to the next empty line, where there is one soon."""
    for line in front:
        if not _CREDIT.fullmatch(line.body):
            continue
        at = next(n for n, other in enumerate(lines) if other.number == line.number)
        end = next((n for n in range(at, min(at + 9, len(lines))) if not lines[n].body), at + 1)
        drop(lines[at:end], "transcriber's note")


def _is_prose(line: Line, layout: Layout) -> bool:
    if is_capitals(line.body) or _ENTRY.fullmatch(line.body):
        return False
    return len(line.body) > (0.8 * layout.width if layout.wrapped else 160)


def _first_prose(full: Sequence[Line], layout: Layout, start: int) -> int:
    """Return where lines of prose begin, from `start` on."""
    needed = _PROSE_LINES if layout.wrapped else 1
    run = 0
    for index in range(start, len(full)):
        run = run + 1 if _is_prose(full[index], layout) else 0
        if run == needed:
            return index - needed + 1
    return len(full)


def _contents(full: Sequence[Line], layout: Layout) -> tuple[int, int]:
    """Return the range of the table of contents, empty if there is none.

    It ends where its first entry comes again as a heading, or after its last numbered entry.
    """
    begin = next(
        (n for n, line in enumerate(full[:120]) if _CONTENTS_LINE.fullmatch(line.body)), None
    )
    if begin is None:
        return 0, 0
    first = begin + 1
    while first < len(full) and full[first].body.strip(".:").lower() in ("chapter", "page", "chap"):
        first += 1
    prose = min(_first_prose(full, layout, first), first + _CONTENTS_LINES)
    if first >= len(full):
        return begin, len(full)
    key = key_of(full[first].body) or full[first].body.lower()
    again = next(
        (
            n
            for n in range(first + 1, min(prose + 1, len(full)))
            if (key_of(full[n].body) or full[n].body.lower()) == key
        ),
        None,
    )
    if again is not None:
        while again - 1 > first and _heads(full[again - 1].body, full[first].body):
            again -= 1
        return begin, again
    while prose - 1 > first and is_strong_heading(full[prose - 1].body):
        prose -= 1
    entries = [n for n in range(first, prose) if _ENTRY.fullmatch(full[n].body)]
    return (begin, entries[-1] + 1) if len(entries) >= 3 else (0, 0)


def _heads(body: str, entry: str) -> bool:
    """Tell a chapter's number above the title that the first entry of the contents names."""
    if not is_strong_heading(body):
        return False
    return not is_strong_heading(entry) or entry.lower().startswith(body.lower().rstrip(".: "))


def _title_page(full: Sequence[Line], *, followed: bool, layout: Layout, drop: _Drop) -> None:
    """Drop title, author, imprint and dedication, where the file begins with them.

    Lines count only if one of them is an imprint, or a heading or the contents follow at once.
    """
    end = 0
    while end < min(len(full), _FRONT_LINES) and _is_titular(full, end, layout):
        end += 1
    page = list(full[:end])
    opens = followed and end == len(full)
    opens = opens or (end < len(full) and is_strong_heading(full[end].body))
    if any(_IMPRINT.fullmatch(line.body) for line in page) or (opens and page):
        if not opens and end < len(full) and is_capitals(page[-1].body):
            page = page[:-1]  # it heads the prose that follows
        drop(page, "title page")


def _is_titular(full: Sequence[Line], index: int, layout: Layout) -> bool:
    body = full[index].body
    if len(body) > max(80, layout.width) or is_strong_heading(body):
        return False
    if _IMPRINT.fullmatch(body) or is_title(body.rstrip(",;:")):
        return not body.startswith(('"', "“", "'"))
    if _DEDICATION.fullmatch(body):
        following = [line.body for line in full[index + 1 : index + 4]]
        return any(is_strong_heading(other) for other in following)
    before = full[index - 1].body if index else ""
    runs_on = body[:1].islower() or body[:1].isdigit()
    return runs_on and bool(_IMPRINT.fullmatch(before) or _DEDICATION.fullmatch(before))
