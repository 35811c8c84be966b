"""Proof that a GGUF file holds the merged model's weights: each is read back and compared."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, get_tensor_name_map
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES
from gguf.quants import dequantize

from tunewright.export.architecture import Shape
from tunewright.models._shards import Place, places_in, read_rows, shards_of
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
    "IQ4_NL": 0.3,
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
IQ4_NL, which llama.cpp takes for rows that are no whole K blocks, as measured as well: 0.14 where weights are spread
as in models, 0.26 in blocks that are nearly all zeros (its steps are not even, and its scale is fitted to the large).
"""
BLOCK_VALUES = 2**20
"""Values that are compared at once: 4 MB of float32, of which there are about eight copies."""
_TINY = 2.0**-24
"""F16's smallest step: below it a weight becomes 0 or this."""


@dataclass(frozen=True)
class _Values:
    """Where the values of a tensor are.

    Attributes:
        source: Place in the model folder, or they themselves.
        heads: Heads whose rows llama.cpp has in another order; 0: the order is the same.
    """

    source: Place | torch.Tensor
    heads: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return tuple(
            self.source.stored.shape if isinstance(self.source, Place) else self.source.shape
        )

    def rows(self, first: int, end: int) -> np.ndarray:
        """Return some rows as float32, in the model's order."""
        if not isinstance(self.source, Place):
            return self.source[first:end].float().numpy()
        with self.source.file.open("rb") as stream:
            return read_rows(stream, self.source, first, end).float().numpy()


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
    """Return how the tensors of a GGUF file compare with those of the model it was made of.

    Some rows at a time are read of both, so that memory is the same for tensors of every size.
    """
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
            error = _largest(_errors(values, file, there))
            worst = _largest((worst, error))
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
    shapes = [place.stored.shape for place in places_in(shards_of(model)).values()]
    matrices = [shape for shape in shapes if len(shape) > 1]
    uneven = sum(shape[-1] % block_of(type_name) != 0 for shape in matrices)
    return uneven, len(matrices)


def _fell_back(tensor: StoredTensor, type_name: str) -> bool:
    """Return whether a matrix is of another type than was asked for: a K-quant mixes types of its kind."""
    if len(tensor.shape) < 2:
        return False
    return not tensor.type.endswith("_K") if type_name in K_QUANTS else tensor.type != type_name


def _weights_of(model: Path, shape: Shape) -> Iterator[tuple[str, _Values]]:
    """Give llama.cpp's name of each tensor, and where its values are."""
    arches: dict[str, MODEL_ARCH] = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}
    names = get_tensor_name_map(arches[shape.family], shape.layers)
    if shape.rope_factors:
        yield "rope_freqs.weight", _Values(torch.tensor(shape.rope_factors), 0)
    for name, place in places_in(shards_of(model)).items():
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None or (name == "lm_head.weight" and shape.tied):
            continue
        heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(found.rsplit(".", 2)[-2], 0)
        yield found, _Values(place, heads if shape.family == "llama" else 0)


def _rows(first: int, end: int, size: int) -> np.ndarray:
    """Return which row of the model each of some rows of the file is.

    llama.cpp's Llama turns neighbours, Transformers' turns row i of a head with row i + half.

    Args:
        first: First row in the file.
        end: Row after the last one.
        size: Rows of a head; 0: they are in the model's order.
    """
    rows = np.arange(first, end)
    if not size:
        return rows
    within = rows % size
    return rows - within + within // 2 + within % 2 * (size // 2)


def _errors(values: _Values, file: Path, there: StoredTensor) -> Iterator[float]:
    """Give, for some rows at a time, the largest error of a weight over what its type may bring."""
    count = values.shape[0]
    width, row_bytes = math.prod(values.shape[1:]), there.bytes // count
    size = count // values.heads if values.heads else 0
    # Whole heads, so that the rows of a stretch are the same ones in both files.
    step = max(1, BLOCK_VALUES // width // max(size, 1)) * max(size, 1)
    for first in range(0, count, step):
        end = min(first + step, count)
        wanted = values.rows(first, end).reshape(end - first, width)[_rows(0, end - first, size)]
        raw = np.fromfile(
            file, np.uint8, (end - first) * row_bytes, offset=there.start + first * row_bytes
        )
        found = dequantize(raw.reshape(end - first, -1), GGMLQuantizationType[there.type])
        yield _error(wanted, found, there.type)


def _largest(errors: Iterable[float]) -> float:
    """Return the largest of some errors; NaN if one of them is no number."""
    return float(np.array([0.0, *errors]).max())


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
