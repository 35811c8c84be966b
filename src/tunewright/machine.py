"""Facts about this machine."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from tunewright.config import version
from tunewright.errors import failure


@dataclass(frozen=True)
class Space:
    """Free disk space.

    Attributes:
        path: The existing folder that was asked.
        free_bytes: Bytes that can still be written.
    """

    path: Path
    free_bytes: int


def disk_space(path: Path) -> Space:
    """Return the free space at `path`, or at its nearest parent that exists."""
    probe = path.absolute()
    while not probe.exists():
        probe = probe.parent
    return Space(probe, shutil.disk_usage(probe).free)


def require_space(path: Path, need_bytes: int) -> None:
    """Refuse to start what cannot be written.

    Raises:
        TunewrightError: E_DISK_SPACE with what is needed and what is there.
    """
    space = disk_space(path)
    if space.free_bytes < need_bytes:
        raise failure(
            "E_DISK_SPACE",
            f"{need_bytes / 1e6:,.0f} MB are needed and {space.free_bytes / 1e6:,.0f} MB are free.",
            where=space.path,
        )


CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Return the number of processors that this process may use, a container's share of their time included."""
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, int(cpu_quota() or allowed)))


def cpu_quota() -> float | None:
    """Return how many processors' time a container has, in either version of its files; None: there is no limit.

    Source: the kernel's documentation of cgroups, cpu.max and cpu.cfs_quota_us.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((CGROUP / name).read_text() for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError):
            # Not there, or `max`.
            continue
    return None


LIBRARIES = (
    "tunewright",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "gguf",
    "xllamacpp",
)
"""Packages whose version decides what a run computes."""


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of every package that decides what a run computes."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def process_rank() -> int:
    """Return the number of this process among those that a launcher started together; 0 without one."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Return how many processes a launcher (`accelerate launch`, `torchrun`) started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_sharded() -> bool:
    """Return whether the launcher asked for FSDP: each process keeps a share of the model."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def shards() -> int:
    """Return into how many shares the model is cut; 1 where each process holds the whole of it."""
    return process_count() if is_sharded() else 1
