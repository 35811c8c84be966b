"""The transfer score: how far the tuned model's style moved from the base towards the author."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunewright.evaluate.style import FUNCTION_WORDS, MARKS, Counts, count, passages, words_of

Array = NDArray[np.float64]
PRONOUNS = frozenset(
    {"i", "me", "my", "myself", "mine", "we", "us", "our", "ourselves", "you", "your", "yours"}
    | {"yourself", "he", "him", "his", "himself", "she", "her", "hers", "herself", "it", "its"}
    | {"they", "them", "their", "themselves"}
)
"""Who tells and who is told of: they change from book to book of one author. Source: Burrows 2002."""
WORDS = tuple(word for word in FUNCTION_WORDS if word not in PRONOUNS)
GRAMS = 100
LIMIT = 2.0
"""What a feature counts at most, in medians of all features' differences between author and base."""
SPLITS = 8
"""Halvings of the prompts in each bootstrap sample."""
MIN_PASSAGE_WORDS = 10
MAX_PASSAGES = 1500
_TOTALS = 11


@dataclass(frozen=True)
class Transfer:
    """A transfer score in percent, or the reason why there is none.

    Attributes:
        score: 0 where the base is, 100 where the author is; below or above both happens.
        low: Lower end of the 95 % interval.
        high: Upper end.
        reason: Why there is no score; empty if there is one.
        words: Words of text each side had.
    """

    score: float | None
    low: float | None
    high: float | None
    reason: str
    words: dict[str, int]


@dataclass(frozen=True)
class Sides:
    """Count vectors, a row a passage; base and tuned are paired by prompt."""

    base: Array
    tuned: Array
    heldout: Array
    training: Array


def transfer_score(
    base: Sequence[str],
    tuned: Sequence[str],
    *,
    heldout: Sequence[str],
    training: Sequence[str],
    min_words: int,
    samples: int,
    seed: int,
) -> Transfer:
    """Return the transfer score of `tuned`, whose answers are paired with those of `base`.

    The author's held-out text says in which direction he is, his training text how far: see `scored`.
    """
    # In sorted order the score depends on the texts only, not on the order they come in.
    pairs = sorted(zip(base, tuned, strict=True))
    length = max(MIN_PASSAGE_WORDS, _mean_words([text for _, text in pairs]))
    own = {name: _cut(texts, length) for name, texts in (("h", heldout), ("t", training))}
    counts = {
        "base": [count(text) for text, _ in pairs],
        "tuned": [count(text) for _, text in pairs],
        "heldout": [count(text) for text in own["h"]],
        "training": [count(text) for text in own["t"]],
    }
    words = {name: sum(c.words for c in side) for name, side in counts.items()}
    short = [
        f"{name} text by {min_words - n:,} words" for name, n in words.items() if n < min_words
    ]
    if short:
        return Transfer(
            None, None, None, f"Not enough text: {', '.join(short)} under {min_words:,}.", words
        )
    found = scored(sides_of(**counts), samples=samples, seed=seed)
    if found is None:
        reason = "The base is not clearly further from the author than the author's own text is."
        return Transfer(None, None, None, reason, words)
    return Transfer(*found, "", words)


def sides_of(
    *,
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    heldout: Sequence[Counts],
    training: Sequence[Counts],
) -> Sides:
    """Return the counts as matrices; which 3-grams are counted depends on base and author only."""
    grams = _frequent_grams(base, [*heldout, *training])
    return Sides(*(_matrix(side, grams) for side in (base, tuned, heldout, training)))


def scored(sides: Sides, *, samples: int, seed: int) -> tuple[float, float, float] | None:
    """Return the score and its 95 % interval; None where the base is not clearly off the author.

    With v(x, o) the differences of all features of x from those of o, in standard deviations of a passage, d the
    same limited to LIMIT, and the prompts halved at random into 1 and 2:

        100 v(tuned_1, base_1) . d(heldout, base_2) / v(training, base_1) . d(heldout, base_2)

    summed over many halvings. Two halves, for with one the base's own noise would be on both sides of the product
    and count as similarity. Only the direction is limited: a mixture of base and author scores its share.

    Sources: z-scores of frequent words and their products, Burrows 2002 and Smith and Aldridge 2011; limited,
    Evert et al. 2017, "Understanding and explaining Delta measures for authorship attribution"; the interval is
    the percentile bootstrap over prompts and passages, its middle moved to the score (Efron and Tibshirani 1993).
    """
    rng = np.random.default_rng(seed)
    unit = _unit(sides)
    moved, whole = _products(sides, unit, samples=samples, rng=rng, resampled=False)
    score = 100 * float(moved.sum() / whole.sum())
    moved, whole = _products(sides, unit, samples=samples, rng=rng, resampled=True)
    if not whole.size or float(np.percentile(whole, 2.5)) <= 0:
        return None
    draws = 100 * moved[whole > 0] / whole[whole > 0]
    low, high = np.percentile(draws, (2.5, 97.5)) + score - draws.mean()
    return score, min(float(low), score), max(float(high), score)


def _products(
    sides: Sides, unit: Array, *, samples: int, rng: np.random.Generator, resampled: bool
) -> tuple[Array, Array]:
    """Return both products of `scored`, one each for every sample, a mean over halvings if resampled."""
    pairs, half = len(sides.base), len(sides.base) // 2
    weights = [np.ones((samples, len(x))) for x in (sides.base, sides.heldout, sides.training)]
    if resampled:
        weights = [_drawn(rng, w.shape[1], samples) for w in weights]
    asked, heldout, own = weights
    author, training = _features(heldout @ sides.heldout), _features(own @ sides.training)
    moved, whole = np.zeros(samples), np.zeros(samples)
    for _ in range(SPLITS if resampled else 1):
        chosen = _subsets(rng, pairs, half, samples)
        first, second = asked * chosen, asked * (1 - chosen)
        for one, other in ((first, second), (second, first)):
            origin = _features(one @ sides.base)
            direction = _limited(author - _features(other @ sides.base), unit)
            tuned = _features(one @ sides.tuned)
            moved += (_in_units(tuned - origin, unit) * direction).sum(axis=-1)
            whole += (_in_units(training - origin, unit) * direction).sum(axis=-1)
    return moved, whole


def _mean_words(texts: Sequence[str]) -> int:
    return round(sum(len(words_of(text)) for text in texts) / max(1, len(texts)))


def _cut(texts: Sequence[str], length: int) -> list[str]:
    """Return the author's passages in sorted order; of very many, evenly spread ones."""
    found = sorted(piece for text in texts for piece in passages(text, length))
    if len(found) <= MAX_PASSAGES:
        return found
    return [found[i * len(found) // MAX_PASSAGES] for i in range(MAX_PASSAGES)]


def _frequent_grams(base: Sequence[Counts], author: Sequence[Counts]) -> list[str]:
    frequency: dict[str, float] = {}
    for side in (base, author):
        total = sum(passage.grams.total() for passage in side)
        for passage in side:
            for gram, n in passage.grams.items():
                frequency[gram] = frequency.get(gram, 0.0) + n / total
    return sorted(frequency, key=lambda gram: (-frequency[gram], gram))[:GRAMS]


def _matrix(side: Sequence[Counts], grams: Sequence[str]) -> Array:
    return np.array(
        [
            [
                *(passage.functions[word] for word in WORDS),
                *(passage.grams[gram] for gram in grams),
                *(passage.marks[mark] for mark in MARKS),
                passage.words,
                passage.grams.total(),
                passage.characters / 1000,
                len(passage.sentences),
                *passage.log_lengths,
                passage.short_sentences,
                passage.quoted,
                passage.contractions,
                passage.windows,
                passage.window_ratios,
            ]
            for passage in side
        ],
        dtype=np.float64,
    )


def _features(sums: Array) -> Array:
    """Return the features of summed count vectors; NaN where there is nothing to divide by."""
    first, last = len(WORDS), sums.shape[-1] - _TOTALS
    words, grams, marks = np.split(sums[..., :last], [first, last - len(MARKS)], axis=-1)
    (
        n_words,
        n_grams,
        kilo,
        sentences,
        logs,
        squares,
        short,
        quoted,
        contractions,
        windows,
        ratios,
    ) = np.moveaxis(sums[..., last:, None], -2, 0)
    mean = _divide(logs, sentences)
    spread = np.sqrt(np.maximum(_divide(squares, sentences) - mean * mean, 0))
    return np.concatenate(
        [
            _divide(words, n_words),
            _divide(grams, n_grams),
            _divide(marks, kilo),
            *(mean, spread, _divide(short, sentences)),
            *(_divide(quoted, n_words), _divide(contractions, n_words), _divide(ratios, windows)),
        ],
        axis=-1,
    )


def _divide(a: Array, b: Array) -> Array:
    b = np.broadcast_to(b, a.shape)
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)


def _in_units(differences: Array, unit: Array) -> Array:
    """Return differences in units; 0 where there is nothing to compare."""
    return np.nan_to_num(differences / unit)


def _limited(differences: Array, unit: Array) -> Array:
    """Return differences in units that are LIMIT at most."""
    return np.clip(_in_units(differences, unit), -LIMIT, LIMIT)


def _unit(sides: Sides) -> Array:
    """Return a standard deviation of each feature, times the median difference between author and base."""
    deviation = _deviation(sides)
    difference = _features(sides.heldout.sum(axis=0)) - _features(sides.base.sum(axis=0))
    apart = np.abs(difference / deviation)[np.isfinite(difference) & np.isfinite(deviation)]
    return deviation * max(float(np.median(apart)) if apart.size else 0.0, 1e-9)


def _deviation(sides: Sides) -> Array:
    """Return each feature's standard deviation between passages: of base and author, with equal weight."""
    variances: list[Array] = []
    for side in (sides.base, np.concatenate([sides.heldout, sides.training])):
        features = _features(side)
        mean = _nanmean(features)
        variances.append(_nanmean(features * features) - mean * mean)
    variance = np.mean(variances, axis=0)
    usable = np.isfinite(variance) & (variance > 1e-12)
    return np.where(usable, np.sqrt(np.where(usable, variance, 1.0)), np.inf)


def _nanmean(features: Array) -> Array:
    present = np.isfinite(features)
    return _divide(np.where(present, features, 0).sum(axis=0), present.sum(axis=0))


def _subsets(rng: np.random.Generator, n: int, size: int, samples: int) -> Array:
    """Return weights of 0 and 1 that choose `size` of `n`, a row a sample."""
    order = rng.random((samples, n)).argsort(axis=1)
    return (order < size).astype(np.float64)


def _drawn(rng: np.random.Generator, n: int, samples: int) -> Array:
    """Return how often each of `n` is drawn with replacement in `n` draws, a row a sample."""
    return rng.multinomial(n, np.full(n, 1 / n), size=samples).astype(np.float64)
