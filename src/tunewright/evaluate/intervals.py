"""Figures with their 95 % intervals."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

_Z = 1.959963984540054
"""The standard normal distribution has 95 % between -_Z and _Z."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return asdict(self)


def independent(groups: Sequence[Hashable]) -> int:
    """Return how many of several answers are independent: one a question, where questions repeat.

    Where all were asked the same, they differ by their seeds alone, and each is independent.
    """
    different = len(set(groups))
    return different if different > 1 else len(groups)


def share(passed: int, asked: int, *, of: int | None = None) -> Estimate:
    """Return the share of `asked` that passed; of nothing it is anything from 0 to 1.

    Args:
        passed: How many did.
        asked: Of how many.
        of: How many of these are independent; unset: all.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, Journal of the
    American Statistical Association 22, 1927: the score interval.
    """
    if not asked:
        return Estimate(0.0, 0.0, 1.0)
    n = of or asked
    value, spread = passed / asked, _Z * _Z / n
    middle = (value + spread / 2) / (1 + spread)
    half = _Z * sqrt(value * (1 - value) / n + spread / n / 4) / (1 + spread)
    return Estimate(value, min(max(0.0, middle - half), value), max(min(1.0, middle + half), value))


def mean(
    values: Sequence[float],
    *,
    samples: int,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> Estimate:
    """Return the mean of at least one value; one value alone is its own interval.

    Args:
        values: What the mean is of.
        samples: Draws of the bootstrap.
        seed: Their seed.
        groups: What each value is of: values of one group are drawn together.

    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993: the percentile interval; of groups,
    Davison and Hinkley, Bootstrap methods and their application, 1997, section 3.8.
    """
    if groups is None or independent(groups) == len(values):
        return resampled(values, lambda drawn: sum(drawn) / len(drawn), samples=samples, seed=seed)
    sums: dict[Hashable, tuple[float, int]] = {}
    for group, value in zip(groups, values, strict=True):
        total, count = sums.get(group, (0.0, 0))
        sums[group] = (total + value, count + 1)

    def of_groups(drawn: Sequence[tuple[float, int]]) -> float:
        return sum(total for total, _ in drawn) / sum(count for _, count in drawn)

    return resampled(list(sums.values()), of_groups, samples=samples, seed=seed)


def difference(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    samples: int,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> Estimate:
    """Return the mean of `tuned` less that of `base`, which are paired: the interval is over pairs."""
    pairs = [t - b for b, t in zip(base, tuned, strict=True)]
    return mean(pairs, samples=samples, seed=seed, groups=groups)


def resampled(
    values: Sequence[T],
    figure: Callable[[Sequence[T]], float],
    *,
    samples: int,
    seed: int,
    outside: float = 0.05,
) -> Estimate:
    """Return a figure of all values, with the percentile interval of it over draws with replacement.

    `outside` is the share of draws that the interval leaves out.
    """
    random = Random(seed)
    value = figure(values)
    draws = sorted(figure(random.choices(values, k=len(values))) for _ in range(samples))
    low, high = draws[int(outside / 2 * len(draws))], draws[int((1 - outside / 2) * len(draws))]
    return Estimate(value, min(low, value), max(high, value))
