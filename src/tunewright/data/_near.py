"""Pairs of rows whose texts are nearly the same."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH

PERMUTATIONS = 128
WORDS = 5


SHORT_ANSWER_WORDS = 20
"""Answers of fewer words may be equal without being copies: yes, no, approve."""


def near_copies(
    questions_and_answers: Sequence[str], answers: Sequence[str], threshold: float
) -> set[tuple[int, int]]:
    """Return pairs of rows that are near copies as a whole, or in an answer of 20 words or more."""
    long = [n for n, answer in enumerate(answers) if len(answer.split()) >= SHORT_ANSWER_WORDS]
    pairs = near_pairs([answers[n] for n in long], threshold)
    return {*near_pairs(questions_and_answers, threshold), *((long[i], long[j]) for i, j in pairs)}


def near_pairs(texts: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    """Return pairs (i, j), i < j, whose word 5-grams have a Jaccard similarity of `threshold` or more.

    Candidates come from MinHash with locality-sensitive hashing and are then compared exactly.

    Source: Broder 1997, "On the resemblance and containment of documents".
    """
    shingles = [_shingles(text) for text in texts]
    index: Any = MinHashLSH(threshold=max(0.1, threshold - 0.15), num_perm=PERMUTATIONS)
    pairs: list[tuple[int, int]] = []
    for row, words in enumerate(shingles):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([w.encode() for w in words])
        for other in index.query(signature):
            if _jaccard(words, shingles[int(other)]) >= threshold:
                pairs.append((int(other), row))
        index.insert(row, signature)
    return sorted(pairs)


def _shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    if len(words) <= WORDS:
        return {" ".join(words)}
    return {" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def histogram(lengths: Sequence[int]) -> dict[str, float]:
    """Return minimum, mean, median and maximum."""
    values = np.asarray(lengths)
    return {
        "min": int(values.min()),
        "mean": round(float(values.mean()), 1),
        "median": float(np.median(values)),
        "max": int(values.max()),
    }
