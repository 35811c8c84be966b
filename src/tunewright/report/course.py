"""How a training went: its learning rate, its speed, its memory, over the steps."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from tunewright.artifacts import Artifact
from tunewright.report.numbers import as_number

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Course:
    """What was written down while the adapter was trained; what is not known is empty or None.

    Attributes:
        learning_rates: Step and learning rate.
        speeds: Step and trained tokens a second, evaluations left out.
        memory: Step and bytes in use.
        seconds: Of all processes one after another that trained it.
    """

    learning_rates: Points
    speeds: Points
    memory: Points
    seconds: float | None

    @property
    def tokens_per_second(self) -> float | None:
        """The median speed."""
        return median(speed for _, speed in self.speeds) if self.speeds else None

    @property
    def peak_bytes(self) -> float | None:
        """The most memory that was in use."""
        return max((size for _, size in self.memory), default=None)


def read_course(adapter: Artifact | None, progress: Path) -> Course:
    """Return how the training of an adapter went.

    Args:
        adapter: Its metrics.jsonl has the learning rates.
        progress: The run's file of speed and memory. Lines from after the adapter was made tell of
            another training, and are left out.
    """
    if adapter is None:
        return Course([], [], [], None)
    rows = list(_progress_until(datetime.fromisoformat(adapter.created).timestamp(), progress))
    led = _led_to_the_end(rows)
    return Course(
        learning_rates=_series(_rows(adapter.path / "metrics.jsonl"), "learning_rate"),
        speeds=_series(led, "tokens_per_second"),
        memory=_series(led, "memory_bytes"),
        seconds=_seconds(rows),
    )


def _progress_until(end: float, file: Path) -> Iterable[dict[str, Any]]:
    for row in _rows(file):
        figures = [as_number(row.get(name)) for name in ("step", "seconds", "time")]
        if None not in figures and row["time"] <= end:
            yield row


def _led_to_the_end(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without those of steps that were taken again after an interruption."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        while kept and kept[-1]["step"] > row["step"]:
            kept.pop()
        kept.append(row)
    return kept


def _seconds(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the seconds of all processes together: each counts from its own first step."""
    if not rows:
        return None
    before, total = 0.0, 0.0
    for row in rows:
        seconds = row["seconds"]
        total += seconds - before if seconds >= before else seconds
        before = seconds
    return total


def _series(rows: Iterable[dict[str, Any]], name: str) -> Points:
    values = {row["step"]: row[name] for row in rows if as_number(row.get(name)) is not None}
    return list(values.items())


def _rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; a line that a kill has cut off is left out."""
    if not file.is_file():
        return []
    found: list[dict[str, Any]] = []
    for line in file.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and as_number(row.get("step")) is not None:
            found.append(row)
    return found
