"""Stopping on request: the first signal ends the run after the step under way, the second one at once."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether and by what the user has asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def requested(self) -> bool:
        """Return whether a signal has come."""
        return self.signal is not None

    def leave(self) -> None:
        """End as the signal asks; where another process of the training got it, as SIGTERM does.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SystemExit: SIGTERM, with 143.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.signal or signal.SIGTERM))


@contextmanager
def listening(said: Callable[[str], None]) -> Generator[Interrupt]:
    """Give what tells of signals; a second one is handled as before, at once.

    Only the main thread can be told of signals; elsewhere nothing changes.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        interrupt.signal = number
        restore()
        said("Stopping after this step; its state is saved. Once more stops at once.")

    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield interrupt
    finally:
        restore()
