"""Manuscript text to chunks of a token window, cut where a reader would pause. Pure.

Every position is a character offset in the text given. A chunk ends at a chapter, else a scene, else a
paragraph, else a sentence; never inside a sentence.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

CHAPTER, SCENE, PARAGRAPH, SENTENCE = 3, 2, 1, 0
CountTokens = Callable[[Sequence[str]], Sequence[int]]

_NUMBER = (
    r"(?:[IVXLCDM]+|[ivxlcdm]+|\d+|(?i:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|first"
    r"|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last))"
)
_HEADING = re.compile(
    r"#{1,6}\s.*|(?i:chapter|part|book|letter|volume|canto|act)\s+(?:(?i:the)\s+)?"
    + _NUMBER
    + r"\b(?:[\s.:—-].{0,80})?"
)
_SCENE = re.compile(r"\s*(?:[*#~•⁂—-]\s*){1,}$")
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s+[\"'“‘(\[—-]*[A-Z0-9])")
_CLOSERS = ".!?\"'”’:)-—"
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|Capt|Col|Gen|Rev|Hon|Esq|Messrs|Mme|Mlle|vs|etc|e\.g|i\.e|No|[A-Z])\.$"
)


@dataclass(frozen=True)
class Sentence:
    """A sentence and how strong the pause before it is.

    Attributes:
        start: Offset of its first character.
        end: Offset after its last character.
        level: CHAPTER, SCENE, PARAGRAPH or SENTENCE.
        text: Its words with line breaks as spaces.
    """

    start: int
    end: int
    level: int
    text: str


@dataclass(frozen=True)
class Chunk:
    """A run of whole sentences.

    Attributes:
        start: Offset of its first character.
        end: Offset after its last character.
        section: Number of the chapter it starts in, from 0.
        tokens: Sum of its sentences' token counts.
        text: Paragraphs separated by an empty line.
    """

    start: int
    end: int
    section: int
    tokens: int
    text: str


@dataclass(frozen=True)
class Dropped:
    """A line that is in no chunk: a heading or a scene mark.

    Attributes:
        line: Physical line, from 1.
        text: The line.
    """

    line: int
    text: str


def sentences(text: str) -> tuple[list[Sentence], list[Dropped]]:
    """Return the sentences of a manuscript and the headings and marks between them."""
    found: list[Sentence] = []
    dropped: list[Dropped] = []
    level = CHAPTER
    for first, last, line in _paragraphs(text):
        block = text[first:last]
        if _is_heading(block) or _SCENE.fullmatch(block):
            dropped.append(Dropped(line, block))
            level = max(level, SCENE if _SCENE.fullmatch(block) else CHAPTER)
            continue
        for start, end in _sentence_spans(block):
            words = re.sub(r"\s+", " ", block[start:end])
            found.append(Sentence(first + start, first + end, level, words))
            level = SENTENCE
        level = PARAGRAPH
    return found, dropped


def chunk(
    parts: Sequence[Sentence], count_tokens: CountTokens, *, min_tokens: int, max_tokens: int
) -> list[Chunk]:
    """Return chunks of min_tokens to max_tokens that hold every sentence once, in order.

    A sentence longer than max_tokens is a chunk of its own; a remainder shorter than min_tokens is joined
    to its neighbour where both fit, and stays short where they do not.
    """
    if not parts:
        return []
    counts = list(count_tokens([("\n\n" if s.level >= PARAGRAPH else " ") + s.text for s in parts]))
    cuts = _cuts([s.level for s in parts], counts, min_tokens, max_tokens)
    sections: list[int] = []
    for index, part in enumerate(parts):
        previous = sections[-1] if sections else 0
        sections.append(previous + int(index > 0 and part.level == CHAPTER))
    return [
        Chunk(
            parts[first].start,
            parts[last - 1].end,
            sections[first],
            sum(counts[first:last]),
            _join(parts[first:last]),
        )
        for first, last in pairwise(cuts)
    ]


def _cuts(levels: Sequence[int], counts: Sequence[int], low: int, high: int) -> list[int]:
    """Return the borders of the chunks as indexes of sentences."""
    cuts = [0]
    total = len(counts)
    while cuts[-1] < total:
        first = cuts[-1]
        size, candidates = 0, list[tuple[int, int]]()
        at = first
        while at < total and (size + counts[at] <= high or at == first):
            size += counts[at]
            at += 1
            if size >= low:
                candidates.append((CHAPTER if at == total else levels[at], at))
        rest = sum(counts[at:])
        if at == total:
            at = total
        elif candidates:
            # A remainder that would be too short on its own moves the cut towards the middle.
            if rest < low:
                half = (size + rest) / 2
                candidates = [
                    c for c in candidates if sum(counts[first : c[1]]) <= half
                ] or candidates
            at = max(candidates)[1]
        cuts.append(at)
    return cuts


def _join(parts: Sequence[Sentence]) -> str:
    text = parts[0].text
    for part in parts[1:]:
        text += ("\n\n" if part.level >= PARAGRAPH else " ") + part.text
    return text


def _is_heading(block: str) -> bool:
    """Tell a heading: marked, numbered, or in capitals; dialogue in capitals ends as a sentence does."""
    if "\n" in block or len(block) > 100 or not (block[:1].isupper() or block[:1] == "#"):
        return False
    if _HEADING.fullmatch(block):
        return True
    letters = [c for c in block if c.isalpha()]
    shouted = bool(letters) and all(c.isupper() for c in letters) and len(block) <= 80
    bare = block.rstrip("\"'”’)")
    return shouted and (bare[-1].isalnum() or (bare.endswith(".") and " " in bare))


def _paragraphs(text: str) -> list[tuple[int, int, int]]:
    """Return (start, end, line) of each paragraph.

    A paragraph ends at an empty line. In a file whose lines are not wrapped every line is a paragraph; in
    a wrapped one without empty lines, a short line that ends a sentence ends it too.
    """
    lengths = sorted(len(line) for line in text.split("\n") if line.strip())
    if not lengths:
        return []
    width = lengths[int(len(lengths) * 0.9) - 1] if len(lengths) > 1 else lengths[0]
    wrapped = lengths[-1] < 200 and width > 40
    spaced = len(re.findall(r"\n[ \t]*\n", text)) * 12 > len(lengths)
    found: list[tuple[int, int, int]] = []
    begin: tuple[int, int] | None = None
    at = end = 0
    for number, line in enumerate(text.split("\n"), 1):
        body = line.strip()
        # In wrapped text a line that looks like a heading may be the middle of a sentence.
        heading = _is_heading(body) and (begin is None or not wrapped)
        alone = heading or bool(_SCENE.fullmatch(body))
        if begin is not None and (not body or alone):
            found.append((begin[0], end, begin[1]))
            begin = None
        if body:
            begin = begin or (at + line.index(body), number)
            end = at + len(line.rstrip())
            short = not spaced and len(body) < 0.8 * width and body[-1] in _CLOSERS
            if alone or not wrapped or short:
                found.append((begin[0], end, begin[1]))
                begin = None
        at += len(line) + 1
    return [*found, (begin[0], end, begin[1])] if begin else found


def _sentence_spans(block: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(block):
        if _ABBREVIATION.search(block[start : match.end()]):
            continue
        spans.append((start, match.end()))
        start = match.end() + len(block[match.end() :]) - len(block[match.end() :].lstrip())
    if start < len(block):
        spans.append((start, len(block)))
    return spans
