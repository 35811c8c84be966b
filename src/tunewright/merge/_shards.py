"""Safetensors files read and written by ranges: in memory is a stretch of rows, and nothing is mapped."""

import json
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BufferedIOBase, FileIO, RawIOBase
from pathlib import Path

import torch

from tunewright.errors import failure
from tunewright.models.headers import Stored, read_header

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
CHUNK_BYTES = 2**21
AHEAD = 16
"""Stretches that may wait to be written."""
Stream = RawIOBase | BufferedIOBase
Bytes = bytes | memoryview
ALIGNMENT = 8
"""Bytes; the header ends at a multiple of it. Source: the format's description."""
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Place:
    """Where a tensor is.

    Attributes:
        file: Its file.
        begin: First byte in the file.
        stored: As the header describes it.
    """

    file: Path
    begin: int
    stored: Stored

    @property
    def rows(self) -> int:
        """Entries of the first dimension."""
        return self.stored.shape[0] if self.stored.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one of them."""
        return self.size_bytes // max(self.rows, 1)

    @property
    def size_bytes(self) -> int:
        """Bytes of all."""
        return self.stored.end - self.stored.begin


def shards_of(folder: Path) -> list[Path]:
    """Return the files that Transformers loads a model from: one, or those of its index.

    Others may lie there, such as the same weights under their maker's names.
    """
    one, index = folder / "model.safetensors", folder / INDEX
    if one.is_file() or not index.is_file():
        return [one] if one.is_file() else sorted(folder.glob("*.safetensors"))
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted(set(names))]


def places_in(files: Iterable[Path]) -> dict[str, Place]:
    """Return where each tensor of some files is, in the order of files and of bytes.

    Raises:
        TunewrightError: E_MODEL, two files hold a tensor of the same name.
    """
    found: dict[str, Place] = {}
    for file in files:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
        for name, stored in sorted(read_header(file).items(), key=lambda item: item[1].begin):
            if name in found:
                message = f"'{name}' is in {found[name].file.name} as well."
                raise failure("E_MODEL", message, where=file, fix="Fetch the model again.")
            found[name] = Place(file, 8 + length + stored.begin, stored)
    return found


def read_rows(stream: Stream, place: Place, first: int = 0, end: int | None = None) -> torch.Tensor:
    """Return rows of a tensor, in its own precision.

    Raises:
        OSError: The file is shorter than its header says.
    """
    end = place.rows if end is None else end
    data = torch.empty((end - first) * place.row_bytes, dtype=torch.uint8)
    stream.seek(place.begin + first * place.row_bytes)
    left = data.numpy().data
    while left:
        count = stream.readinto(left)
        if not count:
            raise OSError(f"{place.file.name} ends early")
        left = left[count:]
    shape = (end - first, *place.stored.shape[1:]) if place.stored.shape else ()
    return data.view(DTYPES[place.stored.dtype]).view(shape)


def read_tensor(place: Place) -> torch.Tensor:
    """Return a whole tensor, in its own precision."""
    with place.file.open("rb") as stream:
        return read_rows(stream, place)


def raw_chunks(stream: Stream, place: Place) -> Iterator[Bytes]:
    """Give the bytes of a tensor, a stretch at a time."""
    stream.seek(place.begin)
    left = place.size_bytes
    while left:
        data = stream.read(min(left, CHUNK_BYTES))
        if not data:
            raise OSError(f"{place.file.name} ends early")
        left -= len(data)
        yield data


def mean_row(stream: Stream, place: Place) -> torch.Tensor:
    """Return the mean of a tensor's rows in float64."""
    step = max(1, CHUNK_BYTES // max(place.row_bytes, 1))
    total = torch.zeros(place.stored.shape[1:], dtype=torch.float64)
    for first in range(0, place.rows, step):
        total += read_rows(stream, place, first, min(first + step, place.rows)).double().sum(0)
    return total / place.rows


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
