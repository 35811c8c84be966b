"""Proof that a merged model is its base with the adapter: by tensor, and by what it predicts.

The reference is PEFT's own arithmetic, not ours.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open

from tunewright.models._load import device, load_model, load_tokenizer, load_tuned, vocabulary_of
from tunewright.models.chat import encode, messages_of

MAX_ROWS = 16
MAX_TOKENS = 2048
"""Positions compared at most: their logits are kept, 1.2 GB for a vocabulary of 150,000."""


@dataclass(frozen=True)
class Agreement:
    """Next-token distributions of merged against base with adapter, over all positions of some rows.

    Attributes:
        mean_kl: Mean of KL(base with adapter || merged), nats.
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


@torch.inference_mode()
def agreement(base: Path, adapter: Path, merged: Path, rows: Path, max_length: int) -> Agreement:
    """Return the agreement on the first held-out rows, in float32, one model at a time in memory."""
    vocabulary = vocabulary_of(load_tokenizer(merged))
    with rows.open(encoding="utf-8") as stream:
        lines = list(itertools.islice(stream, MAX_ROWS))
    ids = [encode(messages_of(json.loads(x)), vocabulary).input_ids[:max_length] for x in lines]
    while len(ids) > 1 and sum(map(len, ids)) > MAX_TOKENS:
        ids.pop()
    want_NV = _logits(load_tuned(base, adapter), ids)
    got_NV = _logits(load_model(merged), ids)
    largest = float((want_NV - got_NV).abs().max())
    same_N = want_NV.argmax(-1) == got_NV.argmax(-1)
    want_NV, got_NV = want_NV.log_softmax(-1), got_NV.log_softmax(-1)
    kl_N = (want_NV.exp() * (want_NV - got_NV)).sum(-1)
    return Agreement(
        mean_kl=float(kl_N.double().mean()),
        max_kl=float(kl_N.max()),
        top1_agreement=float(same_N.double().mean()),
        max_logit_difference=largest,
        tokens=len(kl_N),
    )


def _logits(model: Any, ids: list[list[int]]) -> torch.Tensor:
    """Return the logits of all positions of all rows, on the CPU."""
    where = device()
    model.to(where)
    rows = [
        model(input_ids=torch.tensor([row], device=where)).logits[0].float().cpu() for row in ids
    ]
    return torch.cat(rows)


def tensor_differences(base: Path, adapter: Path, merged: Path) -> list[tuple[str, str]]:
    """Return (tensor, what is wrong) for every tensor of the merged model that is not as it must be.

    A tensor without an update must be identical to the base's; one with an update must be within one
    rounding of the base's plus the update as PEFT computes it.
    """
    expected = _tensors(base)
    found = _tensors(merged)
    wrong = [(name, "is missing") for name in expected.keys() - found.keys()]
    wrong += [(name, "is not in the base") for name in found.keys() - expected.keys()]
    updated = _updated_layers(base, adapter)
    for name in sorted(expected.keys() & found.keys()):
        want, got = _read(expected[name], name), _read(found[name], name)
        if got.shape != want.shape or got.dtype != want.dtype:
            wrong.append(
                (name, f"is {got.dtype} {tuple(got.shape)}, not {want.dtype} {tuple(want.shape)}")
            )
        elif name not in updated:
            if not torch.equal(got, want):
                wrong.append((name, "differs from the base, and the adapter does not touch it"))
        elif not _within_rounding(got, want.float() + _update(updated[name]), want.dtype):
            wrong.append((name, "is not the base plus the adapter's update"))
    return wrong


def _within_rounding(got: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> bool:
    unit = torch.finfo(dtype).eps
    return bool(((got.float() - exact).abs() <= unit * exact.abs() + 1e-8).all())


def _updated_layers(base: Path, adapter: Path) -> dict[str, LoraLayer]:
    """Return the layer that changes each tensor, by the tensor's name in the base."""
    return {
        name.removeprefix("base_model.model.") + ".weight": module
        for name, module in load_tuned(base, adapter).named_modules()
        if isinstance(module, LoraLayer)
    }


def _update(layer: LoraLayer) -> torch.Tensor:
    """Return what PEFT would add to the layer's weight."""
    return layer.get_delta_weight("default").detach()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def _tensors(folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as stream:
            names |= dict.fromkeys(stream.keys(), shard)
    return names


def _read(shard: Path, name: str) -> torch.Tensor:
    with safe_open(shard, framework="pt") as stream:
        return stream.get_tensor(name)
