"""A command that runs as long as we do, and a block that Ctrl-C, SIGTERM and SIGHUP end."""

import os
import signal
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

GRACE_SECONDS = 15.0
"""What a command gets to end by itself."""
_ENDS = (signal.SIGTERM, signal.SIGHUP)


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
        try:
            _end(child)
        finally:
            # A second Ctrl-C only shortens the grace; and what the command has started may outlive it.
            _tell(child, signal.SIGKILL)
            child.wait()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask a process and all of its group to end, and give it time for that."""
    if child.poll() is None:
        _tell(child, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)


def _tell(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # macOS says of a group that has only just ended that it is not ours.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


@contextmanager
def interruptible() -> Generator[None]:
    """End the block at Ctrl-C, SIGTERM or SIGHUP, and go on after it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _ENDS} if in_main else {}
    # What is ignored stays so: `nohup` means it.
    before = {number: own for number, own in before.items() if own != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        for number, own in before.items():
            signal.signal(number, own or signal.SIG_DFL)
