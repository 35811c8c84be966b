"""When a run is evaluated, saved, and over. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Evaluations = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Schedule:
    """The course of a run in optimizer steps.

    Attributes:
        steps: All of them.
        eval_steps: From one evaluation to the next; the last step is evaluated in any case.
        save_steps: From one checkpoint to the next; the last step is saved in any case.
        patience: Evaluations without a better one before the run is over; None: never.
        threshold: How much lower a loss must be to count as better.
        interrupted: Tells whether the user has asked to stop.
    """

    steps: int
    eval_steps: int
    save_steps: int
    patience: int | None
    threshold: float = 0.0
    interrupted: Callable[[], bool] = lambda: False

    def evaluates(self, step: int) -> bool:
        """Return whether the held-out rows are evaluated after a step."""
        return step % self.eval_steps == 0 or step >= self.steps

    def saves(self, step: int) -> bool:
        """Return whether a checkpoint is written after a step."""
        return step % self.save_steps == 0 or step >= self.steps

    def is_over(self, evaluations: Evaluations) -> bool:
        """Return whether the last evaluations brought nothing better: `patience` in a row."""
        if self.patience is None:
            return False
        best, since = math.inf, 0
        for _, loss in evaluations:
            if loss < best - self.threshold:
                best, since = loss, 0
            else:
                since += 1
        return since >= self.patience


def best_of(evaluations: Evaluations) -> tuple[int, float]:
    """Return step and loss of the best evaluation after training began; the earlier of two equal ones."""
    return min((point for point in evaluations if point[0] > 0), key=lambda point: point[1])
