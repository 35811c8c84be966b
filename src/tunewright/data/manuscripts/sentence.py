"""Where the sentences of a paragraph end. Pure.

The rules are cautious: where a full stop may be an abbreviation's, the sentence goes on.
"""

import re
from itertools import pairwise


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_END = re.compile(r"[.!?…]+[\"'”’»)\]_*]*(?=\s)|[。\uff01\uff1f]+[」』”’\uff09]*")
_OPENERS = "\"'“‘«([_*¿¡—–-"
_QUOTES = "\"'”’»"
_WORD = re.compile(r"[^\W_](?:[\w.&'’-]*\w)?$")
_NEXT_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_NEVER = _set(
    "mr mrs ms dr st prof capt col gen lt lieut sgt serj maj adm rev revd hon messrs mme mlle mdlle mons "
    "sr sra mgr rt ven vs viz cf wm geo chas thos jas jno robt edw benj alex sam fredk e.g i.e"
)
_BEFORE_NUMBER = _set(
    "no nos vol vols ch chap chaps p pp fig art sec bk pt ver jan feb aug sept oct nov dec"
)
_SOMETIMES = _set("etc &c c esq co jr inc ltd bros p.m a.m ed bart")
_STARTERS = _set(
    "he she it they we you the this that these those there then but and in on at when his her my our their "
    "what who how so for if as yes not now one all after with from"
)
_NUMBERS = re.compile(r"\d|[IVXLC]+\b")
_SPEECH = re.compile(
    r"(?:I|(?:(?:Mr|Mrs|Dr)\.?\s|Miss\s|Lady\s|Lord\s|Sir\s|Captain\s|Aunt\s|Uncle\s)?[A-Z][\w'’-]*"
    r"(?:\s[A-Z][\w'’-]*)?)\s+(?:\w+ly\s+)?(?:said|says|asked|cried|replied|answered|exclaimed|shouted"
    r"|whispered|called|muttered|murmured|returned|added|repeated|inquired|thought|continued|began|went on"
    r"|ejaculated|demanded|observed|remarked|screamed|sighed|told)\b"
)
_REACH = 2000
"""Characters around a place in which a bracket must close for the place to count as inside it."""


def ends(text: str) -> list[tuple[int, bool]]:
    """Return the offset after each sentence but the last, and whether it lies inside a quotation."""
    found: list[tuple[int, bool]] = []
    start = at = depth = 0
    for match in _END.finditer(text):
        depth += _opened(text[at : match.end()])
        at = match.end()
        if _is_end(text, match, start):
            found.append((at, depth % 2 == 1))
            start = at
    return found


def spans(text: str) -> list[tuple[int, int, bool]]:
    """Return (start, end, whether the pause before it is inside a quotation) of each sentence."""
    borders = [(0, False), *ends(text), (len(text), False)]
    found: list[tuple[int, int, bool]] = []
    for (first, quoted), (last, _) in pairwise(borders):
        part = text[first:last]
        start = first + len(part) - len(part.lstrip())
        end = last - (len(part) - len(part.rstrip()))
        if start < end:
            found.append((start, end, quoted))
    return found


def _opened(text: str) -> int:
    """Return how many double quotation marks change the state."""
    return text.count('"') + text.count("“") + text.count("”")


def _is_end(text: str, match: re.Match[str], start: int) -> bool:
    marks = match[0].rstrip("\"'”’»)]_*」』\uff09")
    closers = match[0][len(marks) :]
    after = text[match.end() : match.end() + 120].lstrip()
    rest = after.lstrip(_OPENERS + " ")
    if not rest[:1].isalnum() or rest[:1].islower() or _in_brackets(text, match.end()):
        return False
    if marks[0] in "。\uff01\uff1f":
        return True
    if any(c in _QUOTES for c in closers):
        return marks[-1] not in "!?…" or not _SPEECH.match(rest)
    before = text[max(start, match.start() - 60) : match.start()]
    if marks != ".":
        dots = set(marks) <= {".", "…"}
        return not dots or _ellipsis_ends(before, rest)
    if before.rstrip().endswith("."):
        return _ellipsis_ends(before, rest)
    return closers != "" or not _is_abbreviation(
        before, rest, first=start == match.start() - len(before)
    )


def _ellipsis_ends(before: str, rest: str) -> bool:
    """Tell an ellipsis at a sentence's end from a pause: 'I... I', 'John... John'."""
    last = re.findall(r"\w+", before)[-1:]
    following = _NEXT_WORD.match(rest)
    word = following[0] if following else ""
    return word != "I" and not word.startswith("I'") and [word] != last


def _is_abbreviation(before: str, rest: str, *, first: bool) -> bool:
    """Tell whether the full stop after `before` belongs to an abbreviation, initial or number."""
    found = _WORD.search(before)
    if not found:
        return False
    word, low = found[0], found[0].lower()
    following = _NEXT_WORD.match(rest)
    starter = following is not None and following[0].lower() in _STARTERS
    if first and not before[: found.start()].strip() and re.fullmatch(r"\d+|[IVXLC]+", word):
        return True
    if low in _BEFORE_NUMBER:
        return bool(_NUMBERS.match(rest))
    if len(word) == 1 and word.isalpha():
        return not _letter_ends(word, before[: found.start()], starter=starter)
    return low in _NEVER or (not starter and (low in _SOMETIMES or _is_dotted(word)))


def _is_dotted(word: str) -> bool:
    return bool(re.fullmatch(r"(?:\w\.)+\w", word))


def _letter_ends(letter: str, before: str, *, starter: bool) -> bool:
    """Tell the pronoun I, or a letter used as a word, at a sentence's end from an initial."""
    previous = re.findall(r"[\w.]+", before)[-1:]
    small = bool(previous) and previous[0].islower()
    return small and (letter == "I" or starter)


def _in_brackets(text: str, at: int) -> bool:
    low = max(0, at - _REACH)
    for opening, closing in ("()", "[]"):
        if text.rfind(opening, low, at) > text.rfind(closing, low, at):
            shut = text.find(closing, at, at + _REACH)
            again = text.find(opening, at, at + _REACH)
            if shut >= 0 and (again < 0 or shut < again):
                return True
    return False
