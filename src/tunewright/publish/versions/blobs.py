"""Content of files in a store: written and hashed at once, and shared between versions by hard links.

A file of a version is a name for the same content on the disk as `blobs/sha256-<hex>`. The blob is made of the
version's file, not the other way round, so a version never depends on it: take all blobs away, and every
version is as whole as before; only the next one shares nothing with it.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunewright.artifacts import fsync
from tunewright.errors import failure
from tunewright.publish.versions.founding import NO_LINK
from tunewright.publish.versions.layout import BLOBS

CHUNK_BYTES = 1 << 20
READ_ONLY, WRITABLE = 0o444, 0o666
"""Modes before the umask."""
_BESIDE = ".blob"


@dataclass(frozen=True)
class StoredFile:
    """A file of a version.

    Attributes:
        source: Where it is in the run.
        sha256: What its content must be.
        size_bytes: Its size.
    """

    source: Path
    sha256: str
    size_bytes: int


def blob_path(root: Path, sha256: str) -> Path:
    """Return where a content lies, if it does."""
    return root / BLOBS / f"sha256-{sha256}"


def put(file: StoredFile, target: Path, blob: Path | None, moved: Callable[[int], object]) -> None:
    """Let `target` have a file's content, on the disk and hashed; shared with the blob where there is one.

    Args:
        file: What is put.
        target: Where no file is yet, in the folder of a version in the making.
        blob: Its place among the blobs; None: it is not shared.
        moved: Told how many bytes are done, from time to time.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, the source has another content. E_UNSAFE_PATH, it is a link.
    """
    if blob is not None and _is_shared(file, blob, target):
        _require(file, digest_of(_chunks(file.source), moved))
        return
    _write(file, target, READ_ONLY, moved)
    if blob is not None:
        _offer(file, blob, target)


def _is_shared(file: StoredFile, blob: Path, target: Path) -> bool:
    """Make `target` a name of the blob, if that is whole; it is looked at under the new name, which is ours."""
    beside = target.with_name(_BESIDE)
    try:
        os.link(blob, beside, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return False
    if _digest_or_none(beside) != file.sha256:
        beside.unlink()
        return False
    beside.replace(target)
    return True


def _digest_or_none(path: Path) -> str | None:
    try:
        with opened(path) as handle:
            return digest_of(chunks_of(handle))
    except OSError:
        return None


def _offer(file: StoredFile, blob: Path, target: Path) -> None:
    """Name a version's file among the blobs; what stands there is taken if it is whole, replaced if not."""
    try:
        blob.parent.mkdir(exist_ok=True)
        try:
            os.link(target, blob, follow_symlinks=False)
        except FileExistsError:
            if _is_shared(file, blob, target):
                return
            # The link goes the way of the draft where a kill leaves it.
            beside = target.with_name(_BESIDE)
            os.link(target, beside, follow_symlinks=False)
            beside.replace(blob)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise


def copy(source: Path, target: Path, sha256: str) -> None:
    """Copy a file, hashing it on the way; the copy is on the disk, and can be written to.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, the source has another content. E_UNSAFE_PATH, it is a link.
    """
    _write(StoredFile(source, sha256, 0), target, WRITABLE, bool)


def _write(file: StoredFile, target: Path, mode: int, moved: Callable[[int], object]) -> None:
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as stream:

        def copied() -> Iterator[bytes]:
            for chunk in _chunks(file.source):
                stream.write(chunk)
                yield chunk

        _require(file, digest_of(copied(), moved))
    fsync(target)


def _require(file: StoredFile, digest: str) -> None:
    if digest != file.sha256:
        raise failure("E_ARTIFACT_INVALID", "The file has changed.", where=file.source)


def digest_of(chunks: Iterator[bytes], moved: Callable[[int], object] = bool) -> str:
    """Return the SHA-256 of what the chunks are together, and tell how many bytes they are."""
    total, done = hashlib.sha256(), 0
    for chunk in chunks:
        total.update(chunk)
        done += len(chunk)
        moved(done)
    return total.hexdigest()


def _chunks(source: Path) -> Iterator[bytes]:
    with opened(source) as handle:
        yield from chunks_of(handle)


def chunks_of(handle: int) -> Iterator[bytes]:
    """Yield what is in an open file, a chunk at a time."""
    while chunk := os.read(handle, CHUNK_BYTES):
        yield chunk


@contextmanager
def opened(path: Path) -> Generator[int]:
    """Give the handle of a file that is no link and no device.

    Raises:
        TunewrightError: E_UNSAFE_PATH.
        OSError: The system refused.
    """
    if path.is_symlink():
        raise failure("E_UNSAFE_PATH", "This is a link, which may lead anywhere.", where=path)
    # A pipe would wait for someone who writes.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise failure("E_UNSAFE_PATH", "This is no plain file.", where=path)
        yield handle
    finally:
        os.close(handle)
