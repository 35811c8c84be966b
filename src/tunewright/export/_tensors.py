"""The tensors of a model folder as GGUF stores them, a block of rows in memory at a time."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, get_tensor_name_map
from gguf.constants import MODEL_ARCH
from gguf.quants import quant_shape_to_byte_shape, quantize

from tunewright.errors import Problem, TunewrightError
from tunewright.export.architecture import LLAMA_CPP, Shape
from tunewright.models._shards import DTYPES, Place, places_in, shards_of
from tunewright.models.headers import Stored

BLOCK_BYTES = 2**20
"""What is read at a time: so little that it stays in a processor's cache while it is encoded."""

_ARCHES = {"llama": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "qwen3": MODEL_ARCH.QWEN3}
_FLOATS = ("F32", "F16", "BF16")
_COMPUTED = (".rotary_emb.inv_freq",)
"""Ends of what some folders hold and every loader computes."""
_ROTARY = re.compile(r"\.self_attn\.([qk])_proj\.(?:weight|bias)$")


@dataclass(frozen=True)
class Tensor:
    """A tensor on its way.

    Attributes:
        name: Its name in the GGUF.
        shape: Rows first, as in the model folder.
        type: How it is stored.
        heads: Heads whose rows are put into llama.cpp's order; 0: rows stay.
        values: Where they are, or they themselves.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    heads: int
    values: Place | tuple[float, ...]

    @property
    def byte_shape(self) -> tuple[int, ...]:
        """Its shape when each row is bytes."""
        return tuple(quant_shape_to_byte_shape(self.shape, self.type))

    @property
    def bytes(self) -> int:
        """What it takes in the GGUF, without padding."""
        return math.prod(self.byte_shape)


def tensors_of(model: Path, shape: Shape, type_name: str) -> list[Tensor]:
    """Return the tensors of a model folder in the order of its files. Reads headers only.

    Raises:
        TunewrightError: E_MODEL, for each tensor that llama.cpp does not know or whose type is none of
            the three floats; two files hold a tensor of the same name.
    """
    names = get_tensor_name_map(_ARCHES[shape.family], shape.layers)
    type_ = GGMLQuantizationType[type_name]
    tensors: list[Tensor] = []
    problems: list[Problem] = []
    if shape.rope_factors:
        size = (len(shape.rope_factors),)
        f32 = GGMLQuantizationType.F32
        tensors.append(Tensor("rope_freqs.weight", size, f32, 0, shape.rope_factors))
    for name, place in places_in(shards_of(model)).items():
        stored = place.stored
        if name.endswith(_COMPUTED) or (name == "lm_head.weight" and shape.tied):
            continue
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None or stored.dtype not in _FLOATS:
            problems.append(_refused(place.file, name, stored.dtype if gguf_name else None))
            continue
        as_type = _stored_as(gguf_name, stored, type_)
        heads = _rotary_heads(name, shape)
        tensors.append(Tensor(gguf_name, stored.shape, as_type, heads, place))
    if problems:
        raise TunewrightError(problems)
    return tensors


def size_bytes(model: Path, shape: Shape, type_name: str) -> int:
    """Return the bytes that the model's tensors take as a type.

    Raises:
        TunewrightError: E_MODEL, see `tensors_of`.
    """
    return sum(tensor.bytes for tensor in tensors_of(model, shape, type_name))


def write_values(
    out: BinaryIO,
    tensor: Tensor,
    advanced: Callable[[int], None],
    *,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Write a tensor's bytes, block by block.

    Args:
        out: Where to.
        tensor: Which.
        advanced: Is told how many bytes each block took.
        block_bytes: What is read at a time, at least a row, or a head whose rows change places.
    """
    for block in _blocks(tensor, block_bytes):
        encoded = encoded_as(block, tensor.type)
        # numpy's own writing says nothing when a disk takes all but the last bytes.
        out.write(encoded.data)
        advanced(encoded.nbytes)


def encoded_as(rows: torch.Tensor, type_: GGMLQuantizationType) -> np.ndarray:
    """Return rows as a type, as gguf's own quantisation gives them, in bytes."""
    if type_ == GGMLQuantizationType.F16:
        values = rows.to(torch.float16).numpy()
    elif type_ == GGMLQuantizationType.BF16 and rows.dtype == torch.bfloat16:
        values = rows.view(torch.int16).numpy()
    else:
        values = quantize(rows.float().numpy(), type_)
    return np.ascontiguousarray(values).view(np.uint8)


def _refused(file: Path, name: str, dtype: str | None) -> Problem:
    reason = f"'{name}' is stored as {dtype}" if dtype else f"llama.cpp knows no tensor '{name}'"
    return Problem("E_MODEL", f"{reason[0].upper()}{reason[1:]}.", str(file), LLAMA_CPP)


def _stored_as(name: str, stored: Stored, type_: GGMLQuantizationType) -> GGMLQuantizationType:
    """Return the type of a tensor: norms and biases stay whole, rows that are no whole blocks are F16.

    Source: llama.cpp, conversion/base.py, `prepare_tensors`.
    """
    if len(stored.shape) <= 1 or name.endswith("_norm.weight") or not name.endswith(".weight"):
        return GGMLQuantizationType.F32
    whole = stored.shape[-1] % GGML_QUANT_SIZES[type_][0] == 0
    return type_ if whole else GGMLQuantizationType.F16


def _rotary_heads(name: str, shape: Shape) -> int:
    """Return the heads of a tensor whose rows llama.cpp wants in another order, else 0."""
    found = _ROTARY.search(name) if shape.family == "llama" else None
    if found is None:
        return 0
    return shape.heads if found[1] == "q" else shape.kv_heads


def _blocks(tensor: Tensor, block_bytes: int) -> Iterator[torch.Tensor]:
    """Give the rows in blocks, in llama.cpp's order; each is gone when the next one is asked for."""
    if not isinstance(tensor.values, Place):
        yield torch.tensor(tensor.values, dtype=torch.float32)
        return
    source, dtype = tensor.values, DTYPES[tensor.values.stored.dtype]
    unit = tensor.shape[0] // tensor.heads if tensor.heads else 1
    row_bytes = source.row_bytes
    rows = max(block_bytes // row_bytes // unit, 1) * unit
    buffer = np.empty(rows * row_bytes, np.uint8)
    with source.file.open("rb") as stream:
        stream.seek(source.begin)
        for first in range(0, tensor.shape[0], rows):
            count = min(rows, tensor.shape[0] - first)
            raw = buffer[: count * row_bytes]
            if stream.readinto(raw.data) != len(raw):
                raise OSError(f"{source.file} is cut off in {tensor.name}")
            block = torch.from_numpy(raw).view(dtype).reshape(count, *tensor.shape[1:])
            yield _interleaved(block, unit) if tensor.heads else block


def _interleaved(rows: torch.Tensor, head: int) -> torch.Tensor:
    """Return the rows with the two halves of each head, which has `head` rows, interleaved.

    Transformers rotates row i of a head with row i + half, llama.cpp rows 2i and 2i + 1.

    Source: llama.cpp, conversion/llama.py, `LlamaModel.permute`.
    """
    split = rows.reshape(-1, 2, head // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape).contiguous()
