"""The self-check before the first step: the same loss and gradient as the plain path, or the plain path it is."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from tunewright.accel._step import Steps, padded
from tunewright.accel.layout import IGNORED, Row

LIMITS = {torch.float32: (1e-5, 1e-3)}
ROUGH = 2e-2, 0.2
"""Relative differences allowed of the loss and, in the L2 norm, of the gradient: float32, and 16 bits.

Both paths round; what it is for are mistakes of another size: rows that see each other, or positions that are
wrong, change the gradient by tenths. The exact equality is a test of the tiny models, in float32.
"""
MOST_TOKENS = 1024
"""Of the rows that are checked, two of them aside: the check is to cost less than a step."""
TRIALS = 3
"""Runs of which the fastest counts, where two ways are told apart by their time."""


@dataclass(frozen=True)
class Checked:
    """What the check found.

    Attributes:
        loss_error: Relative difference of the loss.
        gradient_error: Of the gradient, relative in the L2 norm.
        passed: Both are within the limits.
        gain: Times as fast as the plain path on these rows.
    """

    loss_error: float
    gradient_error: float
    passed: bool
    gain: float


def kernels_gain(model: PeftModel, steps: Steps, rows: Sequence[Row]) -> float:
    """Return how many times as fast some rows of the first step run with other kernels for norms and gates.

    They are on afterwards. The first run with them, which may compile for a while, is not counted.

    Args:
        model: As it is before the first step.
        steps: The accelerated path.
        rows: Of the first step.

    Raises:
        Exception: What the kernels raise where they cannot be compiled or run.
    """
    chosen = _few(rows)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def fastest() -> float:
        runs = [_measured(trained, lambda: steps.train(chosen, 1).loss) for _ in range(TRIALS + 1)]
        return min(seconds for *_, seconds in runs[1:])

    with _without_dropout(model):
        steps.kernels = False
        before = fastest()
        steps.kernels = True
        return before / max(fastest(), 1e-9)


@contextmanager
def _without_dropout(model: PeftModel) -> Generator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def check(model: PeftModel, steps: Steps, rows: Sequence[Row], *, rows_a_pass: int) -> Checked:
    """Return how the accelerated path differs from the plain one on some rows of the first step.

    Without dropout, which would be drawn differently. No gradient and no random number is left behind.

    Args:
        model: As it is before the first step.
        steps: The accelerated path.
        rows: Of the first step.
        rows_a_pass: Of the plain path.
    """
    chosen = _few(rows)
    labels = max(1, sum(label != IGNORED for row in chosen for label in row.labels[1:]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def accelerated() -> float:
        return steps.train(chosen, labels).loss / labels

    with _without_dropout(model):
        fast, gradient, _ = _measured(trained, accelerated)
        with steps.plain():
            plain, reference, seconds = _measured(
                trained, lambda: _plain(model, chosen, labels, rows_a_pass)
            )
        # Once more for the time alone: the first run of all also warms up what both use.
        *_, fast_seconds = _measured(trained, accelerated)
    loss_error = abs(fast - plain) / max(abs(plain), 1e-12)
    distance = torch.stack([(a - b).norm() for a, b in zip(gradient, reference, strict=True)])
    size = torch.stack([b.norm() for b in reference])
    gradient_error = float(distance.norm() / size.norm().clamp(min=1e-12))
    limits = LIMITS.get(model.dtype, ROUGH)
    passed = loss_error <= limits[0] and gradient_error <= limits[1]
    return Checked(loss_error, gradient_error, passed, seconds / max(fast_seconds, 1e-9))


def _few(rows: Sequence[Row]) -> list[Row]:
    """Return the first rows that have something to learn, two at least, up to a number of tokens."""
    found: list[Row] = []
    for row in rows:
        full = sum(len(other.tokens) for other in found) + len(row.tokens) > MOST_TOKENS
        if len(found) > 1 and full:
            break
        found.append(row)
    return found


def _measured(
    trained: Sequence[torch.nn.Parameter], run: Callable[[], float]
) -> tuple[float, list[torch.Tensor], float]:
    """Return the loss, the gradient and the seconds of a run; the parameters are left without a gradient."""
    began = time.perf_counter()
    loss = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    gradient = [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in trained]
    for parameter in trained:
        parameter.grad = None
    return loss, [part.float() for part in gradient], seconds


def _plain(model: PeftModel, rows: Sequence[Row], labels: int, rows_a_pass: int) -> float:
    """Run rows padded together and with all logits, as Transformers does, and return their mean loss."""
    total = 0.0
    for start in range(0, len(rows), rows_a_pass):
        part = rows[start : start + rows_a_pass]
        ids, mask, targets = (
            tensor.to(model.device) for tensor in padded(part, max(len(row.tokens) for row in part))
        )
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        summed = cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        (summed / labels).backward()
        total += float(summed.detach()) / labels
    return total
