"""Safetensors files written a stretch at a time."""

import json
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from io import FileIO
from pathlib import Path

import torch

from tunewright.models._shards import INDEX, Bytes
from tunewright.models.headers import Stored

AHEAD = 16
"""Stretches that may wait to be written."""
ALIGNMENT = 8
"""Bytes; the header ends at a multiple of it. Source: the format's description."""


def write_shard(
    file: Path, tensors: Mapping[str, Stored], contents: Callable[[str], Iterable[Bytes]]
) -> Iterator[int]:
    """Write a safetensors file; give the number of bytes after each stretch that is written.

    Args:
        file: Where to.
        tensors: Type and shape of each, in the order in which they are written.
        contents: Gives the bytes of one.
    """
    at = 0
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, stored in tensors.items():
        size = stored.end - stored.begin
        place = [at, at + size]
        entries[name] = {
            "dtype": stored.dtype,
            "shape": list(stored.shape),
            "data_offsets": place,
        }
        at += size
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    parts = (data for name in tensors for data in contents(name))
    # What is written goes to the system beside the computing of what comes next.
    with file.open("wb", buffering=0) as stream, ThreadPoolExecutor(1) as writer:
        _write_all(stream, struct.pack("<Q", len(header)) + header)
        waiting: deque[Future[int]] = deque()
        for data in parts:
            waiting.append(writer.submit(_write_all, stream, data))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write_all(stream: FileIO, data: Bytes) -> int:
    """Write all of some bytes, and return how many: an unbuffered file may take a part only."""
    view = memoryview(data)
    try:
        while view:
            view = view[stream.write(view) or 0 :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(stream.name)) from error
    return len(data)


def with_rows(stored: Stored, rows: int) -> Stored:
    """Return the description of a tensor with another number of rows."""
    size = (stored.end - stored.begin) // max(stored.shape[0], 1) * rows
    return replace(stored, shape=(rows, *stored.shape[1:]), end=stored.begin + size)


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor as they are stored."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def write_index(folder: Path, files: Mapping[str, Iterable[str]], total_bytes: int) -> None:
    """Write the index of a model of several files.

    Args:
        folder: The model's.
        files: Names of the tensors in each file.
        total_bytes: Of all tensors.
    """
    where = {name: file for file, names in files.items() for name in names}
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(where.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
