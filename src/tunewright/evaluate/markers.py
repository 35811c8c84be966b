"""A plain table of style markers: base, tuned, author."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from tunewright.evaluate.style import FUNCTION_WORDS, Counts, count

WORD_MARKERS = 5


@dataclass(frozen=True)
class Marker:
    """One line of the table.

    Attributes:
        marker: What is measured.
        unit: In what.
        base: None where there is nothing to measure.
        tuned: Likewise.
        author: Likewise.
        towards: Whether tuned is closer to the author than base is; None if a value is missing.
    """

    marker: str
    unit: str
    base: float | None
    tuned: float | None
    author: float | None
    towards: bool | None

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return vars(self).copy()


def markers(base: Sequence[str], tuned: Sequence[str], author: Sequence[str]) -> list[Marker]:
    """Return the table; its words are those in which base and author differ most clearly."""
    counts = [_pooled(texts) for texts in (base, tuned, author)]
    rows = [_plain(side) for side in counts]
    table = [_marker(name, unit, [row[name, unit] for row in rows]) for name, unit in rows[0]]
    for word in _distinguishing(counts[0], counts[2]):
        values = [_share(side.functions[word], side.words, 1000) for side in counts]
        table.append(_marker(f"'{word}'", "per 1,000 words", values))
    return table


def _pooled(texts: Sequence[str]) -> Counts:
    """Return what is counted in all of them together."""
    parts = [vars(count(text)) for text in ("", *texts)]
    total = {name: [part[name] for part in parts] for name in parts[0]}
    return Counts(**{name: _sum(values) for name, values in total.items()})


def _sum(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Counter):
        # Adding one to the other would copy all that has been counted, each time.
        whole: Counter[str] = Counter()
        for value in values:
            whole.update(value)
        return whole
    return sum(values, start=type(values[0])())


def _plain(side: Counts) -> dict[tuple[str, str], float | None]:
    n, kilo = len(side.sentences), side.characters / 1000
    per_kilo = "per 1,000 characters"
    return {
        ("sentence length", "words"): _share(sum(side.sentences), n),
        ("sentences under 5 words", "%"): _share(side.short_sentences, n, 100),
        ("commas", per_kilo): _share(side.marks[","], kilo),
        ("semicolons", per_kilo): _share(side.marks[";"], kilo),
        ("dashes", per_kilo): _share(side.marks["—"], kilo),
        ("question and exclamation marks", per_kilo): _share(
            side.marks["?"] + side.marks["!"], kilo
        ),
        ("words in quotation marks", "%"): _share(side.quoted, side.words, 100),
        ("contractions", "per 1,000 words"): _share(side.contractions, side.words, 1000),
        ("word length", "characters"): _share(side.letters, side.words),
        ("distinct words in 30 (MATTR)", "%"): _share(side.window_ratios, side.windows, 100),
    }


def _marker(name: str, unit: str, values: Sequence[float | None]) -> Marker:
    base, tuned, author = (None if v is None else round(v, 2) for v in values)
    towards = (
        None
        if base is None or tuned is None or author is None
        else abs(tuned - author) < abs(base - author)
    )
    return Marker(name, unit, base, tuned, author, towards)


def _share(part: float, whole: float, scale: float = 1) -> float | None:
    return scale * part / whole if whole else None


def _distinguishing(base: Counts, author: Counts) -> list[str]:
    """Return the function words whose frequencies differ most, in standard errors.

    Source: the two-proportion z test.
    """
    if not base.words or not author.words:
        return []
    spread = 1 / base.words + 1 / author.words

    def difference(word: str) -> float:
        a, b = base.functions[word], author.functions[word]
        pooled = (a + b) / (base.words + author.words)
        error = sqrt(pooled * (1 - pooled) * spread)
        return abs(a / base.words - b / author.words) / error if error else 0.0

    return sorted(FUNCTION_WORDS, key=lambda word: (-difference(word), word))[:WORD_MARKERS]
