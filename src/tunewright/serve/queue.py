"""Requests wait their turn: one answer is made at a time, and not too many wait."""

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

from tunewright.serve.asked import RefusedError

MAX_WAITING = 64
POLL_SECONDS = 0.25
"""How often one that waits looks whether it is still wanted."""


class GoneError(Exception):
    """Nobody waits for the answer any more."""


class Queue:
    """Lets one through at a time, in the order in which they came."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._line: deque[object] = deque()
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, wanted: Callable[[], bool]) -> Generator[None]:
        """Give the block its turn.

        Raises:
            RefusedError: Too many wait.
            GoneError: It was no longer wanted before its turn came.
        """
        own = object()
        with self._moved:
            if len(self._line) > self._max_waiting:
                raise RefusedError("Too many requests wait; try again later.", status=429)
            self._line.append(own)
        try:
            self._wait(own, wanted)
            yield
        finally:
            with self._moved:
                self._line.remove(own)
                self._moved.notify_all()

    def wait_empty(self, seconds: float) -> bool:
        """Return whether nobody is left, neither in turn nor waiting, within so many seconds."""
        with self._moved:
            return self._moved.wait_for(lambda: not self._line, seconds)

    def _wait(self, own: object, wanted: Callable[[], bool]) -> None:
        with self._moved:
            while self._line[0] is not own:
                self._moved.wait(POLL_SECONDS)
                if not wanted():
                    raise GoneError
