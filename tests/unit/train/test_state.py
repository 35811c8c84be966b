"""Optimizer and random generators to tensors and JSON, and back: the same next numbers."""

import json
import random

import numpy as np
import pytest
import torch

from tunewright.train._state import (
    load_optimizer_state,
    load_random_state,
    optimizer_state,
    random_state,
)


def model() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(128, 64))


def step(made: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    made(torch.randn(3, 64)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def optimizers(kind: str):
    import bitsandbytes

    return {
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.95)),
        "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        "8bit": lambda p: bitsandbytes.optim.AdamW8bit(p, lr=0.01, min_8bit_size=64),
    }[kind]


@pytest.mark.parametrize("kind", ["adamw", "fused", "sgd", "8bit"])
def test_an_optimizer_goes_on_as_if_nothing_had_been(kind):
    make = optimizers(kind)
    one, other = model(), model()
    first = make(one.parameters())
    for seed in range(3):
        step(one, first, seed)
    tensors, values = optimizer_state(first)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    other.load_state_dict(one.state_dict())
    second = make(other.parameters())
    load_optimizer_state(second, tensors, json.loads(json.dumps(values)))
    for seed in range(3, 6):
        step(one, first, seed)
        step(other, second, seed)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_random_numbers_go_on():
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    random.gauss(0, 1)
    tensors, values = random_state()
    want = torch.rand(2), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()
    load_random_state(tensors, json.loads(json.dumps(values)))
    got = torch.rand(2), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()
    assert torch.equal(got[0], want[0])
    assert got[1:] == want[1:]
