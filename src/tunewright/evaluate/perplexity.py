"""Perplexity of base and tuned on the same rows, with intervals over rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp
from random import Random
from typing import Any


@dataclass(frozen=True)
class RowLoss:
    """What the models lose on one row.

    Attributes:
        base: Sum of the base's negative log likelihoods of the label tokens, nats.
        tuned: Likewise with the adapter.
        tokens: Number of label tokens.
    """

    base: float
    tuned: float
    tokens: int


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Perplexity:
    """Perplexities over rows.

    Attributes:
        base: Of the base.
        tuned: Of the base with the adapter.
        ratio: Tuned over base; under 1 is better. Its interval is of the pairs.
        base_loss: Mean negative log likelihood a label token, nats.
        tuned_loss: Likewise with the adapter.
        rows: Number of rows.
        tokens: Number of label tokens.
    """

    base: Estimate
    tuned: Estimate
    ratio: Estimate
    base_loss: float
    tuned_loss: float
    rows: int
    tokens: int

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return asdict(self)


def perplexity(rows: Sequence[RowLoss], *, samples: int, seed: int) -> Perplexity:
    """Return the perplexities of base and tuned, a token, with percentile intervals over rows.

    One row has no spread: its interval is its value.
    """
    random = Random(seed)
    draws = [_losses(random.choices(rows, k=len(rows))) for _ in range(samples)]
    base, tuned = _losses(rows)
    return Perplexity(
        base=_estimate(base, [b for b, _ in draws]),
        tuned=_estimate(tuned, [t for _, t in draws]),
        ratio=_estimate(tuned - base, [t - b for b, t in draws]),
        base_loss=base,
        tuned_loss=tuned,
        rows=len(rows),
        tokens=sum(row.tokens for row in rows),
    )


def _losses(rows: Sequence[RowLoss]) -> tuple[float, float]:
    tokens = sum(row.tokens for row in rows)
    return sum(row.base for row in rows) / tokens, sum(row.tuned for row in rows) / tokens


def _estimate(loss: float, draws: Sequence[float]) -> Estimate:
    ordered = sorted(draws)
    low = ordered[int(0.025 * len(ordered))]
    high = ordered[int(0.975 * len(ordered))]
    return Estimate(_exp(loss), _exp(min(low, loss)), _exp(max(high, loss)))


def _exp(loss: float) -> float:
    # A broken model's loss may have no exponential in floating point; JSON has no infinity.
    return exp(min(loss, 700.0))
