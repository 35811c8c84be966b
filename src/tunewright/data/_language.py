"""Which languages a dataset is written in."""

from collections import Counter
from collections.abc import Sequence

from py3langid import classify

SAMPLE_ROWS = 2000
MIN_CHARACTERS = 40
"""Shorter texts are not told apart reliably."""


def languages(texts: Sequence[str]) -> dict[str, float]:
    """Return the share of each language (ISO 639-1) among the texts of 40 characters or more.

    Source: Lui and Baldwin 2012, langid.py: an off-the-shelf language identification tool.
    """
    long = [text for text in texts if len(text) >= MIN_CHARACTERS]
    counts = Counter(str(classify(text)[0]) for text in long)
    return {name: count / len(long) for name, count in counts.most_common()}
