"""Types of GGUF files: what each takes, and what makes it here. Pure."""

import shutil
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from tunewright.errors import Problem

BITS: Mapping[str, float] = {
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "Q8_0": 8.5,
    "Q5_1": 6,
    "Q5_0": 5.5,
    "Q4_1": 5,
    "Q4_0": 4.5,
    "Q6_K": 6.57,
    "Q5_K_M": 5.70,
    "Q5_K_S": 5.57,
    "Q4_K_M": 4.89,
    "Q4_K_S": 4.67,
    "Q3_K_L": 4.30,
    "Q3_K_M": 4.00,
    "Q3_K_S": 3.64,
    "Q2_K": 3.16,
}
"""Bits a weight. A K-quant gives some tensors more, so that its figure depends on the model.

Source: ggml-common.h for the types of one block; llama.cpp, tools/quantize/README.md, for K-quants of an 8B model.
"""

K_QUANTS: Mapping[str, int] = {
    "Q2_K": 10,
    "Q3_K_S": 11,
    "Q3_K_M": 12,
    "Q3_K_L": 13,
    "Q4_K_S": 14,
    "Q4_K_M": 15,
    "Q5_K_S": 16,
    "Q5_K_M": 17,
    "Q6_K": 18,
}
"""Types that llama.cpp's own code makes, and its number of each. Source: llama.h, `llama_ftype`."""

K_BLOCK = 256
"""Values that a K-quant stores together: rows that are no multiple get another type."""
PLAIN_BLOCK = 32
"""Values that Q8_0 to Q4_0 store together."""
EXTRA, PROGRAM = "llama_cpp", "llama-quantize"


def block_of(type_name: str) -> int:
    """Return how many values of a row a type stores together."""
    if type_name in K_QUANTS:
        return K_BLOCK
    return PLAIN_BLOCK if type_name.startswith("Q") else 1


def quantizer() -> str | None:
    """Return what makes K-quants here: `llama_cpp`, the path of a `llama-quantize`, or None."""
    return EXTRA if find_spec(EXTRA) is not None else shutil.which(PROGRAM)


def missing_quantizer(types: Iterable[str]) -> list[Problem]:
    """Return the problem that some of the types cannot be made here, if it is one."""
    wanted = [name for name in types if name in K_QUANTS]
    if not wanted or quantizer() is not None:
        return []
    return [
        Problem(
            "E_CONFIG_VALUE",
            f"{', '.join(wanted)}: neither llama-cpp-python nor a `{PROGRAM}` is installed.",
            "export.quantization",
            f"pip install 'tunewright[kquants]' (it compiles for some minutes), put `{PROGRAM}` on the PATH, "
            "or choose Q8_0, Q5_1, Q5_0, Q4_1 or Q4_0.",
        )
    ]
