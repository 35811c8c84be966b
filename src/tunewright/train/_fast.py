"""Training and evaluation by the techniques of `accel`, once they have shown that they change no number."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from peft import PeftModel

from tunewright.accel import Ways
from tunewright.accel._check import check, kernels_gain
from tunewright.accel._step import Steps, Totals
from tunewright.accel.layout import IGNORED, Row
from tunewright.accel.techniques import WORTHWHILE
from tunewright.errors import first_line
from tunewright.train._batches import Batch, is_out_of_memory
from tunewright.train._course import Course
from tunewright.train._heap import give_back


class Fast:
    """The accelerated path of a training in one process."""

    def __init__(
        self,
        model: PeftModel,
        ways: Ways,
        *,
        self_check: bool,
        said: Callable[[str, str], None],
    ) -> None:
        """Take the model.

        Args:
            model: With its adapter, on its device.
            ways: How its rows are run.
            self_check: Compare with the plain path before the first step.
            said: Told of an event: its kind, and a text.
        """
        self._model, self._ways, self._said = model, ways, said
        self._self_check = self_check
        self._steps = Steps(model, ways)
        self.gain: float | None = None
        """Times as fast as the plain path, where this process has compared them."""

    def holds(self, inputs: Batch, course: Course) -> bool:
        """Return whether this path may be taken; at the first step that is found out, and remembered."""
        if not (self._self_check or self._ways.kernels):
            return True
        if course.checked is None:
            rows = rows_of(inputs)
            # In this order: what is compared with the plain path is what training will use.
            kernels = {"kernels": self._tried(rows)} if self._ways.kernels else {}
            found = self._found(rows) if self._self_check else {"passed": True}
            course.checked = {**found, **kernels}
        self._steps.kernels = bool(course.checked.get("kernels"))
        if not course.checked["passed"]:
            self._steps.leave()
        return bool(course.checked["passed"])

    def train(self, inputs: Batch, labels: int, *, most_rows: int, saving: bool) -> Totals:
        """Add the gradient of a step; see `Steps.train`."""
        device = self._model.device
        return self._steps.train(
            rows_of(inputs),
            labels,
            most_rows=most_rows,
            between=lambda: give_back(device, saving=saving),
        )

    def measure(self, inputs: Batch, *, most_rows: int, saving: bool) -> Totals:
        """Return the sums of a batch, without gradients."""
        found = self._steps.measure(rows_of(inputs), most_rows=most_rows)
        give_back(self._model.device, saving=saving)
        return found

    def rows_at_once(self, rows: int) -> int:
        """Return the rows of a pass of the plain path, for a batch of so many."""
        return min(rows, self._ways.rows_a_pass)

    def _tried(self, rows: Sequence[Row]) -> bool:
        """Return whether other kernels for norms and gates gain something here."""
        name = "Liger's kernels" if self._ways.liger_kernel else "Compiled kernels"
        try:
            gain = kernels_gain(self._model, self._steps, rows)
        # Compilers and drivers have exceptions of their own, and training can do without any of them.
        except Exception as error:
            self._steps.kernels = False
            if is_out_of_memory(error):
                raise
            why = f"do not run here and stay off: {first_line(error)}"
            self._said("accel", f"{name} for norms and gates {why}")
            return False
        used = gain >= WORTHWHILE
        self._steps.kernels = used
        text = "are used" if used else "stay off"
        self._said(
            "accel",
            f"{name} for norms and gates {text}: with them rows run {gain:.2f} times as fast.",
        )
        return used

    def _found(self, rows: Sequence[Row]) -> dict[str, float | bool]:
        found = check(self._model, self._steps, rows, rows_a_pass=self._ways.rows_a_pass)
        figures = (
            f"on the first rows the loss differs by {found.loss_error:.1e} and the gradient by "
            f"{found.gradient_error:.1e} from the plain path"
        )
        if found.passed:
            self._said("accel", f"Acceleration checked: {figures}, {found.gain:.1f} times as fast.")
        else:
            self._said(
                "accel",
                f"W_ACCEL_OFF Acceleration is off, training goes the plain way: {figures}, more than rounding "
                "explains. Please report this with the model's name; `--set accel=off` keeps it off.",
            )
        self.gain = round(found.gain, 2)
        # No times: a checkpoint of a run that was interrupted is that of one that was not.
        return {name: value for name, value in asdict(found).items() if name != "gain"}


def rows_of(inputs: Batch) -> list[Row]:
    """Return the rows of a padded batch that have something to learn."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    ids: list[list[int]] = inputs["input_ids"].tolist()
    labels: list[list[int]] = inputs["labels"].tolist()
    return [
        Row(tokens[:length], wanted[:length])
        for tokens, wanted, length in zip(ids, labels, lengths, strict=True)
        if any(label != IGNORED for label in wanted[1:length])
    ]


def labels_of(inputs: Batch) -> int:
    """Return how many tokens of a batch have a label that is predicted."""
    return int((inputs["labels"][:, 1:] != IGNORED).sum())


def mean_of(totals: Totals, labels: int, device: torch.device) -> torch.Tensor:
    """Return the share of the mean loss that these rows make up."""
    return torch.tensor(totals.loss / labels, device=device)
