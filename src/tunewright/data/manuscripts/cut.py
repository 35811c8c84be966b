"""Manuscript text to chunks of a token window, cut where a reader would pause. Pure.

Every position is a character offset in the text given. A chunk ends at a chapter, else a scene, else a
paragraph, else a sentence. It ends inside a sentence only where that sentence alone is longer than the
window, and then the result says so.

Coverage: every character of the source that is no space is in exactly one chunk or in one dropped line,
in the order of the source; `faults` checks it.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from tunewright.counting import counted
from tunewright.data.manuscripts.layout import (
    Block,
    Dropped,
    blocks,
    ends_sentence,
    is_capitals,
    key_of,
    lines_of,
    starts_lower,
)
from tunewright.data.manuscripts.matter import CONTENTS
from tunewright.data.manuscripts.sentence import spans

CLAUSE, OPEN, DOUBTFUL, QUOTED, SENTENCE, PARAGRAPH, SCENE, CHAPTER = range(8)
"""How strong a pause is. CLAUSE: a sentence longer than the window was cut. OPEN: a paragraph ends, its
sentence does not, as before a quotation or in verse. DOUBTFUL: a paragraph ends, its sentence perhaps.
QUOTED: between two sentences of one speech."""
CountTokens = Callable[[Sequence[str]], Sequence[int]]
REASONS = {"heading": "heading", "scene": "scene mark", "end": "end mark"}
_HYPHENATED = re.compile(r"(?<=[^\W\d_]-)\n(?=[^\W\d_])|(?<=\w--)\n(?=\w)|(?<=\w[—–])\n(?=\w)")
_HOW = {
    CLAUSE: "the sentence is longer than the window; it is cut after a clause or a word",
    OPEN: "lines without a full stop are longer than the window; they are cut at a line",
}
_CLEAR_END = re.compile(
    r"(?:[^\W_]{2}|[^\W\d_A-Z][)\"'”’_]*|\w['’-]\w)[.!?。\uff01\uff1f]+[\"'”’»)_]*$"
)
_OPENING = "\"'“‘«"
_CLAUSE_MARKS = re.compile(r"[;:,—][\"'”’)]*(?=\s)|--|[\uff0c、\uff1b\uff1a]")


@dataclass(frozen=True)
class Part:
    """What a sentence has of one physical line.

    Attributes:
        line: Physical line, from 1.
        start: Offset of its first character.
        text: As it stands in the line.
    """

    line: int
    start: int
    text: str


@dataclass(frozen=True)
class Sentence:
    """A sentence and how strong the pause before it is.

    Attributes:
        parts: What it has of each line.
        level: CHAPTER, SCENE, PARAGRAPH, SENTENCE, QUOTED, DOUBTFUL, OPEN or CLAUSE.
        gap: What stands between it and the sentence before: an empty line, a space, or nothing.
        section: Number of the chapter it is in, from 0.
        chapter: Title of that chapter, or nothing.
        text: Its words with line breaks as spaces.
    """

    parts: tuple[Part, ...]
    level: int
    gap: str
    section: int
    chapter: str
    text: str

    @property
    def start(self) -> int:
        """Offset of its first character."""
        return self.parts[0].start

    @property
    def end(self) -> int:
        """Offset after its last character."""
        return self.parts[-1].start + len(self.parts[-1].text)

    @property
    def line(self) -> int:
        """Physical line it starts in, from 1."""
        return self.parts[0].line


@dataclass(frozen=True)
class Chunk:
    """A run of whole sentences.

    Attributes:
        start: Offset of its first character.
        end: Offset after its last character.
        line: Physical line it starts in, from 1.
        section: Number of the chapter it starts in, from 0.
        chapter: Title of that chapter, or nothing.
        tokens: Tokens of its text.
        text: Paragraphs separated by an empty line.
    """

    start: int
    end: int
    line: int
    section: int
    chapter: str
    tokens: int
    text: str


@dataclass(frozen=True)
class Inside:
    """A place where a chunk had to end before its sentence did.

    Attributes:
        line: Physical line of the chunk that goes on with the sentence, from 1.
        how: What was done, in words.
    """

    line: int
    how: str


@dataclass(frozen=True)
class Cut:
    """Chunks in order, and the places where no sentence ends between two of them."""

    chunks: tuple[Chunk, ...]
    inside: tuple[Inside, ...]


def sentences(text: str, dropped: Sequence[Dropped] = ()) -> tuple[list[Sentence], list[Dropped]]:
    """Return the sentences of a manuscript, and all lines that are in none of them.

    Args:
        text: The manuscript with LF line ends.
        dropped: Lines to leave out, as `matter.find_matter` gives them.
    """
    lines = lines_of(text)
    titles = {key_of(item.text) for item in dropped if item.reason == CONTENTS} - {""}
    found: list[Sentence] = []
    left_out = list(dropped)
    heading: list[str] = []
    level, section = CHAPTER, 0
    for block in blocks(lines, {item.line for item in dropped}, titles):
        if block.kind != "text":
            left_out += [Dropped(n.number, n.body, REASONS[block.kind]) for n in block.lines]
            if block.kind == "heading":
                heading = [*(heading if level == CHAPTER else []), block.lines[0].body]
            level = max(level, CHAPTER if block.kind == "heading" else SCENE)
            continue
        section += int(level == CHAPTER and bool(found))
        if level == PARAGRAPH:
            level = _pause_between(found[-1].text, block.lines[0].body)
        found += _of_block(block, level, section, _chapter(heading))
        level = PARAGRAPH
    return found, sorted(left_out, key=lambda item: item.line)


def chunk(
    parts: Sequence[Sentence], count_tokens: CountTokens, *, min_tokens: int, max_tokens: int
) -> Cut:
    """Return chunks of min_tokens to max_tokens that hold every sentence once, in order.

    No chunk has more than max_tokens, counted on its own text. A remainder shorter than min_tokens is
    joined to its neighbour where both fit, and stays short where they do not. A sentence longer than
    max_tokens is cut after its last `;`, `:`, `,` or dash that fits, else after a word, else anywhere.
    """
    if not parts:
        return Cut((), ())
    pieces, counts = _fitting(parts, count_tokens, max_tokens)
    places = _Places(
        levels=[piece.level for piece in pieces],
        sums=[0, *accumulate(counts)],
        rests=_rests([piece.level for piece in pieces], counts),
    )
    chunks: list[Chunk] = []
    inside: list[Inside] = []
    first = 0
    while first < len(pieces):
        for last in _candidates(places, first, min_tokens, max_tokens):
            text = _join(pieces[first:last])
            tokens = count_tokens([text])[0]
            if tokens <= max_tokens or last == first + 1:
                chunks.append(_chunk(pieces[first], pieces[last - 1], tokens, text))
                if last < len(pieces) and pieces[last].level <= OPEN:
                    inside.append(Inside(pieces[last].line, _HOW[pieces[last].level]))
                first = last
                break
    return Cut(tuple(chunks), tuple(inside))


def faults(text: str, chunks: Iterable[Chunk], dropped: Iterable[Dropped]) -> list[str]:
    """Return what is lost, doubled or out of place; nothing if each character is accounted for.

    A character that is no space must be in exactly one chunk or dropped line, a chunk's text must be
    what stands between its start and end, and a dropped line must be that line.
    """
    left_out = {item.line: item.text for item in dropped}
    found: list[str] = []
    kept: list[str] = []
    starts: list[int] = []
    for line in lines_of(text):
        if line.number not in left_out:
            kept.append(_squeeze(line.body))
            starts.append(line.start)
        elif left_out[line.number] != line.body:
            found.append(f"line {line.number}: dropped as '{left_out[line.number][:40]}'")
    offsets = [0, *accumulate(map(len, kept))]
    whole = "".join(kept)
    at = 0
    for number, item in enumerate(chunks):
        own = _squeeze(item.text)
        first = bisect_right(starts, item.start) - 1
        begins = offsets[first] + len(_squeeze(text[starts[first] : item.start]))
        if begins != at or whole[at : at + len(own)] != own:
            found.append(f"chunk {number}, line {item.line}: differs from the source")
        at += len(own)
    if at != len(whole):
        found.append(
            f"{counted(len(whole) - at, 'character of the source is', 'characters of the source are')} in no chunk"
        )
    return found


@dataclass(frozen=True)
class _Places:
    """Pauses as lists: level before each piece, tokens before it, tokens from it to its chapter's end."""

    levels: Sequence[int]
    sums: Sequence[int]
    rests: Sequence[int]


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _chapter(heading: Sequence[str]) -> str:
    return " / ".join(line.lstrip("#").strip(" _*") for line in heading)


def _pause_between(before: str, after: str) -> int:
    """Return how strong the pause between two paragraphs is: OPEN, DOUBTFUL or PARAGRAPH."""
    if starts_lower(after) or not (ends_sentence(before) or is_capitals(before)):
        return OPEN
    plain = after[0].isupper() or after[0] in _OPENING or after[0].isalpha()
    return PARAGRAPH if plain and _CLEAR_END.search(before) else DOUBTFUL


def _of_block(block: Block, level: int, section: int, chapter: str) -> list[Sentence]:
    """Return the sentences of a paragraph, whose lines may lie apart where a line was left out."""
    whole = [Part(line.number, line.start, line.body) for line in block.lines]
    body = "\n".join(part.text for part in whole)
    found: list[Sentence] = []
    for start, end, quoted in spans(body):
        gap = "\n\n"
        if found:
            level = QUOTED if quoted else SENTENCE
            gap = " " if body[start - 1].isspace() else ""
        words = _words(body[start:end])
        found.append(Sentence(_slice(whole, start, end), level, gap, section, chapter, words))
    return found


def _slice(parts: Sequence[Part], start: int, end: int) -> tuple[Part, ...]:
    """Return a range of the parts' text, joined by line ends, as parts; empty ones are left out."""
    found: list[Part] = []
    at = 0
    for part in parts:
        low, high = max(start - at, 0), min(end - at, len(part.text))
        if low < high:
            found.append(Part(part.line, part.start + low, part.text[low:high]))
        at += len(part.text) + 1
        if at >= end:
            break
    return tuple(found)


def _words(text: str) -> str:
    joined = _HYPHENATED.sub("", text) if "\n" in text else text
    return " ".join(joined.split())


def _join(pieces: Sequence[Sentence]) -> str:
    return pieces[0].text + "".join(piece.gap + piece.text for piece in pieces[1:])


def _chunk(first: Sentence, last: Sentence, tokens: int, text: str) -> Chunk:
    return Chunk(first.start, last.end, first.line, first.section, first.chapter, tokens, text)


def _rests(levels: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Return the tokens from each pause to the next chapter; none where a chapter begins."""
    rests = [0] * (len(levels) + 1)
    for index in range(len(levels) - 1, -1, -1):
        rests[index] = 0 if levels[index] == CHAPTER else rests[index + 1] + counts[index]
        if index + 1 < len(levels) and levels[index + 1] == CHAPTER and levels[index] != CHAPTER:
            rests[index] = counts[index]
    return rests


def _candidates(places: _Places, first: int, low: int, high: int) -> list[int]:
    """Return where a chunk that begins at `first` may end, best first; the last always fits.

    A good place is no OPEN or CLAUSE, leaves a chunk of at least `low`, and leaves a chapter's or the
    file's remainder of at least `low`; of those the strongest pause, then the longest chunk.
    """
    sums, total = places.sums, len(places.levels)
    top = max(bisect_right(sums, sums[first] + high) - 1, first + 1)

    def worth(last: int) -> tuple[bool, bool, bool, int, int]:
        size = sums[last] - sums[first]
        level = CHAPTER if last == total else places.levels[last]
        enough = size >= low
        lonely = 0 < places.rests[last] < low or 0 < sums[total] - sums[last] < low
        return level > OPEN, enough, not lonely, level if enough else 0, size

    ends = sorted(range(first + 1, top + 1), key=worth, reverse=True)
    return [*ends, first + 1]


def _fitting(
    whole: Sequence[Sentence], count_tokens: CountTokens, limit: int
) -> tuple[list[Sentence], list[int]]:
    """Return the sentences, those longer than the limit cut into pieces, and the tokens each adds."""
    found: list[Sentence] = []
    counts: list[int] = []
    added = count_tokens([sentence.gap + sentence.text for sentence in whole])
    for sentence, tokens in zip(whole, added, strict=True):
        # Without the gap the first token may be another, so that near the limit the sentence itself counts.
        if 2 * tokens <= limit or count_tokens([sentence.text])[0] <= limit:
            found.append(sentence)
            counts.append(tokens)
        else:
            pieces = _pieces(sentence, count_tokens, limit)
            found += pieces
            counts += count_tokens([piece.gap + piece.text for piece in pieces])
    return found, counts


def _pieces(sentence: Sentence, count_tokens: CountTokens, limit: int) -> list[Sentence]:
    """Return a sentence in pieces of at most the limit."""
    body = "\n".join(part.text for part in sentence.parts)
    found: list[Sentence] = []
    at = 0
    while at < len(body):
        size = _pause(body, at, _prefix(body, at, count_tokens, limit))
        level, gap = (CLAUSE, "") if found else (sentence.level, sentence.gap)
        if found and body[at - 1].isspace():
            gap = " "
        words = _words(body[at : at + size])
        parts = _slice(sentence.parts, at, at + size)
        found.append(replace(sentence, parts=parts, level=level, gap=gap, text=words))
        at += size
        at += len(body[at:]) - len(body[at:].lstrip())
    return found


def _prefix(body: str, at: int, count_tokens: CountTokens, limit: int) -> int:
    """Return how many characters from `at` on fit into the limit, at least one."""

    def fits(size: int) -> bool:
        return count_tokens([_words(body[at : at + size])])[0] <= limit

    low, high = 1, min(limit, len(body) - at)
    while fits(high) and high < len(body) - at:
        low, high = high, min(2 * high, len(body) - at)
    if fits(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _pause(body: str, at: int, size: int) -> int:
    """Return the length of a piece of at most `size` that ends at a clause mark, else after a word."""
    if at + size == len(body):
        return size
    half = size // 2
    clauses = [m.end() - at for m in _CLAUSE_MARKS.finditer(body, at + half, at + size + 1)]
    words = [m.start() - at for m in re.compile(r"\s").finditer(body, at + half, at + size + 1)]
    fitting = [end for end in clauses if end <= size] or [end for end in words if end <= size]
    return fitting[-1] if fitting else size
