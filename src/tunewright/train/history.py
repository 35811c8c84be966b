"""What `training/` of a run folder tells about a training: its curves, its progress, its events. Only reads."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.errors import failure
from tunewright.train.journal import parsed, parsed_object

TRAINING = "training"
METRICS = "metrics.jsonl"
PROGRESS = "progress.jsonl"
SAMPLES = "samples.jsonl"
IDENTITY = "identity.json"

Row = dict[str, Any]


@dataclass(frozen=True)
class History:
    """A training as its files tell it; what is not there is empty.

    Attributes:
        rows: Metrics, one row a step that was logged and one an evaluation, in the order of steps.
        progress: Time, speed and memory at each log.
        events: What happened beside: checkpoints, resumes, the end. Each has time, event and text.
        samples: Answers to held-out prompts.
        identity: What the training was started from.
        torn: Lines that cannot be read, as those that are being written.
    """

    rows: list[Row]
    progress: list[Row]
    events: list[Row]
    samples: list[Row]
    identity: Row
    torn: int

    def series(self, name: str) -> list[tuple[int, float]]:
        """Return the steps and values of one figure, such as `loss`."""
        return [(row["step"], row[name]) for row in self.rows if _is_number(row.get(name))]

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and loss of the best evaluation; the one before training is none."""
        found = [(step, loss) for step, loss in self.series("eval_loss") if step]
        return min(found, key=lambda point: point[1], default=None)

    def state(self, *, running: bool) -> str:
        """Return `running`, `finished`, `diverged` or `interrupted`; `running`: a process trains now."""
        if running:
            return "running"
        if self.identity.get("finished") is True:
            return "finished"
        last = self.events[-1].get("event") if self.events else None
        return "diverged" if last == "diverged" else "interrupted"

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        return int(self.progress[-1]["step"]) if self.progress else 0

    @property
    def steps(self) -> int | None:
        """Optimizer steps in all; None: not known yet."""
        return int(self.progress[-1]["steps"]) if self.progress else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step at the mean speed of the process that trained last; None: not known."""
        own: list[Row] = []
        for row in reversed(self.progress):
            # `seconds` counts in one process: where it is larger, an earlier one begins.
            if own and row["seconds"] > own[-1]["seconds"]:
                break
            own.append(row)
        if not own or self.steps is None:
            return None
        done = own[0]["step"] - own[-1]["step"]
        seconds = own[0]["seconds"] - own[-1]["seconds"]
        return seconds / done * (self.steps - self.step) if done > 0 else None


def training_of(run_dir: Path) -> Path:
    """Return the folder of a run's training.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING, nothing has been trained.
    """
    folder = run_dir / TRAINING
    if not folder.is_dir():
        message, fix = (
            "Nothing has been trained in this run.",
            "Train it: tunewright train CONFIG",
        )
        raise failure("E_ARTIFACT_MISSING", message, where=folder, fix=fix)
    return folder


def read(folder: Path) -> History:
    """Return what is known of the training in `folder`."""
    return Reader(folder).read()


class Reader:
    """Reads the same training again and again; of files that have grown only what is new."""

    def __init__(self, folder: Path) -> None:
        self._identity = folder / IDENTITY
        self._files = [_Lines(folder / name) for name in (METRICS, PROGRESS, SAMPLES)]

    def read(self) -> History:
        """Return what is known now."""
        for file in self._files:
            file.update()
        metrics, progress, samples = (file.rows for file in self._files)
        events = [row for row in progress if "event" in row and _is_number(row.get("time"))]
        return History(
            rows=_in_order([row for row in metrics if _is_number(row.get("step"))]),
            progress=[row for row in progress if "event" not in row and _is_progress(row)],
            events=events,
            samples=[row for row in samples if row.keys() >= {"step", "prompt", "answer"}],
            identity=_identity(self._identity),
            torn=sum(file.torn for file in self._files),
        )


@dataclass
class _Lines:
    """A file of JSON lines, read as far as it went the last time."""

    file: Path
    rows: list[Row] = field(default_factory=list[Row])
    broken: int = 0
    cut_off: int = 0
    _inode: int | None = None
    _offset: int = 0

    @property
    def torn(self) -> int:
        return self.broken + self.cut_off

    def update(self) -> None:
        """Read what is new; all of it, if the file is another or shorter than before."""
        try:
            found = self.file.stat()
            if not stat.S_ISREG(found.st_mode):  # a device may have no end
                return
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._restart(found.st_ino)
            with self.file.open("rb") as stream:
                stream.seek(self._offset)
                self._take(stream.read())
        except OSError:
            self._restart(None)

    def _restart(self, inode: int | None) -> None:
        self.rows, self.broken, self.cut_off = [], 0, 0
        self._inode, self._offset = inode, 0

    def _take(self, new: bytes) -> None:
        end = new.rfind(b"\n") + 1
        self.cut_off = int(end < len(new))
        self._offset += end
        for line in new[:end].split(b"\n")[:-1]:
            row = parsed(line + b"\n")
            if row is None:
                self.broken += 1
            else:
                self.rows.append(row)


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, from an hour on with hours before."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _identity(file: Path) -> Row:
    try:
        return parsed_object(file.read_bytes()) or {}
    except OSError:
        return {}


def _in_order(rows: Sequence[Row]) -> list[Row]:
    """Return rows in the order of steps, the later one of two of the same kind and step."""
    last = {(row["step"], "eval_loss" in row): row for row in rows}
    return [last[key] for key in sorted(last)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_progress(row: Row) -> bool:
    return all(_is_number(row.get(name)) for name in ("step", "steps", "seconds", "time"))
