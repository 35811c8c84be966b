"""llama.cpp's own converter, for architectures that we do not write: run in a process of its own."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from tunewright.errors import failure

SCRIPT = "convert_hf_to_gguf.py"
TYPES = ("F32", "F16", "BF16", "Q8_0")
"""What it writes. Source: llama.cpp, convert_hf_to_gguf.py, `--outtype`."""
TIMEOUT_SECONDS = 12 * 3600.0
_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY")
_LINES = 5


def require_converter(checkout: Path) -> Path:
    """Return the converter of a llama.cpp checkout.

    Raises:
        TunewrightError: E_NOT_FOUND, the folder is no checkout.
    """
    script = checkout / SCRIPT
    if not script.is_file():
        raise failure(
            "E_NOT_FOUND",
            f"The folder has no {SCRIPT}.",
            where=checkout,
            fix="Name a checkout of llama.cpp (`git clone` of ggml-org/llama.cpp) as `export.llama_cpp`.",
        )
    return script


def convert_with(
    checkout: Path,
    model: Path,
    file: Path,
    type_name: str,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Write a model folder as GGUF with a llama.cpp checkout's converter.

    It runs without a shell, offline and without our tokens, and writes beside the file; the file appears
    when it has ended well.

    Args:
        checkout: Folder of llama.cpp.
        model: The model's folder.
        file: The new file.
        type_name: One of TYPES.
        timeout_seconds: After which it is ended.

    Raises:
        TunewrightError: E_NOT_FOUND, the folder is no checkout. E_CONFIG_VALUE, the converter does not write
            the type. E_CONVERTER, it failed, took too long or wrote nothing.
    """
    script = require_converter(checkout)
    if type_name not in TYPES:
        raise failure(
            "E_CONFIG_VALUE",
            f"llama.cpp's converter does not write {type_name}.",
            where="export.quantization",
            fix=f"Ask for one of {', '.join(TYPES)}.",
        )
    draft = file.with_name(f".{file.name}.part")
    arguments = [str(model), "--outfile", str(draft), "--outtype", type_name.lower()]
    try:
        with tempfile.TemporaryFile() as log:
            reason = _failure([sys.executable, str(script), *arguments], log, timeout_seconds)
        if not reason and not (draft.is_file() and draft.stat().st_size):
            reason = "it ended well and wrote no file"
        if reason:
            raise failure("E_CONVERTER", f"llama.cpp's converter failed: {reason}.", where=script)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _failure(command: list[str], log: BinaryIO, timeout_seconds: float) -> str:
    """Return why a command failed, with the last lines it wrote; empty if it did not."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not any(word in name.upper() for word in _SECRETS)
    }
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=kept | offline,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {timeout_seconds:,.0f} seconds{_last_lines(log)}"
    return f"exit code {ended.returncode}{_last_lines(log)}" if ended.returncode else ""


def _last_lines(log: BinaryIO) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(log.tell() - 4096, 0))
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines()]
    return "".join(f": {line[:200]}" for line in [line for line in lines if line][-_LINES:])
