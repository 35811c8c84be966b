"""Looks at a GGUF file in a process of its own, before llama.cpp, which trusts it, is given it."""

import json
import subprocess
import sys
from pathlib import Path

from tunewright.errors import CODES, Problem, TunewrightError, failure
from tunewright.models import gguf_file

SECONDS = 60
"""Deadline of the process; the tables of the largest vocabularies take half a second."""


def require_gguf(file: Path, *, seconds: float = SECONDS) -> None:
    """Refuse a file whose header or tensor table cannot be trusted.

    Raises:
        TunewrightError: E_GGUF_INVALID, with every fault and its place.
    """
    command = [sys.executable, "-I", "-S", gguf_file.__file__]
    try:
        with file.open("rb") as stream:
            done = subprocess.run(
                command, stdin=stream, capture_output=True, timeout=seconds, check=False
            )
    except subprocess.TimeoutExpired:
        message = f"Its tables cannot be read within {seconds:g} seconds."
        raise failure("E_GGUF_INVALID", message, where=file) from None
    if done.returncode:
        # Killed at a limit, or a fault of the reader's own: either way the file was not understood.
        message = f"Reading its tables ended with {done.returncode}."
        raise failure("E_GGUF_INVALID", message, where=file)
    faults: list[tuple[str, str]] = json.loads(done.stdout)
    if faults:
        fix = CODES["E_GGUF_INVALID"].fix
        raise TunewrightError(
            Problem("E_GGUF_INVALID", f"{_sentence(where)}: {what}.", str(file), fix)
            for where, what in faults
        )


def _sentence(where: str) -> str:
    return where[:1].upper() + where[1:]
