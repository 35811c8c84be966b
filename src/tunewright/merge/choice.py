"""Which state of a training is merged, and why. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunewright.errors import failure


@dataclass(frozen=True)
class Candidate:
    """A state of the training that can be merged.

    Attributes:
        step: Optimizer steps done.
        eval_loss: Held-out loss, nats a token; None if it was not measured.
        write: Writes it into an empty folder as an adapter that PEFT reads; None: it is the run's adapter.
    """

    step: int
    eval_loss: float | None
    write: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Choice:
    """What is merged.

    Attributes:
        candidate: It.
        reason: Why, in a sentence.
    """

    candidate: Candidate
    reason: str


def choose(
    wanted: Literal["auto"] | int | None,
    adapter: Candidate,
    checkpoints: Sequence[Candidate],
    *,
    where: Path,
) -> Choice:
    """Return what is to be merged.

    Args:
        wanted: `auto`, the state of the lowest held-out loss; a step; or None, the run's adapter.
        adapter: The run's adapter.
        checkpoints: Those of its training that are there.
        where: The run, for messages.

    Raises:
        TunewrightError: E_NOT_FOUND, there is no state of that step.
    """
    if wanted is None:
        return Choice(adapter, "it is the run's adapter.")
    # The adapter comes first: where a checkpoint is of the same step, it is the same.
    known = [adapter, *(one for one in checkpoints if one.step != adapter.step)]
    if wanted == "auto":
        return _best(known)
    found = next((one for one in known if one.step == wanted), None)
    if found is None:
        there = ", ".join(str(one.step) for one in sorted(known, key=lambda one: one.step))
        raise failure(
            "E_NOT_FOUND",
            f"There is no whole checkpoint of step {wanted}; those that are there: {there}.",
            where=where,
            fix="Name one of them; `train.save_total_limit` says how many are kept.",
        )
    return Choice(found, f"it was asked for{_loss(found)}.")


def _best(known: Sequence[Candidate]) -> Choice:
    measured = [
        (one.eval_loss, one)
        for one in known
        if one.eval_loss is not None and math.isfinite(one.eval_loss)
    ]
    if not measured:
        return Choice(known[0], "no state has a held-out loss, and it is the run's adapter.")
    _, best = min(measured, key=lambda item: item[0])
    others = sorted((loss, one.step) for loss, one in measured if one is not best)
    reason = f"it has the lowest held-out loss, {best.eval_loss:.4f}"
    if not others:
        return Choice(best, f"{reason}; no other state of the training is kept.")
    return Choice(best, f"{reason}; the next is {others[0][0]:.4f} at step {others[0][1]}.")


def _loss(one: Candidate) -> str:
    return "" if one.eval_loss is None else f"; its held-out loss is {one.eval_loss:.4f}"
