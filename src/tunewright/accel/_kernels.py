"""Norms and gates of the layers by other kernels: Liger's, or compiled by torch."""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any, cast

import torch
from peft import PeftModel

Norm = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
"""Of hidden states, a weight and an epsilon."""
Gate = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of what the gate gave and what it is multiplied with."""


class Kernels:
    """Lets every RMS norm and every gated MLP of a model run by other kernels.

    What is not plain, such as a norm that is trained or a gate that is not SiLU, stays as it is. Linears are left
    alone: with their adapters they have their own operation.

    Attributes:
        on: Whether they do; not before they have been tried, as a compiler may be missing.
        count: How many modules.
    """

    def __init__(self, model: PeftModel, pair: Callable[[], tuple[Norm, Gate]]) -> None:
        """Take the model.

        Args:
            model: With its adapter.
            pair: Called for the kernels when the first of them runs.
        """
        self.on, self.count, self._pair = False, 0, cache(pair)
        for module in model.modules():
            if _is_norm(module):
                run = partial(self._normed, module)
            elif _is_gated(module):
                run = partial(self._gated, module)
            else:
                continue
            module.forward = partial(self._forward, run, module.forward)
            self.count += 1

    def _forward(
        self, run: Callable[..., Any], plain: Callable[..., Any], x: torch.Tensor
    ) -> torch.Tensor:
        return run(x) if self.on else plain(x)

    def _normed(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        norm, _ = self._pair()
        return norm(x, module.weight, module.variance_epsilon)

    def _gated(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        _, gate = self._pair()
        return module.down_proj(gate(module.gate_proj(x), module.up_proj(x)))


def of_liger() -> tuple[Norm, Gate]:
    """Return the kernels of the package liger-kernel."""
    functional = import_module("liger_kernel.transformers.functional")

    def norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        # Not in place: the gradient that comes in may be that of the residual stream as well.
        return functional.liger_rms_norm(x, weight, epsilon, in_place=False)

    return norm, functional.liger_swiglu


def compiled() -> tuple[Norm, Gate]:
    """Return kernels that torch compiles when they first run, for rows of any length."""
    made = partial(torch.compile, dynamic=True)
    return cast("Norm", made(rms_norm)), cast("Gate", made(silu_gate))


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return w x / sqrt(mean(x²) + epsilon), in float32 up to the product with the weight, as Llama has it."""
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * scaled.to(x.dtype)


def silu_gate(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) up."""
    return torch.nn.functional.silu(gate) * up


def _is_norm(module: Any) -> bool:
    named = type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
    weight = getattr(module, "weight", None)
    # One that is trained may lie within PEFT's wrapper, and changes with every step.
    return named and isinstance(weight, torch.Tensor) and not weight.requires_grad


def _is_gated(module: Any) -> bool:
    parts = all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj"))
    return parts and type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
