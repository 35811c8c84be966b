"""Proof that a merged model is its base with the adapter: by tensor, and by what it predicts.

The reference is PEFT's own arithmetic, not ours.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open

from tunewright.models._load import device, load_model, load_tokenizer, load_tuned, vocabulary_of
from tunewright.models.chat import encode, messages_of

MAX_ROWS = 16


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
    """Return the agreement on the first held-out rows, both models in float32."""
    where = device()
    tuned = load_tuned(base, adapter).to(where)
    plain = load_model(merged)
    plain.to(where)  # pyright: ignore[reportArgumentType] - transformers wraps it without types
    vocabulary = vocabulary_of(load_tokenizer(merged))
    lines = rows.read_text(encoding="utf-8").splitlines()[:MAX_ROWS]
    kl: list[torch.Tensor] = []
    same: list[torch.Tensor] = []
    largest = 0.0
    for line in lines:
        ids = encode(messages_of(json.loads(line)), vocabulary).input_ids[:max_length]
        ids_1T = torch.tensor([ids], device=where)
        want_TV, got_TV = (m(input_ids=ids_1T).logits[0].double() for m in (tuned, plain))
        largest = max(largest, float((want_TV - got_TV).abs().max()))
        same.append(want_TV.argmax(-1) == got_TV.argmax(-1))
        want_TV, got_TV = want_TV.log_softmax(-1), got_TV.log_softmax(-1)
        kl.append((want_TV.exp() * (want_TV - got_TV)).sum(-1))
    kl_N, same_N = torch.cat(kl), torch.cat(same)
    return Agreement(
        mean_kl=float(kl_N.mean()),
        max_kl=float(kl_N.max()),
        top1_agreement=float(same_N.double().mean()),
        max_logit_difference=largest,
        tokens=len(kl_N),
    )


def tensor_differences(base: Path, adapter: Path, merged: Path) -> list[tuple[str, str]]:
    """Return (tensor, what is wrong) for every tensor of the merged model that is not as it must be.

    A tensor without an update must be identical to the base's; one with an update must be within one
    rounding of the base's plus the update as PEFT computes it.
    """
    expected = _tensors(base)
    found = _tensors(merged)
    wrong = [(name, "is missing") for name in expected.keys() - found.keys()]
    wrong += [(name, "is not in the base") for name in found.keys() - expected.keys()]
    updates = _updates(base, adapter)
    for name in sorted(expected.keys() & found.keys()):
        want, got = _read(expected[name], name), _read(found[name], name)
        if got.shape != want.shape or got.dtype != want.dtype:
            wrong.append(
                (name, f"is {got.dtype} {tuple(got.shape)}, not {want.dtype} {tuple(want.shape)}")
            )
        elif name not in updates:
            if not torch.equal(got, want):
                wrong.append((name, "differs from the base, and the adapter does not touch it"))
        elif not _within_rounding(got, want.float() + updates[name], want.dtype):
            wrong.append((name, "is not the base plus the adapter's update"))
    return wrong


def _within_rounding(got: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> bool:
    unit = torch.finfo(dtype).eps
    return bool(((got.float() - exact).abs() <= unit * exact.abs() + 1e-8).all())


def _updates(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    updates: dict[str, torch.Tensor] = {}
    for name, module in load_tuned(base, adapter).named_modules():
        if isinstance(module, LoraLayer):
            key = name.removeprefix("base_model.model.") + ".weight"
            updates[key] = module.get_delta_weight("default").detach()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return updates


def _tensors(folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as stream:
            names |= dict.fromkeys(stream.keys(), shard)
    return names


def _read(shard: Path, name: str) -> torch.Tensor:
    with safe_open(shard, framework="pt") as stream:
        return stream.get_tensor(name)
