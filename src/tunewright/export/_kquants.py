"""K-quants: made from a GGUF file by llama.cpp's own code."""

import subprocess
import sys
from pathlib import Path

from tunewright.errors import failure
from tunewright.machine import cpu_count
from tunewright.models.gguf_types import EXTRA, K_QUANTS, quantizer
from tunewright.models.headers import read_header

_CHILD = "tunewright.export._kquants_child"
_EXACT = {frozenset({"BF16"}): "BF16", frozenset({"F16"}): "F16"}
_LAST_WORDS = 300


def source_type(model: Path) -> str:
    """Return the GGUF type that holds a model's weights without rounding them."""
    dtypes = {
        stored.dtype
        for file in model.glob("*.safetensors")
        for stored in read_header(file).values()
    }
    return _EXACT.get(frozenset(dtypes), "F32")


def write_k_quant(source: Path, target: Path, type_name: str) -> None:
    """Write a GGUF file as one of the K-quants.

    Args:
        source: GGUF file of a type that is not quantised.
        target: The new file.
        type_name: A key of K_QUANTS.

    Raises:
        TunewrightError: E_QUANTIZE, llama.cpp ended with an error.
    """
    maker = quantizer()
    threads = str(cpu_count())
    if maker == EXTRA:
        command = [sys.executable, "-m", _CHILD, str(source), str(target)]
        command += [str(K_QUANTS[type_name]), threads]
    else:
        command = [str(maker), str(source), str(target), type_name, threads]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not target.is_file():
        words = " ".join((done.stderr.strip() or done.stdout.strip()).split())[-_LAST_WORDS:]
        message = f"Quantising to {type_name} ended with {done.returncode}: {words or 'no word'}."
        raise failure("E_QUANTIZE", message, where=target.name)
