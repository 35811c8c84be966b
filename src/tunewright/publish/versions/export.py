"""A version as a folder of its own, outside the store."""

import shutil
from pathlib import Path
from secrets import token_hex

from tunewright.artifacts import fsync
from tunewright.errors import failure
from tunewright.events import SILENT, Listener
from tunewright.machine import require_space
from tunewright.publish.versions import checking, references
from tunewright.publish.versions.founding import TAKEN

_RESERVE_BYTES = 10_000_000


def export(root: Path, reference: str, folder: Path, *, listener: Listener = SILENT) -> Path:
    """Return `folder`, in which a version lies as files of its own, each hashed as it was copied.

    The folder appears whole or not at all.

    Raises:
        TunewrightError: E_EXISTS, the folder is there. E_UNSAFE_PATH, it would be in the store, or something
            in the version is a link. E_NOT_FOUND, E_NAME. E_DIGEST_MISMATCH, with every file that is not as
            it was published. E_DISK_SPACE.
    """
    if folder.exists() or folder.is_symlink():
        raise failure("E_EXISTS", "The folder is there already.", where=folder)
    if folder.absolute().resolve().is_relative_to(root.resolve()):
        message = "The copy would be inside the store."
        raise failure("E_UNSAFE_PATH", message, where=folder, fix="Name a folder outside it.")
    key = references.find(root, reference)
    sizes = [entry["bytes"] for entry in checking.read_manifest(root, key)["files"].values()]
    require_space(folder, sum(sizes) + _RESERVE_BYTES)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".tmp-{token_hex(8)}")
    try:
        draft.mkdir()
        listener.started("export", sum(sizes), "bytes")
        checking.copy_version(root, key, draft, lambda done: listener.advanced(done, str(key)))
        for path in (*draft.rglob("*"), draft):
            fsync(path)
        draft.rename(folder)
        fsync(folder.parent)
    except OSError as error:
        if error.errno in TAKEN:
            raise failure("E_EXISTS", "The folder is there already.", where=folder) from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder
