"""The header of a safetensors file, read by rules stricter than the library's. Pure.

The library takes the last of two entries of one name, so that a file may hold another tensor than the one
that a reader of its header has seen.

Source: the format's description, https://github.com/huggingface/safetensors#format.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

MAX_HEADER_BYTES = 100_000_000
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip
"""Bits of a value of each type that the format knows."""


@dataclass(frozen=True)
class Stored:
    """A tensor as a header describes it.

    Attributes:
        dtype: A key of BITS.
        shape: Its sizes.
        begin: First byte, counted from the end of the header.
        end: Byte after its last.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def check_safetensors(file: Path) -> list[str]:
    """Return why a file is no sound safetensors file; empty: it is. Reads the header only."""
    try:
        read_header(file)
    except HeaderError as error:
        return error.reasons
    return []


class HeaderError(ValueError):
    """A header that breaks rules.

    Attributes:
        reasons: One for each rule and tensor.
    """

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


def read_header(file: Path) -> dict[str, Stored]:
    """Return every tensor of a safetensors file by its name.

    Raises:
        HeaderError: The file is cut off, or its header breaks a rule.
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        size_bytes = file.stat().st_size
        raw = _raw_header(stream.read(8), size_bytes)
        text = stream.read(raw)
    return parse_header(text, size_bytes - 8 - raw)


def parse_header(text: bytes, data_bytes: int) -> dict[str, Stored]:
    """Return every tensor that a header describes.

    Args:
        text: The header.
        data_bytes: Size of what follows it.

    Raises:
        HeaderError: It breaks a rule.
    """
    entries = _entries(text)
    _require_metadata(entries.pop("__metadata__", {}))
    stored: dict[str, Stored] = {}
    reasons: list[str] = []
    for name, entry in entries.items():
        try:
            stored[name] = _stored(entry)
        except ValueError as error:
            reasons.append(f"'{name}' {error}")
    if not reasons:
        reasons = _gaps(stored, data_bytes)
    if reasons:
        raise HeaderError(reasons)
    return stored


def _raw_header(first: bytes, size_bytes: int) -> int:
    """Return the length of the header, which is the file's first number."""
    if len(first) < 8:
        raise HeaderError(["it is cut off before the header"])
    (length,) = cast("tuple[int]", struct.unpack("<Q", first))
    if length > MAX_HEADER_BYTES:
        raise HeaderError([f"the header has {length:,} bytes, more than {MAX_HEADER_BYTES:,}"])
    if 8 + length > size_bytes:
        raise HeaderError(["it is cut off in the header"])
    return length


def _entries(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise HeaderError(["the header does not begin with '{'"])
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except HeaderError:
        raise
    except (ValueError, RecursionError) as error:
        raise HeaderError(["the header is not JSON"]) from error
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; the same name twice is refused."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise HeaderError([f"'{name}' is there twice"])
        found[name] = value
    return found


def _require_metadata(value: Any) -> None:
    texts = cast("dict[str, Any]", value).values() if isinstance(value, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise HeaderError(["'__metadata__' holds more than texts"])


def _stored(entry: Any) -> Stored:
    """Return an entry as what it says.

    Raises:
        ValueError: It breaks a rule: says which.
    """
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("does not have just dtype, shape and data_offsets")
    fields = cast("dict[str, Any]", entry)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"is of the unknown type {str(dtype)[:40]!r}")
    if not _are_sizes(shape):
        raise ValueError("has a shape that is no list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError("has offsets that are no range")
    bits, begin, end = math.prod(shape) * BITS[dtype], *offsets
    if bits != 8 * (end - begin):
        raise ValueError(f"is {dtype} {shape} and has {end - begin:,} bytes, not {bits / 8:,.0f}")
    return Stored(dtype, tuple(shape), begin, end)


def _are_sizes(values: Any) -> bool:
    """Tell whether it is a list of numbers that a file can have; True and 1.0 are none."""
    if not isinstance(values, list):
        return False
    numbers = cast("list[Any]", values)
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _gaps(stored: dict[str, Stored], data_bytes: int) -> list[str]:
    """Return where the tensors do not cover the data exactly once."""
    order = sorted(stored.items(), key=lambda item: (item[1].begin, item[1].end))
    edges = [("the header", 0), *((f"'{name}'", entry.end) for name, entry in order)]
    begins = [(f"'{name}'", entry.begin) for name, entry in order]
    reasons: list[str] = []
    for (before, end), (name, begin) in zip(edges, begins, strict=False):
        if begin < end:
            reasons.append(f"{name} overlaps {before}")
        elif begin > end:
            reasons.append(f"{begin - end:,} bytes between {before} and {name} belong to no tensor")
    last, end = edges[-1]
    if end > data_bytes:
        reasons.append(f"it is cut off in {last}: {end - data_bytes:,} bytes are missing")
    elif end < data_bytes:
        reasons.append(f"{data_bytes - end:,} bytes after {last} belong to no tensor")
    return reasons
