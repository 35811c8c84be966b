"""What a run goes by and remembers: its rows, its rules, its state at a step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Sampler

from tunewright.accel.order import epoch_order
from tunewright.train.divergence import Watchdog
from tunewright.train.schedule import Schedule


@dataclass
class Snapshot:
    """All that a run is made of at one step, to be written or to go on from.

    Attributes:
        step: Optimizer steps done.
        tensors: Name of each file to its tensors.
        documents: Name of each file to its JSON value.
    """

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    documents: Mapping[str, Any]


@dataclass
class Course:
    """What a run remembers beside weights and optimizer.

    Attributes:
        evaluations: (step, held-out loss), the one before training first.
        rows_at_once: Rows of a forward pass at most, after memory ran out; None: as planned.
        eval_rows_at_once: The same in evaluations.
        checked: What the self-check of acceleration found; None: there was none yet.
        executed: Positions that went through the model in training; 0 in the plain path, which does not count.
        labels: Label tokens of them.
        norms: The last gradient norms.
        inexact: Fields of the machine that were not the same in all steps up to here.
    """

    evaluations: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    rows_at_once: int | None = None
    eval_rows_at_once: int | None = None
    checked: dict[str, Any] | None = None
    executed: int = 0
    labels: int = 0
    norms: list[float] = field(default_factory=list[float])
    inexact: Sequence[str] = ()


class Order(Sampler[int]):
    """Row numbers of the current epoch, the same for any number of processes."""

    def __init__(
        self, lengths: Sequence[int], *, rows_a_step: int, strategy: str, seed: int
    ) -> None:
        self._lengths = lengths
        self._options: dict[str, Any] = {
            "rows_a_step": rows_a_step,
            "strategy": strategy,
            "seed": seed,
        }
        self.rows_a_step = rows_a_step
        self.epoch = 0
        self._last: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        return -(-len(self._lengths) // self.rows_a_step) * self.rows_a_step

    def __iter__(self) -> Iterator[int]:
        return iter(self.of(self.epoch))

    def of(self, epoch: int) -> list[int]:
        """Return the row numbers of an epoch; those of the last one that was asked for are kept."""
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, epoch_order(self._lengths, epoch=epoch, **self._options)
        return self._last[1]

    def rows(self, step: int) -> list[int]:
        """Return the row numbers of an optimizer step, counted from 0 over the whole run."""
        an_epoch = len(self) // self.rows_a_step
        start = step % an_epoch * self.rows_a_step
        return self.of(step // an_epoch)[start : start + self.rows_a_step]


@dataclass(frozen=True)
class Rules:
    """What decides the course of a training.

    Attributes:
        order: Rows of each step.
        schedule: Steps, evaluations, checkpoints.
        watchdog: Stops a run that has gone wrong.
        save: Keeps a snapshot.
        said: Told of an event: its kind, and a text.
        saving: Memory is short, so what is freed is given back at once.
    """

    order: Order
    schedule: Schedule
    watchdog: Watchdog
    save: Callable[[Snapshot], None]
    said: Callable[[str, str], None]
    saving: bool
