"""Texts that name files and folders."""

from pathlib import Path

from tunewright.errors import failure

MAX_PART_BYTES = 255
MAX_PATH_BYTES = 4095
"""Source: the limits of Linux, NAME_MAX and PATH_MAX."""


def fault_of(text: str, *, spare_bytes: int = 0) -> str | None:
    """Return why a text cannot be a path, or None; `spare_bytes` stay free in each part of it."""
    if "\0" in text:
        return "holds a NUL byte"
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    longest = MAX_PART_BYTES - spare_bytes
    if any(len(part) > longest for part in raw.split(b"/")):
        return f"has a part of more than {longest} bytes"
    return f"has more than {MAX_PATH_BYTES:,} bytes" if len(raw) > MAX_PATH_BYTES else None


def usable_path(text: str, *, spare_bytes: int = 0) -> Path:
    """Return the path that a text names, `~` filled in.

    Raises:
        TunewrightError: E_NAME, it cannot be a path. E_NOT_FOUND, `~name` is nobody's home.
    """
    fault = fault_of(text, spare_bytes=spare_bytes)
    if fault is not None:
        fix = "Use another name: rename the file or folder."
        raise failure("E_NAME", f"The path {fault}.", where=ascii(text[:200])[1:-1], fix=fix)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        message = f"There is no home folder for '{Path(text).parts[0]}'."
        raise failure("E_NOT_FOUND", message, where=text) from error
