"""The machine, and options that several scripts have."""

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

CACHE = Path.home() / ".cache" / "tunewright" / "bench"


def machine() -> str:
    """Return what was measured on."""
    name = platform.processor() or platform.machine()
    file = Path("/proc/cpuinfo")
    if file.exists():
        lines = file.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    memory = psutil.virtual_memory().total / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GB, Python {platform.python_version()}"


def several(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return what reads names with commas between them, and refuses those that are not known."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown)}; known: {', '.join(known)}"
            )
        return names

    return parse
