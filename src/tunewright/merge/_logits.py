"""How alike two models' next-token distributions are on held-out rows."""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunewright.models._load import in_4_bits, load_model, load_tuned
from tunewright.models._room import device
from tunewright.models._shards import places_in, shards_of
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models.changes import EMBEDDING
from tunewright.models.chat import encode, messages_of

MAX_ROWS = 16
MAX_TOKENS = 2048
"""Positions compared at most: the logits of both are kept, 1.2 GB each for a vocabulary of 150,000."""
AT_ONCE = 128
"""Positions whose distributions are in memory besides."""
_SPARE_BYTES = 2**30
_COPIES = 5
"""Of the logits, at the most: rows and the whole of both models, and what is compared of them."""
_FLOAT = 4


@dataclass(frozen=True)
class Agreement:
    """Next-token distributions of a model against a reference, over all positions of some rows.

    Attributes:
        mean_kl: Mean of KL(reference || model), nats.
        max_kl: Largest of them.
        top1_agreement: Share of positions with the same most likely token.
        max_logit_difference: Largest absolute difference of a logit.
        tokens: Positions compared.
    """

    mean_kl: float
    max_kl: float
    top1_agreement: float
    max_logit_difference: float
    tokens: int


@dataclass(frozen=True)
class FourBits:
    """How the base was stored in training.

    Attributes:
        quant_type: nf4 or fp4.
        double_quantisation: The scales are quantised as well.
    """

    quant_type: str
    double_quantisation: bool


def agreements(
    base: Path,
    adapter: Path,
    merged: Path,
    ids: list[list[int]],
    trained_in: FourBits | None,
) -> tuple[Agreement, Agreement | None]:
    """Return how the merged model agrees with base and adapter, one model at a time in memory, in float32.

    The second is that of the merged model with the adapter on the base in 4 bits, as it was trained: the
    latter is the reference. None where it was not.
    """
    got_NV = _logits(load_model(merged), ids)
    found = agreement(_logits(load_tuned(base, adapter), ids), got_NV)
    if trained_in is None:
        return found, None
    stored = in_4_bits(
        trained_in.quant_type,
        compute_dtype="float32",
        double_quantisation=trained_in.double_quantisation,
    )
    where = {"": device()}
    tuned = load_tuned(base, adapter, quantization_config=stored, device_map=where)
    return found, agreement(_logits(tuned, ids), got_NV)


def memory_bytes(base: Path, positions: int) -> int:
    """Return the main memory that `agreements` takes: one model in float32, and logits. Reads headers only."""
    shapes = {name: place.stored.shape for name, place in places_in(shards_of(base)).items()}
    vocabulary = shapes[EMBEDDING][0] if EMBEDDING in shapes else 0
    return _FLOAT * (sum(map(math.prod, shapes.values())) + _COPIES * positions * vocabulary)


@torch.inference_mode()
def agreement(want_NV: torch.Tensor, got_NV: torch.Tensor) -> Agreement:
    """Return how logits agree with those of a reference.

    Source: Kullback and Leibler 1951, "On Information and Sufficiency".
    """
    kls: list[torch.Tensor] = []
    same: list[torch.Tensor] = []
    away: list[torch.Tensor] = []
    for want_CV, got_CV in zip(want_NV.split(AT_ONCE), got_NV.split(AT_ONCE), strict=True):
        away.append((want_CV - got_CV).abs().max())
        same.append(want_CV.argmax(-1) == got_CV.argmax(-1))
        log_p_CV, log_q_CV = want_CV.log_softmax(-1), got_CV.log_softmax(-1)
        kls.append((log_p_CV.exp() * (log_p_CV - log_q_CV)).sum(-1))
    kl_N = torch.cat(kls)
    return Agreement(
        mean_kl=float(kl_N.double().mean()),
        max_kl=float(kl_N.max()),
        top1_agreement=float(torch.cat(same).double().mean()),
        max_logit_difference=float(torch.stack(away).max()),
        tokens=len(kl_N),
    )


def held_out_ids(rows: Path, tokenizer: Path, max_length: int) -> list[list[int]]:
    """Return the token ids of the first held-out rows, as the tokenizer of a folder reads them."""
    vocabulary = vocabulary_of(load_tokenizer(tokenizer))
    with rows.open(encoding="utf-8") as stream:
        lines = list(itertools.islice(stream, MAX_ROWS))
    ids: list[list[int]] = []
    left = MAX_TOKENS
    for line in lines:
        row = encode(messages_of(json.loads(line)), vocabulary).input_ids[: min(max_length, left)]
        left -= len(row)
        if row:
            ids.append(row)
    return ids


@torch.inference_mode()
def _logits(model: Any, ids: list[list[int]]) -> torch.Tensor:
    """Return the logits of all positions of all rows, on the CPU."""
    where = str(model.device)
    if not getattr(model, "is_quantized", False):
        where = _roomy_device(sum(p.numel() * p.element_size() for p in model.parameters()))
        model.to(where)
    rows = [
        model(input_ids=torch.tensor([row], device=where)).logits[0].float().cpu() for row in ids
    ]
    return torch.cat(rows)


def _roomy_device(weights_bytes: int) -> str:
    """Return the device, or the CPU where a GPU that training filled with 4 bits has no room for 32."""
    where = device()
    if where != "cuda":
        return where
    free, _ = torch.cuda.mem_get_info()
    return where if weights_bytes + _SPARE_BYTES < free else "cpu"
