"""Quantises a GGUF file with llama-cpp-python; a process of its own, because it is C++ that may abort."""

import ctypes
import os
import sys
from importlib import import_module
from typing import Any


def main(source: str, target: str, type_number: str, threads: str) -> int:
    """Return llama.cpp's exit code: 0 if the file is written."""
    # By name, because it is an extra, whose types are there or not.
    llama_cpp: Any = import_module("llama_cpp")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = int(type_number)
    params.nthread = int(threads)
    return llama_cpp.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(params)
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
