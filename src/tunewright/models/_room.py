"""The device that is here, and how much memory is free."""

from pathlib import Path
from typing import Literal

import psutil
import torch

from tunewright.errors import failure

CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Files of a container's limit and use, of either version, and what of the use are files' pages that the kernel
gives back when memory is short: those of a model that was just read are. Source: the kernel's cgroup documentation."""


def device() -> Literal["cuda", "mps", "cpu"]:
    """Return the best device here."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def memory_free(device: str) -> int | None:
    """Return the bytes that can still be had on the device; None where it does not tell."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    if device == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return ram_free()


def ram_free() -> int:
    """Return the bytes of main memory that can still be had, within the limit of a container."""
    return min([psutil.virtual_memory().available, *container_free()])


def require_ram(need_bytes: int, what: str, where: Path) -> None:
    """Refuse to start what the system would kill.

    Room to swap counts as free: it takes long then, but ends.

    Raises:
        TunewrightError: E_OOM, with what is needed and what is there.
    """
    swap = psutil.swap_memory().free
    free = min([psutil.virtual_memory().available + swap, *container_free()])
    if free < need_bytes:
        raise failure(
            "E_OOM",
            f"{what} takes {need_bytes / 1e6:,.0f} MB of memory, and {free / 1e6:,.0f} MB are free.",
            where=where,
            fix="End other programs, or run this stage on a machine with more memory: it needs no GPU.",
        )


def container_free(root: Path = CGROUP) -> list[int]:
    """Return the bytes left of a container's limit; empty where there is none."""
    found: list[int] = []
    for limit, used, stat, cached in _LIMITS:
        try:
            left = int((root / limit).read_text()) - int((root / used).read_text())
        except (OSError, ValueError):
            continue
        found.append(max(0, left + _cached(root / stat, cached)))
    return found


def _cached(stat: Path, key: str) -> int:
    """Return the bytes of files' pages that are given back first; 0 where that is not told."""
    try:
        lines = dict(line.split() for line in stat.read_text().splitlines())
        return int(lines.get(key, 0))
    except (OSError, ValueError):
        return 0
