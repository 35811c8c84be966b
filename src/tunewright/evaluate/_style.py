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
MIN_PASSAGE_WORDS, MIN_PASSAGES = 10, 4
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
    sides = {"base": "the base's answers", "tuned": "the tuned model's answers"} | {
        "heldout": "the author's held-out text",
        "training": "the author's training text",
    }
    short = [f"{n:,} in {sides[name]}" for name, n in words.items() if n < min_words]
    few = [f"{len(x)} in {sides[name]}" for name, x in counts.items() if len(x) < MIN_PASSAGES]
    if short or few:
        least = f"{min_words:,} words" if short else f"{MIN_PASSAGES} passages of {length} words"
        reason = (
            f"Not enough text: each side needs {least}, and there are {', '.join(short or few)}."
        )
        return Transfer(None, None, None, reason, words)
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

    The differences v of all features from the base's, in standard deviations of a passage and limited to LIMIT, are
    what is multiplied, with T for the tuned model's, A for the author's training text and H for his held-out text:

        100 (T . H / A . H) min(1, |A| / |T|)

    The first factor is the way gone in the author's direction; the second takes off what went elsewhere, once the
    tuned model is farther from the base than the author is. Prompts and training passages are halved at random, and
    the factors of each product come from different halves, with a base of their own: the noise of one text would
    otherwise be on both sides of the product and count as likeness. Summed over many halvings.

    Sources: z-scores of frequent words and their products, Burrows 2002 and Smith and Aldridge 2011; limited,
    Evert et al. 2017, "Understanding and explaining Delta measures for authorship attribution"; the interval is
    the percentile bootstrap over prompts and passages, its middle moved to the score (Efron and Tibshirani 1993).
    """
    rng = np.random.default_rng(seed)
    unit = _unit(sides)
    products = _products(sides, unit, samples=samples, rng=rng, resampled=False)
    score = float(_score(products.sum(axis=1)))
    products = _products(sides, unit, samples=samples, rng=rng, resampled=True)
    whole = products[1]
    if not whole.size or float(np.percentile(whole, 2.5)) <= 0:
        return None
    draws = _score(products[:, whole > 0])
    low, high = np.percentile(draws, (2.5, 97.5)) + score - draws.mean()
    return score, min(float(low), score), max(float(high), score)


def _score(products: Array) -> Array:
    """Return the score of T . H, A . H, T . T and A . A; of a T that is nowhere there is nothing to take off."""
    moved, whole, tuned, author = products
    farther = tuned > np.maximum(author, 0)
    share = np.divide(np.maximum(author, 0), tuned, out=np.ones_like(tuned), where=farther)
    return 100 * moved / whole * np.sqrt(share)


def _products(
    sides: Sides, unit: Array, *, samples: int, rng: np.random.Generator, resampled: bool
) -> Array:
    """Return the four products of `_score`, one each for every sample, summed over halvings."""
    weights = [np.ones((samples, len(x))) for x in (sides.base, sides.heldout, sides.training)]
    if resampled:
        weights = [_drawn(rng, w.shape[1], samples) for w in weights]
    asked, heldout, own = weights
    pairs = len(sides.base)
    size = 2 * (min(pairs, len(sides.training)) // 2)
    author = _features(heldout @ sides.heldout)
    found = np.zeros((4, samples))
    for _ in range(SPLITS if resampled else 1):
        prompts = _halves(rng, pairs, pairs, samples)
        trained = _halves(rng, len(sides.training), size, samples)
        bases = [_features(asked * half @ sides.base) for half in prompts]
        t, a = (
            [
                _limited(_features(w * half @ side) - base, unit)
                for half, base in zip(halves, bases, strict=True)
            ]
            for w, halves, side in ((asked, prompts, sides.tuned), (own, trained, sides.training))
        )
        h = [_limited(author - base, unit) for base in reversed(bases)]
        found += [
            sum((x * y).sum(axis=-1) for x, y in zip(one, other, strict=True))
            for one, other in ((t, h), (a, h), (t, t[::-1]), (a, a[::-1]))
        ]
    return found


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


def _limited(differences: Array, unit: Array) -> Array:
    """Return differences in units that are LIMIT at most; 0 where there is nothing to compare."""
    return np.clip(np.nan_to_num(differences / unit), -LIMIT, LIMIT)


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


def _halves(rng: np.random.Generator, n: int, size: int, samples: int) -> tuple[Array, Array]:
    """Return weights of 0 and 1 that choose two halves of `size` of `n`, a row a sample."""
    order = rng.random((samples, n)).argsort(axis=1)
    return (order < size // 2).astype(np.float64), ((order >= size // 2) & (order < size)).astype(
        np.float64
    )


def _drawn(rng: np.random.Generator, n: int, samples: int) -> Array:
    """Return how often each of `n` is drawn with replacement in `n` draws, a row a sample."""
    return rng.multinomial(n, np.full(n, 1 / n), size=samples).astype(np.float64)
