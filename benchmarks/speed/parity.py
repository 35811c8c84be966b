"""Whether two trainings were the same: first loss, first gradient norm, all losses, what became of the adapter. Pure.

Losses alone would miss a learning rate that is a little off: on random rows they hardly fall. AdamW's first steps have
a length that the learning rate decides and a direction that the gradient decides, so both are compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Tensors = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Tolerances:
    """How much may differ.

    Attributes:
        loss: Of step one, relative.
        norm: Gradient norm of step one, relative.
        losses: Of every step, relative.
        length: Of the adapter's change, relative.
        direction: Of the adapter's change, 1 less the cosine.
    """

    loss: float
    norm: float
    losses: float
    length: float
    direction: float


TOLERANCES = {
    "float32": Tolerances(loss=2e-6, norm=1e-4, losses=1e-4, length=5e-3, direction=1e-3),
    "bfloat16": Tolerances(loss=2e-3, norm=2e-2, losses=5e-3, length=2e-2, direction=0.2),
}


@dataclass(frozen=True)
class Trained:
    """What of a training is compared.

    Attributes:
        losses: Of each step.
        norm: Gradient norm of step one.
        adapter: What it ended with.
    """

    losses: Sequence[float]
    norm: float | None
    adapter: Tensors


def faults(one: Trained, reference: Trained, start: Tensors, allowed: Tolerances) -> list[str]:
    """Return in words what differs by more than is allowed; nothing: the two did the same.

    Args:
        one: The training to judge.
        reference: What it is held against.
        start: The adapter that both began with.
        allowed: What is allowed.
    """
    if len(one.losses) != len(reference.losses) or not one.losses:
        return [f"{len(one.losses)} losses, and {len(reference.losses)} were expected"]
    if one.adapter.keys() != reference.adapter.keys():
        return ["its adapter has other tensors"]
    apart = [_apart(a, b) for a, b in zip(one.losses, reference.losses, strict=True)]
    worst = max(range(len(apart)), key=lambda i: apart[i])
    length, direction = _changes(one.adapter, reference.adapter, start)
    norms = (
        math.inf if one.norm is None or reference.norm is None else _apart(one.norm, reference.norm)
    )
    found = {
        "the loss of step 1": (apart[0], allowed.loss),
        "the gradient norm of step 1": (norms, allowed.norm),
        f"the loss of step {worst + 1}": (apart[worst], allowed.losses),
        "the length of the adapter's change": (length, allowed.length),
        "the direction of the adapter's change": (direction, allowed.direction),
    }
    # A comparison with what is no number is never within the limit.
    return [
        f"{what} differs by {value:.2g}, {limit:.2g} is allowed"
        for what, (value, limit) in found.items()
        if not value <= limit
    ]


def _apart(value: float, reference: float) -> float:
    if value == reference:
        return 0.0
    return abs(value - reference) / abs(reference) if reference else math.inf


def _changes(one: Tensors, reference: Tensors, start: Tensors) -> tuple[float, float]:
    """Return by how much length and direction of two changes differ."""
    products = np.zeros(3)
    for name, before in start.items():
        own = (one[name] - before).astype(np.float64).ravel()
        wanted = (reference[name] - before).astype(np.float64).ravel()
        products += (own @ own, wanted @ wanted, own @ wanted)
    own, wanted = np.sqrt(products[:2])
    if not (own > 0 and wanted > 0):
        return math.inf, math.inf
    return float(abs(own / wanted - 1)), float(1 - products[2] / (own * wanted))
