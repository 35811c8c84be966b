"""What a GGUF file says of itself, without its weights. Pure.

Source: the GGUF specification, version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.models.gguf_file import ARRAY, SCALARS, STRING

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALL_F32 = 0
"""`general.file_type` of a file whose weights are in 32 bits."""
CONTROL = 3
"""Type of a token that the model's makers, and not a text, put in."""


def header(file: Path) -> dict[str, Any]:
    """Return the metadata of a file: name of each key to its value.

    Raises:
        ValueError: It is no GGUF file, or a damaged one.
        OSError: It cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:

        def take(count: int) -> bytes:
            if count > size:
                raise ValueError("it names more bytes than it has")
            data = stream.read(count)
            if len(data) != count:
                raise ValueError("it ends within its metadata")
            return data

        if take(4) != MAGIC:
            raise ValueError("it does not begin as a GGUF file does")
        version, _, pairs = struct.unpack("<IQQ", take(20))
        if version not in VERSIONS:
            raise ValueError(f"it is of version {version}")
        found: dict[str, Any] = {}
        for _ in range(pairs):
            key = _text(take)
            found[key] = _value(take, struct.unpack("<I", take(4))[0])
        return found


def _text(take: Callable[[int], bytes]) -> str:
    return take(struct.unpack("<Q", take(8))[0]).decode("utf-8", errors="replace")


def _value(take: Callable[[int], bytes], kind: int) -> Any:
    if kind == STRING:
        return _text(take)
    if kind in SCALARS:
        form = SCALARS[kind]
        return struct.unpack(form, take(struct.calcsize(form)))[0]
    if kind != ARRAY:
        raise ValueError(f"a value has the unknown type {kind}")
    inner, count = struct.unpack("<IQ", take(12))
    if inner in SCALARS:
        form = SCALARS[inner]
        return list(struct.unpack(f"<{count}{form[1]}", take(count * struct.calcsize(form))))
    if inner != STRING:
        raise ValueError(f"a list has the type {inner}")
    return [_text(take) for _ in range(count)]
