"""Which languages a dataset is written in."""

from collections import Counter
from collections.abc import Sequence

from py3langid import classify

SAMPLE_ROWS = 2000
NO_LANGUAGE = "zxx"
"""ISO 639-3 for text that is in none."""
MIN_LETTERS = 40
"""Texts with fewer are not told apart reliably."""


def languages(texts: Sequence[str]) -> tuple[int, dict[str, float]]:
    """Return how many texts can be told, those of 40 letters or more, and each language's share (ISO 639-1).

    Source: Lui and Baldwin 2012, langid.py: an off-the-shelf language identification tool.
    """
    long = [text for text in texts if sum(map(str.isalpha, text)) >= MIN_LETTERS]
    counts = Counter(str(classify(text)[0]) for text in long)
    del counts[NO_LANGUAGE]
    told = counts.total()
    return told, {name: count / told for name, count in counts.most_common()}
