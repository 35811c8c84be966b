"""A text's countable habits: words, letters, punctuation, sentence rhythm, speech, vocabulary."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log

FUNCTION_WORDS: tuple[str, ...] = tuple(
    """
    a about above after again against all almost along already also although always am among an and
    another any anything are around as at away be because been before behind being below between both
    but by can cannot could did do does done down each either else enough even ever every everything
    few for from had has have having he her here hers herself him himself his how however i if in
    indeed instead into is it its itself just less many may me might mine more most much must my myself
    neither never no none nor not nothing now of off often on once one only or other our ourselves out
    over own perhaps quite rather same shall she should since so some something sometimes soon still
    such than that the their them themselves then there therefore these they this those though through
    thus to together too toward towards under until up upon us very was we well were what whatever when
    where whether which while who whom whose why will with within without would yet you your yours
    yourself
    """.split()  # noqa: SIM905 - a list of 170 string literals would fill a page
)
MARKS = (".", ",", ";", ":", "!", "?", "—", "…", "(", '"', "-")
SHORT_SENTENCE_WORDS = 5
WINDOW_WORDS = 30

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_APOSTROPHES = "\u2018\u2019\u02bc"
_UNSEEN = "_*\u00ad"
_FUNCTION_WORDS = frozenset(FUNCTION_WORDS)
_STOP = re.compile(r"[.!?…]+[\"')\]]*(?=\s|$)|\n[^\S\n]*(?=\n)")
_NEXT = re.compile(r"\s*(\S)")
_ABBREVIATION = re.compile(
    r"(?:^|\W)(?:mr|mrs|ms|dr|st|prof|rev|hon|capt|col|gen|esq|vs|etc|[a-z])$", re.IGNORECASE
)
_CONTRACTION = re.compile(
    r"n't$|'(?:ll|re|ve|m|d)$|^(?:it|that|he|she|there|here|what|who|where|how|let)'s$"
)
_SINGLE_QUOTED = re.compile(r"(?<!\w)'(?=\w)(.+?[,.!?—…])'(?!\w)", re.DOTALL)
_TYPOGRAPHY = {
    re.compile(f"[{_APOSTROPHES}]"): "'",
    re.compile("[“”„«»]"): '"',
    re.compile(r"\s*(?:--+|—)\s*|\s[–-]\s"): "—",
    re.compile(r"\.{3,}|(?:\. ){2,}\."): "…",
    re.compile(f"[{_UNSEEN}]"): "",
    re.compile("\r\n?"): "\n",
}
# All of the typography that reaches into words; the rest lies between them.
_IN_WORDS = str.maketrans(_APOSTROPHES, "'" * len(_APOSTROPHES), _UNSEEN)
_RAW_WORD = re.compile(
    rf"[^\W_{_APOSTROPHES}]+"
    rf"(?:(?:[{_UNSEEN}]+(?:['{_APOSTROPHES}][{_UNSEEN}]*)?|['{_APOSTROPHES}][{_UNSEEN}]*)"
    rf"[^\W_{_APOSTROPHES}]+)*"
)


@dataclass(frozen=True)
class Counts:
    """What is counted in one passage; a pooled text is the sum of its passages.

    Attributes:
        words: Number of words.
        letters: Number of characters in words.
        characters: Number of characters, runs of white space as one.
        functions: Function word to count.
        grams: Character 3-gram to count; names (capitalised words) are replaced by one sign.
        marks: Punctuation mark to count.
        sentences: Words of each complete sentence (of the fragment, if there is no complete one).
        quoted: Words in quotation marks.
        contractions: Words such as "don't".
        windows: Number of windows of WINDOW_WORDS words.
        window_ratios: Sum of distinct words / words over these windows.
    """

    words: int
    letters: int
    characters: int
    functions: Counter[str]
    grams: Counter[str]
    marks: Counter[str]
    sentences: tuple[int, ...]
    quoted: int
    contractions: int
    windows: int
    window_ratios: float

    @property
    def log_lengths(self) -> tuple[float, float]:
        """Sum of the sentences' log lengths, and of their squares."""
        logs = [log(length) for length in self.sentences]
        return sum(logs), sum(x * x for x in logs)

    @property
    def short_sentences(self) -> int:
        """Sentences of fewer than SHORT_SENTENCE_WORDS words."""
        return sum(length < SHORT_SENTENCE_WORDS for length in self.sentences)


def normalise(text: str) -> str:
    """Return the text with one kind of quotation mark, dash and ellipsis: typography is not style."""
    for pattern, plain in _TYPOGRAPHY.items():
        text = pattern.sub(plain, text)
    return text


def words_of(text: str) -> list[str]:
    """Return the text's words in lower case, as `normalise` spells them."""
    return [word.lower() for word in WORD.findall(text.translate(_IN_WORDS))]


def spans_of(text: str) -> list[tuple[int, int]]:
    """Return [start, end) of each of `words_of` in the text as it is given."""
    return [match.span() for match in _RAW_WORD.finditer(text)]


def passages(text: str, length: int) -> list[str]:
    """Return consecutive passages of `length` words, cut as an answer at its token limit is cut.

    Each begins with a sentence. A rest of fewer than half as many words is left out, unless it is all
    there is: a short answer is one passage.
    """
    text = normalise(text)
    words = [match.span() for match in WORD.finditer(text)]
    result: list[str] = []
    at = covered = 0
    for start, _end, _complete in _sentences(text):
        while words[at][0] < start:
            at += 1
        piece = words[at : at + length]
        if start < covered or (result and len(piece) * 2 < length):
            continue
        covered = len(text) if len(words) <= at + length else piece[-1][1]
        result.append(text[start:covered])
    return result


def count(text: str) -> Counts:
    """Return what is counted in a passage."""
    text = normalise(text)
    spoken = WORD.findall(text)
    words = [word.lower() for word in spoken]
    windows, ratios = _window_ratios(words, WINDOW_WORDS)
    return Counts(
        words=len(words),
        letters=sum(map(len, words)),
        characters=len(" ".join(text.split())),
        functions=Counter(word for word in words if word in _FUNCTION_WORDS),
        grams=_grams(text),
        marks=Counter({mark: text.count(mark) for mark in MARKS if mark in text}),
        sentences=_sentence_lengths(text),
        quoted=_quoted(text),
        contractions=sum(bool(_CONTRACTION.search(word)) for word in words if "'" in word),
        windows=windows,
        window_ratios=ratios,
    )


def distinct_share(texts: Sequence[str], n: int = 3) -> float:
    """Return the mean share of distinct word n-grams within a text: 1 where nothing is repeated.

    A text of fewer than n words has nothing to repeat, and is left out.

    Source: Li et al., A diversity-promoting objective function for neural conversation models, 2016.
    """
    shares: list[float] = []
    for text in texts:
        words = words_of(text)
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        if grams:
            shares.append(len(set(grams)) / len(grams))
    return sum(shares) / len(shares) if shares else 1.0


def _window_ratios(words: Sequence[str], window: int) -> tuple[int, float]:
    """Return the number of windows and the sum of their type-token ratios.

    Source: Covington and McFall, Cutting the Gordian knot: the moving-average type-token ratio,
    Journal of Quantitative Linguistics 17, 2010.
    """
    if len(words) < window:
        return 0, 0.0
    inside = Counter(words[:window])
    total = len(inside)
    for leaving, entering in zip(words, words[window:], strict=False):
        inside[leaving] -= 1
        if not inside[leaving]:
            del inside[leaving]
        inside[entering] += 1
        total += len(inside)
    return len(words) - window + 1, total / window


def _sentences(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, end, complete) of the sentences that have words."""
    start = 0
    for stop in _STOP.finditer(text):
        if not _ends_sentence(text, stop):
            continue
        span = _with_words(text, start, stop.end())
        if span:
            yield *span, True
        start = stop.end()
    span = _with_words(text, start, len(text))
    if span:
        yield *span, False


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    if stop.group().startswith("\n"):
        return True
    following = _NEXT.match(text, stop.end())
    if following and following.group(1).islower() and "\n\n" not in following.group():
        return False
    before = text[max(0, stop.start() - 8) : stop.start()]
    at_end = following is None
    return at_end or not (stop.group() == "." and _is_abbreviation(before))


def _is_abbreviation(before: str) -> bool:
    # "I" ends sentences ("So do I."); other single letters are initials.
    return not before.endswith((" I", " i")) and bool(_ABBREVIATION.search(before))


def _with_words(text: str, start: int, end: int) -> tuple[int, int] | None:
    if not WORD.search(text, start, end):
        return None
    while text[start].isspace():
        start += 1
    return start, end


def _sentence_lengths(text: str) -> tuple[int, ...]:
    lengths = [
        (len(WORD.findall(text, start, end)), complete) for start, end, complete in _sentences(text)
    ]
    complete = tuple(length for length, whole in lengths if whole)
    return complete or tuple(length for length, _ in lengths)


def _quoted(text: str) -> int:
    """Return the number of words in quotation marks; one left open ends with its paragraph."""
    total = 0
    for paragraph in re.split(r"\n[^\S\n]*\n", text):
        if '"' in paragraph:
            spoken = paragraph.split('"')[1::2]
        else:
            spoken = _SINGLE_QUOTED.findall(paragraph)
        total += sum(len(WORD.findall(part)) for part in spoken)
    return total


def _grams(text: str) -> Counter[str]:
    # A capitalised word is a name or begins a sentence: names say what a text is about, not how.
    masked = WORD.sub(
        lambda m: (
            m.group() if m.group()[0].islower() or m.group().lower() in _FUNCTION_WORDS else "#"
        ),
        text,
    )
    plain = f" {' '.join(masked.lower().split())} "
    return Counter(
        gram
        for gram in map("".join, zip(plain, plain[1:], plain[2:], strict=False))
        if "#" not in gram
    )
