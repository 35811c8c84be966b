"""One process trains in a folder, and others can tell which."""

import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from tunewright.errors import TunewrightError, failure
from tunewright.train._process import start_of

LOCK = "lock.json"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PATIENCE_SECONDS = 1.0
"""The kernel frees a lock a moment after its process was killed."""


@dataclass(frozen=True)
class Holder:
    """The process that trains.

    Attributes:
        pid: Its number.
        host: Name of its machine.
        boot_id: Which boot of the machine; empty where the system does not tell.
        process_start: When it was started, on the machine's own clock.
        since: When it took the lock; ISO time, UTC.
    """

    pid: int
    host: str
    boot_id: str
    process_start: str
    since: str


@contextmanager
def only_one(folder: Path) -> Generator[None]:
    """Hold the folder for this process while the block runs; a dead process holds nothing.

    Raises:
        TunewrightError: E_RUN_LOCKED, another process trains here: its number, machine and start. E_IO.
    """
    lock = FileLock(folder / ".lock", timeout=_PATIENCE_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise _refusal(folder) from error
    except OSError as error:
        message = f"{error.strerror or error}."
        raise failure("E_IO", message, where=error.filename or folder) from error
    try:
        _announce(folder)
        yield
    finally:
        # While it is still ours: the next holder writes its own.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> Holder | None:
    """Return who trains in a folder now; None: nobody.

    A process of another machine cannot be looked at from here; it is given as it was written down.
    """
    try:
        found = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        names = ("host", "boot_id", "process_start", "since")
        known = Holder(int(found["pid"]), *(str(found[name]) for name in names))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if known.host != socket.gethostname():
        return known
    same = known.boot_id == _boot_id() and known.process_start == start_of(known.pid)
    return known if same else None


def _announce(folder: Path) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    start = start_of(os.getpid()) or ""
    own = Holder(os.getpid(), socket.gethostname(), _boot_id(), start, now)
    draft = folder / f".{LOCK}.tmp"
    try:
        draft.write_text(json.dumps(asdict(own), indent=1) + "\n", encoding="utf-8")
        draft.replace(folder / LOCK)
    except OSError as error:
        draft.unlink(missing_ok=True)
        message = f"{error.strerror or error}."
        raise failure("E_IO", message, where=error.filename or folder / LOCK) from error


def _boot_id() -> str:
    return _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else ""


def _refusal(folder: Path) -> TunewrightError:
    known = holder(folder)
    if known is None:
        return failure("E_RUN_LOCKED", "Another process trains in this run.", where=folder)
    message = f"Process {known.pid} on {known.host} trains in this run since {known.since}."
    fix = f"Wait for it; `tunewright watch` shows it, and `kill {known.pid}` lets it save and stop."
    return failure("E_RUN_LOCKED", message, where=folder, fix=fix)
