"""Zip files from anywhere, read with limits: what docx and epub files are."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from tunewright.errors import TunewrightError, failure, first_line

MAX_BYTES = 200_000_000
"""Bytes that all members may have together, unpacked."""
MAX_MEMBERS = 10_000
DAMAGE = (
    BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    UnicodeError,
    ValueError,
)
"""What `zipfile` raises for a file that is damaged, encrypted or packed in a way it does not know."""


def refused(file: Path, reason: str, *, fix: str | None = None) -> TunewrightError:
    """Return the error for a file that cannot be used as a manuscript."""
    fix = fix or "Open it in the program that made it, and save it again, or save it as text."
    return failure("E_DATA_ROW", reason, where=file, fix=fix)


@contextmanager
def open_archive(file: Path) -> Iterator[ZipFile]:
    """Return an archive whose members have been checked.

    Raises:
        TunewrightError: E_DATA_ROW, it is damaged, too large, or has members outside of it.
        OSError: It cannot be opened.
    """
    with file.open("rb") as stream:
        try:
            archive = ZipFile(stream)
        except DAMAGE as error:
            raise refused(file, f"The file is damaged: {first_line(error)}.") from error
        with archive:
            _check(file, archive)
            yield archive


def _check(file: Path, archive: ZipFile) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise refused(file, f"It has {len(members)} parts; {MAX_MEMBERS} are allowed.")
    size = sum(member.file_size for member in members)
    if size > MAX_BYTES:
        raise refused(file, f"It unpacks to {size:,} bytes; {MAX_BYTES:,} are allowed.")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or path.as_posix()[1:2] == ":":
            raise refused(file, f"It has a part outside of itself: {member.filename!r}.")


def read_member(file: Path, archive: ZipFile, name: str) -> bytes:
    """Return the bytes of a member.

    Raises:
        TunewrightError: E_DATA_ROW, it is missing or damaged.
    """
    try:
        return archive.read(name)
    except DAMAGE as error:
        if isinstance(error, KeyError):
            raise refused(file, f"The file is damaged: {name} is missing.") from error
        raise refused(file, f"The file is damaged: {name}: {first_line(error)}.") from error
