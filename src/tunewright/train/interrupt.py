"""Stopping on request: the first signal ends the run after the step under way, the second one at once."""

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO_S = 5.0
"""A launcher passes on a Ctrl-C that its processes have got already: so long another signal is the same one."""


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
def listening(
    interrupt: Interrupt, said: Callable[[str], None], *, launched: bool = False
) -> Generator[None]:
    """Note signals while the block runs; a second one is handled as before, at once.

    Only the main thread can be told of signals; elsewhere nothing changes.

    Args:
        interrupt: Where they are noted.
        said: Told once what happens now.
        launched: A launcher started the process, and repeats signals to it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    first = 0.0

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        del frame
        if interrupt.signal is None:
            interrupt.signal, first = number, time.monotonic()
            if not launched:
                restore()
            said("Stopping after this step; its state is saved. Once more stops at once.")
        elif time.monotonic() - first > ECHO_S:
            restore()
            signal.raise_signal(number)

    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
