"""The header and tensor table of a GGUF file, read with every bound checked. Pure.

As a script it reads the file on its standard input under limits and prints its faults as JSON, so that
what comes from outside is read in a process of its own. Nothing but Python's own modules is imported.

Source: ggml, docs/gguf.md, and ggml/src/gguf.cpp for what llama.cpp takes.
"""

import json
import math
import struct
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

try:
    import resource
except ImportError:  # Windows has no such limits; the deadline holds there, too
    resource = None

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 2**16
"""Metadata keys, and tensors: the largest models have a few thousand."""
MAX_KEY_BYTES = 2**16 - 1
MAX_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_PARAMETERS = 2**63 - 1
DEFAULT_ALIGNMENT = 32
ALIGNMENTS = tuple(2**n for n in range(3, 17))
MAX_FAULTS = 8
MEMORY_BYTES = 512 * 2**20
CPU_SECONDS = 30

STRING, ARRAY, UINT32 = 8, 9, 4
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""Type of a metadata value to how it is packed."""

TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Number of a tensor type to its name, values a block and bytes a block."""

KEY_LENGTH = "attention.key_length"
BOUNDS = {
    "context_length": (1, 2**24),
    "block_count": (1, 512),
    "rope.dimension_count": (2, 2**16),
    "attention.layer_norm_rms_epsilon": (0.0, 1.0),
    "attention.layer_norm_epsilon": (0.0, 1.0),
}
"""Keys of an architecture to values with which llama.cpp does not abort, as was tried."""


class GgufError(ValueError):
    """The file is no GGUF that may be loaded.

    Attributes:
        faults: Each as (where in the file, what is wrong).
    """

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{where}: {what}" for where, what in faults))


@dataclass(frozen=True)
class StoredTensor:
    """A row of the tensor table.

    Attributes:
        name: llama.cpp's.
        shape: Fastest dimension first, as the file has it.
        type: Name of the type.
        start: Byte of the file at which it begins.
        bytes: How many it takes.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    start: int
    bytes: int


@dataclass(frozen=True)
class Layout:
    """What a GGUF file says of itself.

    Attributes:
        version: Of the format.
        metadata: Numbers, truths and texts of up to 4,096 bytes by key; of arrays the length. What was
            asked for whole is here as it is.
        tensors: In the order of the table.
    """

    version: int
    metadata: dict[str, object]
    tensors: list[StoredTensor]


@dataclass
class _Reader:
    """A file that is read forwards, and never past its end.

    Attributes:
        stream: Open, at its beginning.
        size: Bytes of the file.
        at: Where the next byte is read.
        place: What is being read, for faults.
    """

    stream: BinaryIO
    size: int
    at: int = 0
    place: str = "the header"
    scalars: dict[str, struct.Struct] = field(default_factory=dict[str, struct.Struct])

    def fault(self, what: str) -> GgufError:
        """Return an error for what was read last."""
        return GgufError([(f"{self.place}, byte {self.at}", what)])

    def require(self, count: int, what: str) -> None:
        """Refuse what says that it is longer than the file."""
        if count > self.size - self.at:
            raise self.fault(f"{what} needs {count:,} bytes and {self.size - self.at:,} are left")

    def take(self, count: int, what: str) -> bytes:
        """Return the next bytes."""
        self.require(count, what)
        data = self.stream.read(count)
        if len(data) != count:
            raise self.fault(f"{what} is cut off")
        self.at += count
        return data

    def skip(self, count: int, what: str) -> None:
        """Go past the next bytes."""
        self.require(count, what)
        self.stream.seek(count, 1)
        self.at += count

    def number(self, code: str, what: str) -> int:
        """Return the next number of a packing."""
        form = self.scalars.setdefault(code, struct.Struct(code))
        return form.unpack(self.take(form.size, what))[0]


def read_layout(stream: BinaryIO, whole: Collection[str] = ()) -> Layout:
    """Return header, metadata and tensor table of an open file.

    Args:
        stream: The file.
        whole: Keys of texts and arrays that are kept, however long they are.

    Raises:
        GgufError: It is no GGUF, is cut off, or contradicts itself.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    reader = _Reader(stream, size)
    version = _version(reader)
    tensors, keys = (reader.number("<Q", f"the number of {of}") for of in ("tensors", "keys"))
    for count, of, least in ((tensors, "tensors", 33), (keys, "metadata keys", 14)):
        if count > MAX_ENTRIES:
            raise reader.fault(f"{count:,} {of}, more than the {MAX_ENTRIES:,} that are allowed")
        reader.require(count * least, f"a list of {count:,} {of}")
    metadata = _metadata(reader, keys, whole)
    _require_plausible(metadata)
    rows = list(_rows(reader, tensors))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int):
        raise GgufError([("general.alignment", "it is no number")])
    return Layout(version, metadata, _placed(rows, reader.at, alignment, size))


def _version(reader: _Reader) -> int:
    if reader.take(4, "the header") != MAGIC:
        raise reader.fault("it does not begin with GGUF")
    version = reader.number("<I", "the version")
    if version in VERSIONS:
        return version
    if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
        raise reader.fault("it is written for machines with the other order of bytes")
    raise reader.fault(f"version {version}; known are {', '.join(map(str, VERSIONS))}")


def _metadata(reader: _Reader, count: int, whole: Collection[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for index in range(count):
        reader.place = f"metadata key {index + 1} of {count}"
        key = _text(reader, MAX_KEY_BYTES, "the key")
        if key in found:
            raise reader.fault(f"the key {key!r} is there twice")
        reader.place = f"metadata {key!r}"
        kind = reader.number("<I", "the type")
        found[key] = _kept(reader, kind) if key in whole else _value(reader, kind)
        if key == "general.alignment" and (kind != UINT32 or found[key] not in ALIGNMENTS):
            raise reader.fault(
                f"the alignment is {found[key]}, not a power of two from {ALIGNMENTS[0]} to "
                f"{ALIGNMENTS[-1]:,} in 32 bits"
            )
    return found


def _require_plausible(metadata: dict[str, object]) -> None:
    architecture = metadata.get("general.architecture")
    faults: list[tuple[str, str]] = []
    for key, (least, most) in BOUNDS.items():
        name = f"{architecture}.{key}"
        value = metadata.get(name, least)
        # Written so that NaN is refused.
        if not (isinstance(value, int | float) and least <= value <= most):
            faults.append((f"metadata {name!r}", f"it is {value}, not from {least:,} to {most:,}"))
    turned, whole = (
        metadata.get(f"{architecture}.{k}") for k in ("rope.dimension_count", KEY_LENGTH)
    )
    if isinstance(turned, int) and (turned % 2 or (isinstance(whole, int) and turned > whole)):
        what = f"{turned} dimensions of a head of {whole} cannot be turned"
        faults.append((f"metadata '{architecture}.rope.dimension_count'", what))
    if faults:
        raise GgufError(faults)


def _kept(reader: _Reader, kind: int) -> object:
    """Return a value as it is, however long."""
    if kind == STRING:
        return _long_text(reader)
    if kind != ARRAY:
        return _value(reader, kind)
    kind, count = _array_of(reader)
    if kind == STRING:
        return [_long_text(reader) for _ in range(count)]
    code = SCALARS[kind]
    data = reader.take(count * struct.calcsize(code), f"an array of {count:,}")
    return [value for (value,) in struct.iter_unpack(code, data)]


def _long_text(reader: _Reader) -> str:
    length = reader.number("<Q", "the length of the text")
    return reader.take(length, "the text").decode(errors="replace")


def _value(reader: _Reader, kind: int) -> object:
    if kind in SCALARS:
        return reader.number(SCALARS[kind], "the value")
    if kind == STRING:
        length = reader.number("<Q", "the length of the text")
        if length <= 4096:
            return reader.take(length, "the text").decode(errors="replace")
        reader.skip(length, "the text")
        return None
    if kind == ARRAY:
        return _array(reader)
    raise reader.fault(f"values of type {kind} are unknown")


def _array(reader: _Reader) -> int:
    """Go past an array and return its length."""
    kind, count = _array_of(reader)
    if kind in SCALARS:
        reader.skip(count * struct.calcsize(SCALARS[kind]), f"an array of {count:,}")
        return count
    for _ in range(count):
        length = reader.number("<Q", "the length of a text")
        reader.skip(length, "a text")
    return count


def _array_of(reader: _Reader) -> tuple[int, int]:
    """Return the type of an array's values, numbers or texts, and how many there are."""
    kind = reader.number("<I", "the type of the array")
    count = reader.number("<Q", "the length of the array")
    if kind == ARRAY:
        raise reader.fault("an array in an array, which llama.cpp does not read")
    if kind == STRING:
        reader.require(count * 8, f"an array of {count:,} texts")
    elif kind not in SCALARS:
        raise reader.fault(f"an array of type {kind}, which is unknown")
    return kind, count


def _text(reader: _Reader, most: int, what: str) -> str:
    length = reader.number("<Q", f"the length of {what}")
    if not 1 <= length <= most:
        raise reader.fault(f"{what} has {length:,} bytes; 1 to {most:,} are allowed")
    try:
        return reader.take(length, what).decode()
    except UnicodeDecodeError:
        raise reader.fault(f"{what} is not UTF-8") from None


def _rows(reader: _Reader, count: int) -> Iterator[StoredTensor]:
    """Give the tensor table, each tensor's start still counted from where the data begin."""
    names: set[str] = set()
    for index in range(count):
        reader.place = f"tensor {index + 1} of {count}"
        name = _text(reader, MAX_NAME_BYTES, "the name")
        reader.place = f"tensor {name!r}"
        if name in names:
            raise reader.fault("it is there twice")
        names.add(name)
        dimensions = reader.number("<I", "the number of dimensions")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise reader.fault(f"it has {dimensions:,} dimensions; 1 to {MAX_DIMENSIONS} are known")
        shape = tuple(reader.number("<Q", "the dimensions") for _ in range(dimensions))
        values = math.prod(shape)
        if not 1 <= values <= MAX_PARAMETERS:
            raise reader.fault(f"its dimensions are {' x '.join(map(str, shape))}")
        kind = reader.number("<I", "the type")
        if kind not in TENSOR_TYPES:
            raise reader.fault(f"tensors of type {kind} are unknown")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        if shape[0] % block:
            raise reader.fault(f"its rows of {shape[0]:,} are no blocks of {block} of {type_name}")
        offset = reader.number("<Q", "the offset")
        yield StoredTensor(name, shape, type_name, offset, values // block * block_bytes)


def _placed(
    rows: Sequence[StoredTensor], end: int, alignment: int, size: int
) -> list[StoredTensor]:
    """Return the tensors with their place in the file, if each has one of its own there.

    Raises:
        GgufError: With every tensor that has none.
    """
    begin = -(-end // alignment) * alignment
    faults: list[tuple[str, str]] = []
    taken, before = 0, ""
    for row in sorted(rows, key=lambda row: row.start):
        where = f"tensor {row.name!r}"
        if row.start % alignment:
            faults.append((where, f"its offset {row.start:,} is no multiple of {alignment}"))
        if begin + row.start + row.bytes > size:
            wanted = f"bytes {begin + row.start:,} to {begin + row.start + row.bytes:,}"
            faults.append((where, f"it takes {wanted}, and the file has {size:,}"))
        if row.start < taken:
            faults.append((where, f"it begins inside {before!r}"))
        taken, before = max(taken, row.start + row.bytes), row.name
    if faults:
        raise GgufError(faults[:MAX_FAULTS])
    return [
        StoredTensor(row.name, row.shape, row.type, begin + row.start, row.bytes) for row in rows
    ]


def main() -> None:
    """Print the faults of the file on the standard input as JSON: an empty list if there is none."""
    if resource is not None:
        # A system that has no such limit refuses it; the deadline of who called holds all the same.
        for limit, most in (
            (resource.RLIMIT_AS, MEMORY_BYTES),
            (resource.RLIMIT_CPU, CPU_SECONDS),
            (resource.RLIMIT_FSIZE, 0),
        ):
            with suppress(ValueError, OSError):
                resource.setrlimit(limit, (most, most))
    faults: Sequence[tuple[str, str]] = ()
    try:
        read_layout(sys.stdin.buffer)
    except GgufError as error:
        faults = error.faults
    except MemoryError:
        faults = [("the header", f"it needs more than {MEMORY_BYTES // 2**20} MB to be read")]
    sys.stdout.write(json.dumps(faults))


if __name__ == "__main__":
    main()
