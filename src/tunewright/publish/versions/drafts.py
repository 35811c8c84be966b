"""Folders in the making: hidden, locked by who makes them, removed by the next one where that one died."""

import math
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tunewright.artifacts import fsync
from tunewright.publish.versions.layout import DOOMED, DRAFT


@contextmanager
def aside(root: Path) -> Generator[Path]:
    """Give a hidden folder in the store that is gone when the block ends, unless it was renamed."""
    sweep(root)
    folder = root / f"{DRAFT}{secrets.token_hex(8)}"
    lock = folder.with_suffix(".lock")
    try:
        with FileLock(lock):
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)


def sweep(root: Path, *, dry_run: bool = False) -> list[str]:
    """Remove what killed publishers left: hidden folders whose lock nobody holds. Return their names.

    A folder is renamed before it is removed. So if a lock should lie, a live publisher finds its folder gone
    and fails, and can never put a half-removed one in place.
    """
    found: list[str] = []
    for lock in root.glob(f"{DRAFT}*.lock"):
        with suppress(Timeout), FileLock(lock, timeout=0):
            draft = lock.with_suffix("")
            found += [draft.name] if draft.exists() else []
            if not dry_run:
                remove(root, draft)
                lock.unlink(missing_ok=True)
    doomed = list(root.glob(f"{DOOMED}*"))
    for folder in [] if dry_run else doomed:
        shutil.rmtree(folder, ignore_errors=True)
    return [*found, *(folder.name for folder in doomed)]


def orphans(root: Path, until: float) -> list[Path]:
    """Return the drafts that have lost their lock and have not changed since a time."""
    return [
        folder
        for folder in root.glob(f"{DRAFT}*")
        if folder.is_dir()
        and not folder.with_suffix(".lock").exists()
        and _changed(folder) <= until
    ]


def _changed(folder: Path) -> float:
    """Return when a folder has changed; one that its owner removes at this moment never does."""
    try:
        return folder.lstat().st_mtime
    except FileNotFoundError:
        return math.inf


def remove(root: Path, folder: Path) -> None:
    """Let a folder be gone from its place at once, and then from the disk."""
    doomed = root / f"{DOOMED}{secrets.token_hex(8)}"
    with suppress(FileNotFoundError):
        folder.rename(doomed)
        fsync(folder.parent)
        shutil.rmtree(doomed, ignore_errors=True)
