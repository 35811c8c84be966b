"""Making a store: what its file system must be able to do is tried out, not assumed."""

import errno
import json
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from tunewright.config import version
from tunewright.errors import failure
from tunewright.publish.versions import drafts, layout
from tunewright.publish.versions.layout import FORMAT, INFO, MAP

Sharing = Literal["hardlink", "copy"]
"""How equal files of several versions lie on the disk: once, or once each."""
NO_LINK = frozenset(
    (
        *(errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOSYS),
        *(errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL),
    )
)
"""A file cannot be linked, for reasons that are none for not copying it."""
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
"""A folder cannot be renamed onto one that is not empty."""


def init(root: Path, files: Sharing | None = None) -> dict[str, Any]:
    """Return what a store says of itself, after making it where there is none.

    Args:
        root: Its folder.
        files: How equal files are to be shared; None: by hard links where the file system has them.

    Raises:
        TunewrightError: E_STORE_FS_UNSUPPORTED, the file system cannot do what the store rests on, or has
            no hard links and they were asked for. E_EXISTS, other things are in the folder, or the store
            shares files in the other way. E_ARTIFACT_INVALID, E_UNSAFE_PATH, E_RUN_LOCKED.
    """
    root.mkdir(parents=True, exist_ok=True)
    others = [p.name for p in root.iterdir() if not p.name.startswith(".") and p.name != MAP]
    found = layout.read_info(root)
    if found is None and others and not (root / MAP).exists():
        raise failure(
            "E_EXISTS",
            f"The folder holds other things, and is no store: {', '.join(sorted(others)[:3])}.",
            where=root,
            fix="Name an empty folder, or one that does not exist.",
        )
    with drafts.aside(root) as folder:
        able = probe(folder)
    with layout.locked(root):
        found = layout.read_info(root) or _found(root, files, able)
    if files is not None and found.get("files") != files:
        message = f"The store shares files by {found.get('files')}, not by {files}."
        raise failure("E_EXISTS", message, where=root, fix="Leave the choice out.")
    return found


def _found(root: Path, files: Sharing | None, able: Sharing) -> dict[str, Any]:
    if files == "hardlink" and able == "copy":
        message = "The file system has no hard links."
        fix = "Leave the choice out: each version then has copies of its own."
        raise failure("E_STORE_FS_UNSUPPORTED", message, where=root, fix=fix)
    info = {
        "format": FORMAT,
        "files": files or able,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "tunewright": version("tunewright"),
    }
    layout.replace_own(root / INFO, (json.dumps(info, indent=1) + "\n").encode())
    return info


def probe(folder: Path) -> Sharing:
    """Return how files can be shared where an empty folder is, after trying there what a store rests on.

    A rename must replace a file, must refuse to replace a folder that is not empty and leave both, and a
    lock that is held must not be given again.

    Raises:
        TunewrightError: E_STORE_FS_UNSUPPORTED names what the file system does instead.
    """
    place = folder / "probe"
    try:
        place.mkdir()
        return _probed(place)
    except _UnsupportedError as error:
        where = folder.parent
        raise failure("E_STORE_FS_UNSUPPORTED", f"{error}.", where=where) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _probed(folder: Path) -> Sharing:
    one, other = folder / "one", folder / "other"
    for path in (one, other):
        path.mkdir()
        (path / "file").write_text(path.name, encoding="utf-8")
    try:
        one.rename(other)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP):
            raise _UnsupportedError(f"A folder cannot be renamed: {error.strerror}") from error
        if error.errno not in TAKEN:
            raise
    else:
        raise _UnsupportedError("A folder was renamed onto one that is not empty")
    if [(p / "file").read_text(encoding="utf-8") for p in (one, other)] != ["one", "other"]:
        raise _UnsupportedError("A rename that was refused has changed the folders")
    one.rename(folder / "new")
    (folder / "new" / "file").replace(other / "file")
    if (other / "file").read_text(encoding="utf-8") != "one":
        raise _UnsupportedError("A rename has not replaced the file")
    _probe_lock(folder / "lock")
    return "hardlink" if _can_link(other / "file", folder / "link") else "copy"


def _probe_lock(file: Path) -> None:
    """Take a lock twice, which must not succeed."""
    try:
        with FileLock(file, timeout=0, fallback_to_soft=False), suppress(Timeout):
            FileLock(file, timeout=0, fallback_to_soft=False).acquire()
            raise _UnsupportedError("A lock was given to two at a time")
    except (OSError, NotImplementedError) as error:
        raise _UnsupportedError(f"Files cannot be locked: {error}") from error


def _can_link(file: Path, link: Path) -> bool:
    try:
        os.link(file, link, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return False
    return link.stat().st_ino == file.stat().st_ino and link.stat().st_nlink == 2


class _UnsupportedError(Exception):
    """What the file system does in place of what the store rests on."""
