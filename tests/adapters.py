"""Small models with an adapter, made, trained a little and looked at."""

from pathlib import Path

import merging
import pytest
import torch
from peft import PeftModel

from tunewright.config.schema import TrainSection
from tunewright.errors import TunewrightError
from tunewright.models._tokenizer import load_tokenizer
from tunewright.train._adapter import (
    build,
)

SIZES = merging.SIZES | {"vocab_size": 4096}
KINDS = merging.FAMILIES[:3]
IDS = torch.arange(7, 71).view(2, 32)
ROWS = [
    {"input_ids": list(range(i, i + 40)), "labels": [-100] * 10 + list(range(i + 10, i + 40))}
    for i in range(10, 60, 10)
]
LORA = {"r": 4, "lora_alpha": 8}
METHODS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "random": {"init_lora_weights": False},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
    "eva": {"init_lora_weights": "eva"},
    "rslora pissa": {"use_rslora": True, "init_lora_weights": "pissa"},
    "dora olora": {"use_dora": True, "init_lora_weights": "olora"},
    "whole": {"modules_to_save": ["embed_tokens", "norm"]},
    "4-bit": {"load_in_4bit": True},
    "4-bit dora": {"load_in_4bit": True, "use_dora": True},
    "loftq": {"load_in_4bit": True, "init_lora_weights": "loftq"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False},
}


def make(base: Path, *, dtype="float32", seed=1, tokens=(), rows=ROWS, **given) -> PeftModel:
    own = {name: given.pop(name) for name in list(given) if name in TrainSection.model_fields}
    return build(
        base,
        load_tokenizer(base, None, tokens),
        TrainSection.model_validate(own | {"lora": LORA | given}),
        dtype=dtype,
        device="cpu",
        seed=seed,
        extra_special_tokens=tokens,
        calibration=rows,
    )


def trained(model: PeftModel, steps=4, lr=5e-3, ids=IDS) -> list[float]:
    """Train a little and return the losses."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def logits(model, ids=IDS) -> torch.Tensor:
    return merging.logits(model, ids)


def problems_of(action) -> list[tuple[str, str]]:
    with pytest.raises(TunewrightError) as caught:
        action()
    return [(p.code, p.where) for p in caught.value.problems]


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
