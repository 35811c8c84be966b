"""How much memory is free here."""

from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Files of a container's limit and use, of either version. Source: the kernel's cgroup documentation."""


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


def container_free(root: Path = CGROUP) -> list[int]:
    """Return the bytes left of a container's limit; empty where there is none."""
    found: list[int] = []
    for limit, used in _LIMITS:
        try:
            left = int((root / limit).read_text()) - int((root / used).read_text())
        except (OSError, ValueError):
            continue
        found.append(max(0, left))
    return found
