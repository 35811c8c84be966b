"""Whether agents have learned different things: each adapter on what every agent's data holds out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from tunewright.evaluate.intervals import Estimate, resampled

BASE = "base"
"""The name under which the base stands among the adapters."""


@dataclass(frozen=True)
class Loss:
    """What a model loses on a row.

    Attributes:
        nats: Summed negative log likelihood of the label tokens.
        tokens: Number of label tokens.
    """

    nats: float
    tokens: int


def perplexity(rows: Sequence[Loss]) -> float:
    """Return the perplexity a label token."""
    # A broken model's loss may have no exponential in floating point; JSON has no infinity.
    return exp(min(sum(row.nats for row in rows) / sum(row.tokens for row in rows), 700.0))


def ratio(own: Sequence[Loss], other: Sequence[Loss], *, samples: int, seed: int) -> Estimate:
    """Return the perplexity of one model over that of another on the same rows; its interval is of the pairs."""
    pairs = list(zip(own, other, strict=True))

    def figure(drawn: Sequence[tuple[Loss, Loss]]) -> float:
        return perplexity([one for one, _ in drawn]) / perplexity([two for _, two in drawn])

    return resampled(pairs, figure, samples=samples, seed=seed)


def matrix(
    losses: Mapping[str, Mapping[str, Sequence[Loss]]], *, samples: int, seed: int
) -> dict[str, Any]:
    """Return the perplexity of each model on each agent's data, and of each agent whether it is specialised.

    An agent is `specialised` where its own adapter loses less on its data than the best of the others, by more
    than chance (the 95 % interval of the ratio, over rows, is under 1); `misplaced` where another agent's
    adapter loses less by more than chance; else `shared`. Of several others the best is taken on the same rows,
    which only makes `specialised` harder to reach.

    Args:
        losses: Agent whose data it is -> adapter, or `base` -> the losses on the same rows, in the same order.
        samples: Draws of the bootstrap.
        seed: Their seed.
    """
    agents = list(losses)
    table = {
        agent: {model: perplexity(rows) for model, rows in of_data.items()}
        for agent, of_data in losses.items()
    }
    found: dict[str, Any] = {}
    for agent in agents:
        others = [one for one in agents if one != agent]
        best = min(others, key=lambda one: table[agent][one])
        against = ratio(losses[agent][agent], losses[agent][best], samples=samples, seed=seed)
        found[agent] = {
            "best_other": best,
            "ratio": against.facts(),
            "rows": len(losses[agent][agent]),
            "finding": finding(against),
        }
    return {"agents": agents, "perplexity": table, "specialisation": found}


def finding(against: Estimate) -> str:
    """Return what a ratio of own to best other perplexity says."""
    if against.high < 1:
        return "specialised"
    return "misplaced" if against.low > 1 else "shared"


def sentence(agent: str, found: Mapping[str, Any]) -> str:
    """Return a finding in plain words."""
    other, against = found["best_other"], found["ratio"]
    figures = f"{against['value']:.2f} ({against['low']:.2f} to {against['high']:.2f})"
    match found["finding"]:
        case "specialised":
            text = f"On the data of {agent} its own adapter is best; perplexity over that of {other}'s: {figures}."
        case "misplaced":
            text = (
                f"On the data of {agent} the adapter of {other} is better than its own: {figures}. "
                "Look whether the data are mixed up, or train it longer."
            )
        case _:
            text = (
                f"On the data of {agent} the adapter of {other} is as good as its own: {figures}. "
                "One adapter may do for both, or there is too little held out to tell."
            )
    return text
