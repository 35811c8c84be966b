"""A linear with its adapter as one operation: y = x W' + s (x A') B'."""

from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear


class FusedLora:
    """Lets every plain LoRA linear of a model run as one operation.

    Those that are something else, such as DoRA or a linear in 4 bits, stay as they are, and so does whatever PEFT
    does in a call that is not plain training: an adapter that is off or merged, or several of them.

    Attributes:
        on: Whether they do; to compare with PEFT's own.
        count: How many linears.
    """

    def __init__(self, model: PeftModel) -> None:
        self.on = True
        found = [m for m in model.modules() if type(m) is Linear and _is_plain(m)]
        self.count = len(found)
        for module in found:
            (name,) = module.lora_A
            module.forward = partial(self._forward, module, name, module.forward)

    def _forward(
        self, module: Linear, name: str, plain: Any, x: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        base = cast("torch.nn.Linear", module.get_base_layer())
        down, up = (cast("torch.nn.Linear", part[name]) for part in (module.lora_A, module.lora_B))
        usual = self.on and not (args or kwargs or module.disable_adapters or module.merged)
        same = x.dtype == base.weight.dtype == down.weight.dtype
        if not usual or not same or list(module.active_adapters) != [name]:
            return plain(x, *args, **kwargs)
        dropped = module.lora_dropout[name](x)
        given = (x, dropped, base.weight, base.bias, down.weight, up.weight, module.scaling[name])
        return cast("torch.Tensor", _Adapted.apply(*given))


def _is_plain(module: Linear) -> bool:
    base = module.get_base_layer()
    frozen = type(base) is torch.nn.Linear and not any(
        parameter.requires_grad for parameter in base.parameters()
    )
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
