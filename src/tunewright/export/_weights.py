"""Proof that a GGUF file holds the merged model's weights: each is read back and compared."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, get_tensor_name_map
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES
from gguf.quants import dequantize
from safetensors import safe_open

from tunewright.export.architecture import Shape
from tunewright.models.gguf_file import Layout, StoredTensor, read_layout
from tunewright.models.gguf_types import K_BLOCK, K_QUANTS, PLAIN_BLOCK, block_of

MAX_ERROR: Mapping[str, float] = {
    "F32": 0.0,
    "F16": 2.0**-11,
    "BF16": 2.0**-8,
    "Q8_0": 0.006,
    "Q5_1": 0.05,
    "Q5_0": 0.075,
    "Q4_1": 0.09,
    "Q4_0": 0.15,
    "Q6_K": 0.04,
    "Q5_K": 0.12,
    "Q4_K": 0.2,
    "Q3_K": 0.4,
    "Q2_K": 0.7,
}
"""Largest error of a weight that a type may bring, as a share of the largest weight of its block.

F16 and BF16 by their mantissas; Q8_0 to Q4_0 by half a step of the scale, and a whole one at the end where
the scale is one-sided; K-quants as measured (docs/guides/which-quantisation.md) and half as much again, of
their 256 values, since the scales of the parts of a block are themselves rounded to that of the largest.
"""
_TINY = 2.0**-24
"""F16's smallest step: below it a weight becomes 0 or this."""


@dataclass(frozen=True)
class WeightProof:
    """What was found in a file.

    Attributes:
        tensors: How many the model has.
        faults: What is wrong, each with the tensor's name.
        error: Largest error of a weight, as a share of what its type may bring.
    """

    tensors: int
    faults: list[str]
    error: float


def layout_of(file: Path) -> Layout:
    """Return the metadata and the tensor table of a GGUF file."""
    with file.open("rb") as stream:
        return read_layout(stream)


def stored_facts(layout: Layout, type_name: str) -> dict[str, Any]:
    """Return how a file's tensors are stored.

    That is how many are of each type, how many matrices are of another type than was asked for, and what a
    weight takes.
    """
    parameters = sum(math.prod(tensor.shape) for tensor in layout.tensors)
    return {
        "tensor_types": dict(Counter(tensor.type for tensor in layout.tensors)),
        "fallback_tensors": sum(_fell_back(tensor, type_name) for tensor in layout.tensors),
        "bits_per_weight": round(8 * sum(t.bytes for t in layout.tensors) / parameters, 2),
    }


def prove_weights(file: Path, layout: Layout, model: Path, shape: Shape) -> WeightProof:
    """Return how the tensors of a GGUF file compare with those of the model it was made of."""
    stored = {tensor.name: tensor for tensor in layout.tensors}
    faults: list[str] = []
    worst, count = 0.0, 0
    left = dict(stored)
    for name, values in _weights_of(model, shape):
        count += 1
        there = left.pop(name, None)
        if there is None:
            faults.append(f"{name} is missing")
        elif there.shape != tuple(reversed(values.shape)):
            faults.append(f"{name} has the shape {there.shape}")
        else:
            error = _error(values, _read(file, there), there.type)
            worst = max(worst, error) if error == error else error
            if not error <= 1:
                faults.append(f"{name} differs by {error:.2g} times what {there.type} may")
    faults += [f"{name} is none of the model's" for name in left]
    return WeightProof(
        tensors=count,
        faults=faults,
        error=worst,
    )


def uneven_matrices(model: Path, type_name: str) -> tuple[int, int]:
    """Return how many matrices have rows that are no whole blocks of a type, and how many there are."""
    matrices = uneven = 0
    for file in model.glob("*.safetensors"):
        with safe_open(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                size = opened.get_slice(name).get_shape()
                matrices += len(size) > 1
                uneven += len(size) > 1 and size[-1] % block_of(type_name) != 0
    return uneven, matrices


def _fell_back(tensor: StoredTensor, type_name: str) -> bool:
    """Return whether a matrix is of another type than was asked for: a K-quant mixes types of its kind."""
    if len(tensor.shape) < 2:
        return False
    return not tensor.type.endswith("_K") if type_name in K_QUANTS else tensor.type != type_name


def _weights_of(model: Path, shape: Shape) -> Iterator[tuple[str, np.ndarray]]:
    """Give llama.cpp's name and the values of each tensor, as llama.cpp wants them."""
    arches: dict[str, MODEL_ARCH] = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}
    names = get_tensor_name_map(arches[shape.family], shape.layers)
    if shape.rope_factors:
        yield "rope_freqs.weight", np.array(shape.rope_factors, np.float32)
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                found = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if found is None or (name == "lm_head.weight" and shape.tied):
                    continue
                values = opened.get_tensor(name).float().numpy()
                yield found, values[_rows(found, values.shape[0], shape)]


def _rows(name: str, count: int, shape: Shape) -> np.ndarray:
    """Return which row of the model each row of the file is.

    llama.cpp's Llama turns neighbours, Transformers' turns row i of a head with row i + half.
    """
    rows = np.arange(count)
    part = name.rsplit(".", 2)[-2]
    heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(part)
    if shape.family != "llama" or heads is None:
        return rows
    size = count // heads
    within = rows % size
    return rows - within + within // 2 + within % 2 * (size // 2)


def _read(file: Path, tensor: StoredTensor) -> np.ndarray:
    """Return a tensor's values as float32."""
    raw = np.fromfile(file, np.uint8, tensor.bytes, offset=tensor.start)
    type_ = GGMLQuantizationType[tensor.type]
    rows = tuple(reversed(tensor.shape))
    return dequantize(raw.reshape(*rows[:-1], -1), type_).reshape(rows)


def _error(values: np.ndarray, found: np.ndarray, type_name: str) -> float:
    """Return the largest error of a weight over what its type may bring; NaN where there is no number."""
    limit = MAX_ERROR.get(type_name)
    if limit is None:
        return float("inf")
    # A scale of 16 bits may be out of range: then what it scales is no number, and is not equal.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        away = np.abs(values - found)
        if type_name in ("F32", "F16", "BF16"):
            allowed = limit * np.abs(values) + (_TINY if type_name == "F16" else 0)
        else:
            block = K_BLOCK if type_name.endswith("_K") else PLAIN_BLOCK
            blocks = np.abs(values).reshape(-1, block).max(-1, keepdims=True)
            allowed = np.broadcast_to(limit * blocks + _TINY, (len(blocks), block))
            allowed = allowed.reshape(values.shape)
        shares = np.where(away > 0, away / allowed, away)
    return float(shares.max(initial=0.0))
