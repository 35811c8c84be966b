"""Safetensors files read by ranges: in memory is a stretch of rows, and nothing is mapped."""

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase, RawIOBase
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
Stream = RawIOBase | BufferedIOBase
Bytes = bytes | memoryview
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
