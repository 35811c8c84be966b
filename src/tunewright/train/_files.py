"""Files of a checkpoint: written together with their hash, and looked at before anything is taken from them."""

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tunewright.artifacts import sha256
from tunewright.models.headers import read_header

MANIFEST = "MANIFEST.json"
ADAPTER = "adapter_model"
FORMAT = 1
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Damaged(Exception):
    """Says which file of a checkpoint is wrong, and how."""


def write(file: Path, chunks: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Put the chunks on disk and return their SHA-256 and length; hashed on the way, not read again."""
    digest, size = hashlib.sha256(), 0
    try:
        with file.open("xb") as stream:
            for chunk in chunks:
                digest.update(chunk)
                size += stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        error.filename = error.filename or str(file)
        raise
    return {"sha256": digest.hexdigest(), "bytes": size}


def serialised(tensors: Mapping[str, torch.Tensor]) -> Generator[bytes | memoryview]:
    """Yield a safetensors file in chunks, so that one tensor at a time is copied to the CPU.

    Source: the format's description, https://huggingface.co/docs/safetensors.
    """
    # Wide types first: every tensor is then aligned to its type.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, value in ordered:
        end = begin + value.nbytes
        offsets = {"data_offsets": [begin, end]}
        header[name] = {"dtype": _DTYPES[value.dtype], "shape": list(value.shape), **offsets}
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, value in ordered:
        flat = value.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def sealed(fields: Mapping[str, Any]) -> bytes:
    """Return a manifest's bytes: its fields, and the SHA-256 of them, so that it vouches for itself."""
    body = json.dumps(fields, indent=1, ensure_ascii=False)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({**fields, "seal": seal}, indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the fields of a checkpoint's manifest, which are as they were written.

    Raises:
        Damaged: They are not, or cannot be read.
    """
    file = path / MANIFEST
    if file.is_symlink() or not file.is_file():
        raise Damaged(f"{MANIFEST}: it is missing")
    raw = file.read_bytes()
    try:
        fields = json.loads(raw)
        fields.pop("seal")
        intact = sealed(fields) == raw
        well_formed = isinstance(fields["step"], int) and isinstance(fields["identity"], dict)
        well_formed &= all(
            Path(name).name == name and isinstance(entry["sha256"], str) and entry["bytes"] >= 0
            for name, entry in fields["files"].items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST}: it cannot be read") from error
    if not (intact and well_formed):
        raise Damaged(f"{MANIFEST}: it has changed since it was written")
    if fields["format"] != FORMAT:
        raise Damaged(f"{MANIFEST}: it is of format {fields['format']}, not {FORMAT}")
    return fields


def check(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Compare a file of a checkpoint with its entry in the manifest, and look at its form.

    Raises:
        Damaged: It is not the file that was written, or is no safetensors or JSON that can be trusted.
    """
    file = path / name
    if file.is_symlink() or not file.is_file():
        raise Damaged(f"{name}: it is missing")
    size = file.stat().st_size
    if size != entry["bytes"]:
        raise Damaged(f"{name}: it has {size:,} bytes in place of {entry['bytes']:,}")
    if sha256(file) != entry["sha256"]:
        raise Damaged(f"{name}: its bytes have changed since it was written")
    try:
        if file.suffix == ".safetensors":
            _check_tensors(file)
        elif file.suffix == ".json":
            parsed(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name}: {error}") from error


def _check_tensors(file: Path) -> None:
    read_header(file)
    if file.stem != ADAPTER:
        return
    with safe_open(file, framework="pt") as stream:
        for key in stream.keys():  # noqa: SIM118
            if not _finite(stream.get_tensor(key)):
                raise ValueError(f"tensor '{key}' has values that are no finite number")


def _finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    # Torch knows no finiteness of 8-bit floats.
    return bool((tensor.float() if tensor.element_size() == 1 else tensor).isfinite().all())


def parsed(raw: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is none, or names a key twice.
    """
    return json.loads(raw, object_pairs_hook=_without_repetition)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known = dict(pairs)
    if len(known) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' occurs twice")
    return known
