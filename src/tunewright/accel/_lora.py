"""A linear with its adapter as one operation: y = x W' + s (x A') B'."""

from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear, LoraLayer


class FusedLora:
    """Lets every plain LoRA linear of a model run as one operation.

    Where base and adapter have one precision it is one with the base's product. Elsewhere, as over weights in 16 or
    4 bits, the base's product comes first, and no float32 copy of what both read is kept for the backward pass.
    Those that are something else, such as DoRA, stay as they are, and so does whatever PEFT does in a call that is
    not plain training: an adapter that is off or merged, or several of them.

    Attributes:
        on: Whether they do; to compare with PEFT's own.
        count: How many linears.
    """

    def __init__(self, model: PeftModel, *, apart: bool = False) -> None:
        """Take the model.

        Args:
            model: With its adapter.
            apart: Leave the base's product by itself in any case, for those who keep it and recompute the rest.
        """
        self.on, self._apart = True, apart
        found = [m for m in model.modules() if isinstance(m, LoraLayer) and _is_plain(m)]
        self.count = len(found)
        for module in found:
            (name,) = module.lora_A
            module.forward = partial(self._forward, module, name, module.forward)

    def _forward(
        self, module: Any, name: str, plain: Any, x: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        usual = self.on and not (args or kwargs or module.disable_adapters or module.merged)
        if (
            not usual
            or list(module.active_adapters) != [name]
            or torch.is_autocast_enabled(x.device.type)
        ):
            return plain(x, *args, **kwargs)
        base = module.get_base_layer()
        down, up = (cast("torch.nn.Linear", part[name]) for part in (module.lora_A, module.lora_B))
        # PEFT draws dropout in the adapter's precision.
        dropout = module.lora_dropout[name]
        drops = isinstance(dropout, torch.nn.Dropout) and dropout.training
        seen = dropout(x.to(down.weight.dtype)) if drops else x
        adapter = down.weight, up.weight, module.scaling[name]
        same = type(base) is torch.nn.Linear and x.dtype == base.weight.dtype == down.weight.dtype
        if self._apart or not same:
            return cast("torch.Tensor", _Added.apply(base(x), seen, *adapter))
        return cast("torch.Tensor", _Adapted.apply(x, seen, base.weight, base.bias, *adapter))


def _is_plain(module: Any) -> bool:
    """Return whether a linear is one that PEFT computes as W x + s B A x, W being frozen."""
    if type(module) is not Linear and type(module).__name__ != "Linear4bit":
        return False
    frozen = not any(parameter.requires_grad for parameter in module.get_base_layer().parameters())
    one = len(module.lora_A) == 1 and not module.lora_variant
    return frozen and one and not any(module.lora_bias.values()) and not module.fan_in_fan_out


class _Adapted(torch.autograd.Function):
    """Keeps x for the backward pass and nothing of the size of the output; the base has no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows, seen = x.reshape(-1, x.shape[-1]), dropped.reshape(-1, x.shape[-1])
        narrow = seen @ down.T
        out = torch.nn.functional.linear(rows, weight, bias).addmm_(narrow, up.T, alpha=scaling)
        ctx.save_for_backward(seen, narrow, weight, down, up)
        ctx.scaling, ctx.shape, ctx.same = scaling, x.shape, dropped is x
        return out.reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, narrow, weight, down, up = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        slope = (grad @ up).mul_(ctx.scaling)
        to_x = to_dropped = None
        if ctx.needs_input_grad[0]:
            to_x = grad @ weight
            if ctx.same:
                to_x.addmm_(slope, down)
            to_x = to_x.reshape(ctx.shape)
        if ctx.needs_input_grad[1] and not ctx.same:
            to_dropped = (slope @ down).reshape(ctx.shape)
        to_up = (grad.T @ narrow).mul_(ctx.scaling)
        return to_x, to_dropped, None, None, slope.T @ seen, to_up, None


class _Added(torch.autograd.Function):
    """Adds an adapter to what its linear gave, in the adapter's precision; keeps what it read as it came."""

    @staticmethod
    def forward(
        ctx: Any,
        out: torch.Tensor,
        seen: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = seen.reshape(-1, seen.shape[-1])
        narrow = rows.to(down.dtype) @ down.T
        more = (narrow @ up.T).reshape(out.shape)
        ctx.save_for_backward(rows, narrow, down, up)
        ctx.scaling, ctx.shape = scaling, seen.shape
        return torch.add(out, more, alpha=scaling).to(out.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, narrow, down, up = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1]).to(up.dtype)
        slope = (grad @ up).mul_(ctx.scaling)
        to_seen = None
        if ctx.needs_input_grad[1]:
            to_seen = (slope @ down).to(rows.dtype).reshape(ctx.shape)
        to_up = (grad.T @ narrow).mul_(ctx.scaling)
        return grads[0], to_seen, slope.T @ rows.to(down.dtype), to_up, None
