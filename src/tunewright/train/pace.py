"""How fast a training goes, measured while it does."""

import time
from collections.abc import Mapping
from typing import Any

from tunewright.train.timing import Limit

COUNTED = ("num_tokens", "num_executed_tokens", "num_label_tokens")
"""Running totals of a log: tokens of the rows, positions that went through the model, tokens with a label."""
SPEEDS = ("tokens_per_second", "executed_tokens_per_second", "share_of_limit")


class Speed:
    """Measures the tokens of a second and the time that is left, in this process.

    Tokens of the rows; positions that went through the model, fewer where rows share some; and the share of what
    the device could do. The last two are counted in the accelerated path only.
    """

    def __init__(self, limit: Limit | None = None) -> None:
        self.tokens_per_second: float | None = None
        self.executed_tokens_per_second: float | None = None
        self.share_of_limit: float | None = None
        self._limit = limit
        self._sums: list[float] = [0.0, 0, 0, 0]
        self._started: float | None = None
        self._begun: float | None = None
        self._evaluating = 0.0
        self._steps = 0

    @property
    def seconds(self) -> float:
        """Seconds since the first step of this process began."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def begin(self) -> None:
        """A step begins."""
        now = time.monotonic()
        self._steps += 1
        if self._started is None:
            self._started = now
        if self._begun is None:
            self._begun = now

    def logged(self, logs: Mapping[str, Any]) -> None:
        """Leave out an evaluation between two logs of the training loss."""
        if self._begun is not None:
            self._evaluating += logs.get("eval_runtime", 0.0)

    def counted(self, row: Mapping[str, Any], *, before: Mapping[str, Any]) -> None:
        """Take what a log counts since the one before into the speed; padding is no token."""
        if self._begun is not None:
            seconds = max(time.monotonic() - self._begun - self._evaluating, 1e-9)
            done = [int(row.get(name, 0) - before.get(name, 0)) for name in COUNTED]
            self._sums = [a + b for a, b in zip(self._sums, (seconds, *done), strict=True)]
            found = self._speeds(seconds, *done)
            self.tokens_per_second, self.executed_tokens_per_second, self.share_of_limit = found
        self._begun, self._evaluating = None, 0.0

    def overall(self) -> dict[str, float | None]:
        """Return the means over all that was counted."""
        seconds, *done = self._sums
        found = self._speeds(max(seconds, 1e-9), *map(int, done))
        return dict(zip(SPEEDS, found, strict=True))

    def _speeds(
        self, seconds: float, tokens: int, executed: int, labels: int
    ) -> tuple[float | None, float | None, float | None]:
        speed = round(tokens / seconds, 1) if tokens > 0 else None
        ran = round(executed / seconds, 1) if executed > 0 else None
        if ran is None or self._limit is None:
            return speed, ran, None
        return speed, ran, round(self._limit.share(executed, labels, seconds), 4)

    def seconds_left(self, step: int, total: int) -> float | None:
        """Return the seconds until the last step at the mean speed so far."""
        return self.seconds / self._steps * (total - step) if self._steps else None
