"""What Transformers' loop is told at its steps: when to evaluate, to save, to stop, and where it begins."""

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerState

from tunewright.train._processes import any_of
from tunewright.train.schedule import Schedule

if TYPE_CHECKING:
    from tunewright.train._trainer import Trainer


class Flow(TrainerCallback):
    """Says after which steps the held-out rows are evaluated and the run is saved."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> Any:
        """Set what comes after this step."""
        control.should_evaluate = self._schedule.evaluates(state.global_step)
        control.should_save = self._schedule.saves(state.global_step)
        if any_of(self._schedule.interrupted()):
            control.should_save = control.should_training_stop = True
        return control


class Beginning(TrainerCallback):
    """Puts the trainer where it was, once its own loop has set everything back."""

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore sums, or evaluate before the first step."""
        self._trainer.restore_course()
        if not self._trainer.course.evaluations:
            self._trainer.evaluate()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the order of this epoch."""
        self._trainer.rules.order.epoch = int(state.epoch or 0)
