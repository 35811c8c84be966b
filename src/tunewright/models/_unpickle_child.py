"""Reads one pickled file of weights and writes it as safetensors, in a process of its own.

    python -I -m tunewright.models._unpickle_child SOURCE TARGET MEGABYTES SECONDS

A pickle is a program. PyTorch's restricted reader takes tensors and plain containers only; should it be tricked all the
same, the process has no secrets, little time, and may write no more than the weights take. It prints JSON: the number
of tensors, or what is wrong.
"""

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

WRAPPERS = ("state_dict", "model")
"""Keys under which trainers put the weights."""


def main() -> None:
    """Convert the file that the command line names."""
    source, target = map(Path, sys.argv[1:3])
    _limit(int(sys.argv[3]) * 2**20, int(sys.argv[4]))
    try:
        found = {"tensors": converted(source, target)}
    except Exception as error:  # noqa: BLE001 - whatever a file from outside makes PyTorch raise is told
        found = {"error": " ".join(str(error).split())}
    sys.stdout.write(json.dumps(found))


def converted(source: Path, target: Path) -> int:
    """Return the number of tensors, after writing them.

    Raises:
        ValueError: The file holds other things than tensors by name.
        Exception: What PyTorch says of a file that is damaged, or that would run code.
    """
    stored: Any = torch.load(source, map_location="cpu", weights_only=True)
    for name in WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(name), Mapping):
            stored = stored[name]
    if not isinstance(stored, Mapping) or not stored:
        raise ValueError("it holds no table of tensors")
    table = cast("Mapping[Any, Any]", stored)
    others = [repr(name) for name, value in table.items() if not isinstance(value, torch.Tensor)]
    if others or not all(isinstance(name, str) for name in table):
        raise ValueError(f"it holds other things than tensors: {', '.join(others[:3]) or 'keys'}")
    # Tensors that share their memory are stored once each: safetensors knows no sharing.
    copies = {name: value.clone().contiguous() for name, value in table.items()}
    save_file(copies, target, {"format": "pt"})
    return len(table)


def _limit(most_bytes: int, seconds: int) -> None:
    pages = Path("/proc/self/statm")
    if pages.exists():
        # Libraries are loaded by now; what comes beside is the file, its tensors, and their copies.
        more = int(pages.read_text().split()[0]) * resource.getpagesize() + 2 * most_bytes
        resource.setrlimit(resource.RLIMIT_AS, (more, more))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
