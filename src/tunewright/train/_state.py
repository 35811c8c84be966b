"""The state of a run as tensors and JSON values: optimizer, random number generators. Nothing is pickled."""

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch.distributed.tensor import DTensor, distribute_tensor

Tensors = dict[str, torch.Tensor]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU; the parts of a sharded one are brought together, by every process."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """Return a tensor sharded as `model` is, if that is sharded."""
    if isinstance(model, DTensor) and tensor.shape == model.shape:
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """Return the optimizer's tensors by `parameter/name`, and all that is no tensor.

    The tensors are the optimizer's own where they are on the CPU: to be written before its next step.
    """
    state = optimizer.state_dict()
    tensors: Tensors = {}
    values: dict[str, Any] = {"param_groups": state["param_groups"], "state": {}}
    for number, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{number}/{name}"] = whole(value)
            elif isinstance(value, Mapping):
                tensors |= {f"{number}/{name}/{k}": whole(v) for k, v in value.items()}
            else:
                values["state"].setdefault(str(number), {})[name] = value
    return tensors, values


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Tensors, values: Mapping[str, Any]
) -> None:
    """Set the optimizer to a state that `optimizer_state` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        number, name, *inner = key.split("/")
        value = like(tensor, parameters[int(number)])
        entries = state.setdefault(int(number), {})
        if inner:
            entries.setdefault(name, {})[inner[0]] = value
        else:
            entries[name] = value
    for number, entries in values["state"].items():
        state.setdefault(int(number), {}).update(entries)
    groups = [
        {k: tuple(v) if k == "betas" else v for k, v in group.items()}
        for group in values["param_groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def random_state() -> tuple[Tensors, dict[str, Any]]:
    """Return the state of every random number generator of this process."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        tensors["mps"] = torch.mps.get_rng_state()
    _, keys, position, has_gauss, gauss = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
    numpy_state = [keys.tolist(), int(position), int(has_gauss), float(gauss)]
    return tensors, {"python": random.getstate(), "numpy": numpy_state}


def load_random_state(tensors: Tensors, values: Mapping[str, Any]) -> None:
    """Set every random number generator to a state that `random_state` gave."""
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])
    version, numbers, gauss_next = values["python"]
    random.setstate((version, tuple(numbers), gauss_next))
    keys, position, has_gauss, gauss = values["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
