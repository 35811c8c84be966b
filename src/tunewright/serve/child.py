"""A command that runs as long as we do, and a block that Ctrl-C and SIGTERM end."""

import os
import signal
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 15.0
"""What a command gets to end by itself."""


def run_child(words: Sequence[str], extra: Mapping[str, str]) -> int:
    """Return the exit code of a command that runs until it ends; it ends with us.

    Args:
        words: The command.
        extra: Variables of its environment, beside ours.
    """
    # A group of its own: Ctrl-C reaches us first, and we end it with all that it has started.
    child = subprocess.Popen(words, env={**os.environ, **extra}, process_group=0)
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group."""
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextmanager
def interruptible() -> Generator[None]:
    """End the block at Ctrl-C or SIGTERM, and go on after it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
