"""What of the training text comes back word for word."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tunewright.evaluate.style import normalise, spans_of, words_of

GRAM_WORDS = 8


@dataclass(frozen=True)
class Copy:
    """A run of words that a text shares with a training text.

    Attributes:
        words: Its length.
        text: As `normalise` spells it.
        source: Name of the training text; empty if there is no copy.
        index: Which of the texts has it.
    """

    words: int
    text: str
    source: str
    index: int


@dataclass(frozen=True)
class Span:
    """A copied part of a text.

    Attributes:
        words: Its length.
        start: Where it begins in the text as given, in characters.
        end: Where it has ended.
        source: Name of a training text that has it.
    """

    words: int
    start: int
    end: int
    source: str


@dataclass(frozen=True)
class Overlap:
    """What texts share with the training text.

    Attributes:
        longest: The longest copy.
        runs: Words of the longest copy in each text.
        spans: Each text's copied parts of GRAM_WORDS words and more, in order, none overlapping.
        shares: Share of each text's 8-grams that the training text has; 0 for a shorter text.
        share: The same over all texts together.
        grams: Number of 8-grams in all texts together.
    """

    longest: Copy
    runs: tuple[int, ...]
    spans: tuple[tuple[Span, ...], ...]
    shares: tuple[float, ...]
    share: float
    grams: int


def overlap(texts: Sequence[str], training: Iterable[tuple[str, str]]) -> Overlap:
    """Return what `texts` share word for word with `training`, given as (source, text).

    Case and punctuation do not count. Exact, and linear in the training text: the texts become a
    suffix automaton, through which the training text is read once.

    Source: Blumer et al., The smallest automaton recognizing the subwords of a text, 1985; matching
    statistics after Chang and Lawler, Sublinear approximate string matching, 1994.
    """
    numbers: dict[str, int] = {}
    sequences = [[numbers.setdefault(w, len(numbers)) for w in words_of(text)] for text in texts]
    automaton = _Automaton()
    ends: list[list[int]] = []
    for index, sequence in enumerate(sequences):
        ends.append([automaton.append(number) for number in sequence])
        automaton.append(-1 - index)
    sources: list[str] = []
    for source, text in training:
        automaton.read(
            [numbers.get(word, -1 - len(texts)) for word in words_of(text)], len(sources)
        )
        sources.append(source)
    matched = automaton.matched()
    matches = [[matched[state] for state in states] for states in ends]
    found = [sum(words >= GRAM_WORDS for words, _ in row) for row in matches]
    totals = [max(0, len(row) - GRAM_WORDS + 1) for row in matches]
    return Overlap(
        longest=_longest(texts, matches, sources),
        runs=tuple(max((words for words, _ in row), default=0) for row in matches),
        spans=tuple(_spans(text, row, sources) for text, row in zip(texts, matches, strict=True)),
        shares=tuple(n / total if total else 0.0 for n, total in zip(found, totals, strict=True)),
        share=sum(found) / sum(totals) if sum(totals) else 0.0,
        grams=sum(totals),
    )


def is_copied(overlap: Overlap, index: int, longest_allowed: int) -> bool:
    """Return whether one of the texts is a copy: a long run, or more than half of its 8-grams."""
    return overlap.runs[index] > longest_allowed or overlap.shares[index] > 0.5


def _longest(
    texts: Sequence[str], matches: Sequence[Sequence[tuple[int, int]]], sources: Sequence[str]
) -> Copy:
    best, index, at = 0, 0, 0
    for number, row in enumerate(matches):
        for position, (words, _) in enumerate(row):
            if words > best:
                best, index, at = words, number, position
    if not best:
        return Copy(0, "", "", 0)
    spans = spans_of(texts[index])
    text = texts[index][spans[at - best + 1][0] : spans[at][1]]
    return Copy(best, normalise(text), sources[matches[index][at][1]], index)


def _spans(
    text: str, matches: Sequence[tuple[int, int]], sources: Sequence[str]
) -> tuple[Span, ...]:
    """Return a text's copied parts; `matches` are words and source of the copy ending at each word.

    Of overlapping copies the longest is whole. What it leaves of another is a copy too, and counts
    if it still has GRAM_WORDS words. No copy lies within another, so what is left is in one piece.
    """
    following = [words for words, _ in matches[1:]] + [0]
    whole = [
        (words, at, source)
        for at, (words, source) in enumerate(matches)
        if words >= GRAM_WORDS and following[at] <= words
    ]
    if not whole:
        return ()
    places = spans_of(text)
    taken: set[int] = set()
    result: list[Span] = []
    for words, last, source in sorted(whole, key=lambda copy: -copy[0]):
        left = [at for at in range(last - words + 1, last + 1) if at not in taken]
        if len(left) >= GRAM_WORDS:
            taken.update(left)
            start, end = places[left[0]][0], places[left[-1]][1]
            result.append(Span(len(left), start, end, sources[source]))
    return tuple(sorted(result, key=lambda span: span.start))


@dataclass
class _Automaton:
    """Suffix automaton; `best` holds the longest match read so far that ends in each state."""

    length: list[int] = field(default_factory=lambda: [0])
    link: list[int] = field(default_factory=lambda: [-1])
    after: list[dict[int, int]] = field(default_factory=lambda: [{}])
    last: int = 0
    best: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def append(self, symbol: int) -> int:
        """Lengthen the text by a symbol; return the state of the whole text so far."""
        state = self._state(self.length[self.last] + 1, {})
        before, self.last = self.last, state
        while before >= 0 and symbol not in self.after[before]:
            self.after[before][symbol] = state
            before = self.link[before]
        if before < 0:
            self.link[state] = 0
            return state
        target = self.after[before][symbol]
        if self.length[target] == self.length[before] + 1:
            self.link[state] = target
            return state
        clone = self._state(self.length[before] + 1, dict(self.after[target]))
        self.link[clone] = self.link[target]
        self.link[target] = self.link[state] = clone
        while before >= 0 and self.after[before].get(symbol) == target:
            self.after[before][symbol] = clone
            before = self.link[before]
        return state

    def read(self, symbols: Iterable[int], source: int) -> None:
        """Remember for every state the longest match with a training text."""
        after, link, length, best = self.after, self.link, self.length, self.best
        state = matched = 0
        for symbol in symbols:
            target = after[state].get(symbol)
            while target is None and state:
                state = link[state]
                matched = length[state]
                target = after[state].get(symbol)
            if target is None:
                continue
            state = target
            matched += 1
            known = best.get(state)
            if known is None or matched > known[0]:
                best[state] = (matched, source)

    def matched(self) -> list[tuple[int, int]]:
        """Return for every state the longest of its strings' endings that was read, and where."""
        order = sorted(range(1, len(self.length)), key=self.length.__getitem__)
        result = [self.best.get(state, (0, -1)) for state in range(len(self.length))]
        for state in reversed(order):
            above = self.link[state]
            if result[state][0] and above and result[above][0] < self.length[above]:
                result[above] = (self.length[above], result[state][1])
        for state in order:
            if not result[state][0]:
                result[state] = result[self.link[state]]
        return result

    def _state(self, length: int, after: dict[int, int]) -> int:
        self.length.append(length)
        self.link.append(-1)
        self.after.append(after)
        return len(self.length) - 1
