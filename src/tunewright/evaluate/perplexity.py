"""Perplexity of base and tuned on the same rows, with intervals over rows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import exp
from typing import Any

from tunewright.evaluate.intervals import Estimate, resampled


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
    base, tuned = _losses(rows)

    def estimate(figure: Callable[[float, float], float]) -> Estimate:
        return resampled(
            rows, lambda drawn: _exp(figure(*_losses(drawn))), samples=samples, seed=seed
        )

    return Perplexity(
        base=estimate(lambda base, _: base),
        tuned=estimate(lambda _, tuned: tuned),
        ratio=estimate(lambda base, tuned: tuned - base),
        base_loss=base,
        tuned_loss=tuned,
        rows=len(rows),
        tokens=sum(row.tokens for row in rows),
    )


def _losses(rows: Sequence[RowLoss]) -> tuple[float, float]:
    tokens = sum(row.tokens for row in rows)
    return sum(row.base for row in rows) / tokens, sum(row.tuned for row in rows) / tokens


def _exp(loss: float) -> float:
    # A broken model's loss may have no exponential in floating point; JSON has no infinity.
    return exp(min(loss, 700.0))
