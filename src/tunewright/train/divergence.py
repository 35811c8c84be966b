"""When a run has diverged. Pure.

* a loss or a gradient norm is no number, before training included;
* a gradient norm is over 1, and over 1,000 times the median of the 50 before it, once there are ten;
* a loss is as high as that of a model that guesses evenly, ln(vocabulary), and was clearly lower before training.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median

from tunewright.errors import TunewrightError, failure

EXPLODED = 1000
QUIET = 1.0
"""A gradient norm up to here never is an explosion: by default it is not even clipped, and beside those of rows that
are known by heart, which are near nothing, each new row would look like one."""
REMEMBERED = 50
ENOUGH = 10
GUESSING = 0.95
"""Share of ln(vocabulary) from which a loss is that of a guess."""
WORSE = 1.5
"""A loss counts as fallen apart only when it is this many times the one before training."""


class Watchdog:
    """Raises E_DIVERGED as soon as a run has gone wrong, with the step and its rows.

    Attributes:
        checkpoint: Step of the last whole checkpoint, named in the error; None: there is none.
    """

    checkpoint: int | None = None

    def __init__(self, vocabulary: int, place: Callable[[int], str]) -> None:
        """Watch a run.

        Args:
            vocabulary: Tokens that the model chooses from.
            place: Gives file and line of a row.
        """
        self._guessing = GUESSING * math.log(vocabulary)
        self._place = place
        self._good: list[int] = []

    def resumed(self, evaluations: Sequence[tuple[int, float]]) -> None:
        """Take up the held-out losses of a run that goes on."""
        self._good = self._good_of(evaluations)

    def loss(self, value: float, step: int, rows: Sequence[int]) -> None:
        """Look at the loss of a batch.

        Raises:
            TunewrightError: E_DIVERGED.
        """
        if not math.isfinite(value):
            raise self._failure(f"The loss is {value}", step, rows)

    def trained(self, value: float, step: int, first: float) -> None:
        """Look at the training loss of a step; `first` is the held-out loss before training.

        Raises:
            TunewrightError: E_DIVERGED.
        """
        if not -math.inf < value < WORSE * max(self._guessing, first):
            raise self._failure(f"The training loss is {value:.4g}", step, ())

    def norm(self, value: float, step: int, rows: Sequence[int], norms: list[float]) -> None:
        """Look at a gradient norm, before it is used, and remember it in `norms`.

        Raises:
            TunewrightError: E_DIVERGED.
        """
        if not math.isfinite(value):
            raise self._failure(f"The gradient norm is {value}", step, rows)
        usual = median(norms) if len(norms) >= ENOUGH else math.inf
        if value > max(QUIET, EXPLODED * usual):
            times = f"{value / usual:,.0f} times the usual" if usual else "and the usual one is 0"
            message = f"The gradient norm is {value:.3g}, {times}"
            raise self._failure(message, step, rows)
        norms.append(value)
        del norms[:-REMEMBERED]

    def evaluation(self, evaluations: Sequence[tuple[int, float]]) -> None:
        """Look at the held-out losses so far.

        Raises:
            TunewrightError: E_DIVERGED.
        """
        step, last = evaluations[-1]
        if not step and not math.isfinite(last):
            message = (
                f"The held-out loss is {last} before training: the base itself gives no number."
            )
            fix = "Look at the held-out rows; --set train.dtype=float32, or take another base."
            raise failure("E_DIVERGED", message, where="step 0", fix=fix)
        if step and not -math.inf < last < self._limit(evaluations):
            raise self._failure(f"The held-out loss is {last:.4g}", step, ())
        self._good = self._good_of(evaluations)

    def _limit(self, evaluations: Sequence[tuple[int, float]]) -> float:
        """Return the held-out loss from which a run has fallen apart."""
        return max(self._guessing, WORSE * evaluations[0][1])

    def _good_of(self, evaluations: Sequence[tuple[int, float]]) -> list[int]:
        return [step for step, loss in evaluations if loss < self._limit(evaluations)]

    def _failure(self, message: str, step: int, rows: Sequence[int]) -> TunewrightError:
        parts = [f"{message} at step {step}"]
        if self._good:
            parts.append(f"the last good evaluation was at step {self._good[-1]}")
        if self.checkpoint is not None:
            parts.append(f"the last whole checkpoint is that of step {self.checkpoint}")
        places = ", ".join(self._place(row) for row in rows[:4])
        more = f" and {len(rows) - 4} more rows" if len(rows) > 4 else ""
        where = f"step {step}" + (f": {places}{more}" if places else "")
        fix = None if places else "Lower `train.learning_rate`."
        return failure("E_DIVERGED", f"{'; '.join(parts)}.", where=where, fix=fix)
