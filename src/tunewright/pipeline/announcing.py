"""Which stages run now, in which process: told by files whose lock the system frees when a process dies."""

import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from tunewright.machine import process_rank

PREFIX = ".running-"


@dataclass(frozen=True)
class Running:
    """A stage that is under way.

    Attributes:
        stage: Its name.
        pid: Number of the process.
        host: Name of its machine.
        since: ISO time, UTC.
    """

    stage: str
    pid: int
    host: str
    since: str


@contextmanager
def announced(run_dir: Path, stage: str) -> Generator[None]:
    """Let others see that this process does a stage; where that cannot be written, it is done unseen."""
    lock = None if process_rank() else _announce(run_dir, stage)
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                _file(lock).unlink(missing_ok=True)
            lock.release()
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)


def running(run_dir: Path) -> list[Running]:
    """Return what is under way in a run."""
    found: list[Running] = []
    for file in sorted(run_dir.glob(f"{PREFIX}*.json")):
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            one = Running(str(fields["stage"]), int(fields["pid"]), fields["host"], fields["since"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if _is_held(file.with_suffix(".lock")):
            found.append(one)
    return found


def _announce(run_dir: Path, stage: str) -> FileLock | None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    own = Running(stage, os.getpid(), socket.gethostname(), now)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _sweep(run_dir)
        lock = FileLock(run_dir / f"{PREFIX}{own.pid}.lock", timeout=0)
        lock.acquire()
        _file(lock).write_text(json.dumps(asdict(own)) + "\n", encoding="utf-8")
    except (OSError, Timeout):
        return None
    return lock


def _file(lock: FileLock) -> Path:
    return Path(lock.lock_file).with_suffix(".json")


def _sweep(run_dir: Path) -> None:
    """Remove what dead processes have left."""
    for file in run_dir.glob(f"{PREFIX}*.json"):
        if not _is_held(file.with_suffix(".lock")):
            file.unlink(missing_ok=True)
            file.with_suffix(".lock").unlink(missing_ok=True)


def _is_held(file: Path) -> bool:
    """Return whether a process holds a lock; a lock that is nobody's is only touched for a moment."""
    if not file.is_file():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False
