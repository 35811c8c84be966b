"""Whether agents have learned different things: each adapter on what every agent's data holds out. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from tunewright.counting import counted
from tunewright.evaluate.intervals import Estimate, resampled

BASE = "base"
"""The name under which the base stands among the adapters."""
MIN_SOURCES = 10
"""Sources under which an interval says nothing: of 3 rows without a difference it finds one in 3 of 10 cases."""
CHANCE = 0.05


@dataclass(frozen=True)
class Loss:
    """What a model loses on a row.

    Attributes:
        nats: Summed negative log likelihood of the label tokens.
        tokens: Number of label tokens.
        cut: The row was longer than is read.
        source: What the row was made of, which other rows may be too; None: of nothing else.
    """

    nats: float
    tokens: int
    cut: bool = False
    source: str | None = None


def perplexity(rows: Sequence[Loss]) -> float:
    """Return the perplexity a label token."""
    return _exp(sum(row.nats for row in rows) / sum(row.tokens for row in rows))


def ratio(
    own: Sequence[Loss], other: Sequence[Loss], *, samples: int, seed: int, outside: float = CHANCE
) -> Estimate:
    """Return the perplexity of one model over that of another on the same rows; its interval is of the pairs.

    It is a token of the first model, also where templates differ and the other one counts more tokens: what is
    compared is what both lose on the same rows. Rows of one source are drawn together: copies of it say no more
    than one of them.

    Source: Davison and Hinkley, Bootstrap methods and their application, 1997, section 3.8.
    """
    sums: dict[Hashable, tuple[float, int]] = {}
    for source, one, two in zip(_sources(own), own, other, strict=True):
        more, tokens = sums.get(source, (0.0, 0))
        sums[source] = (more + one.nats - two.nats, tokens + one.tokens)

    def figure(drawn: Sequence[tuple[float, int]]) -> float:
        return _exp(sum(more for more, _ in drawn) / sum(tokens for _, tokens in drawn))

    return resampled(list(sums.values()), figure, samples=samples, seed=seed, outside=outside)


def _sources(rows: Sequence[Loss]) -> list[Hashable]:
    """Return what each row is of; its number, where it is of nothing else."""
    return [number if row.source is None else row.source for number, row in enumerate(rows)]


def matrix(
    losses: Mapping[str, Mapping[str, Sequence[Loss]]], *, samples: int, seed: int
) -> dict[str, Any]:
    """Return the perplexity of each model on each agent's data, and of each agent whether it is specialised.

    An agent is `specialised` where its own adapter loses less on its data than every other one, by more than
    chance: each ratio's 95 % interval, over sources, is under 1. It is `misplaced` where another adapter loses less
    by more than chance; since there are several that could by luck, the 5 % are shared among them. Else it is
    `shared`, and under 10 sources `unknown`.

    Args:
        losses: Agent whose data it is -> adapter, or `base` -> the losses on the same rows, in the same order.
        samples: Draws of the bootstrap.
        seed: Their seed.

    Source: of the first rule Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics
    24, 1982 (all have to hold: no correction); of the second Bonferroni.
    """
    agents = list(losses)
    table = {
        agent: {model: perplexity(rows) for model, rows in of_data.items()}
        for agent, of_data in losses.items()
    }
    found: dict[str, Any] = {}
    for agent in agents:
        own, others = losses[agent][agent], [one for one in agents if one != agent]
        against = {
            one: ratio(own, losses[agent][one], samples=samples, seed=seed) for one in others
        }
        strict = [
            ratio(
                own,
                losses[agent][one],
                samples=samples,
                seed=seed,
                outside=CHANCE / len(others),
            )
            for one in others
        ]
        sources = len(set(_sources(own)))
        best = max(others, key=lambda one: against[one].value)
        found[agent] = {
            "best_other": best,
            "ratio": against[best].facts(),
            "rows": len(own),
            "sources": sources,
            "finding": finding(list(against.values()), strict, sources=sources),
        }
    return {"agents": agents, "perplexity": table, "specialisation": found}


def finding(against: Sequence[Estimate], strict: Sequence[Estimate], *, sources: int) -> str:
    """Return what ratios of own to other perplexities say.

    Args:
        against: Of each other adapter, with a 95 % interval.
        strict: The same with the intervals that hold for all together.
        sources: Different sources of the held-out rows that they are of.
    """
    if sources < MIN_SOURCES:
        return "unknown"
    if all(one.high < 1 for one in against):
        return "specialised"
    return "misplaced" if any(one.low > 1 for one in strict) else "shared"


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
        case "unknown":
            text = (
                f"On the data of {agent} only {counted(found['rows'], 'held-out row')} of {counted(found['sources'], 'source')} can be "
                f"compared: at least {MIN_SOURCES} sources are needed to tell whether its own adapter is best."
            )
        case _:
            text = (
                f"On the data of {agent} the adapter of {other} is as good as its own: {figures}. "
                "One adapter may do for both, or there is too little held out to tell."
            )
    return text


def _exp(loss: float) -> float:
    # A broken model's loss may have no exponential in floating point; JSON has no infinity.
    return exp(min(loss, 700.0))
