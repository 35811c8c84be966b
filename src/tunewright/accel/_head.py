"""The output head and the loss, at the positions that learn something and nowhere else."""

from typing import Any, cast

import torch

TILE_ELEMENTS = 2**24
"""Logits that are in memory at once: 64 MB in float32."""


class Sums:
    """What a pass came to, summed over its label tokens.

    Attributes:
        loss: Cross entropy in nats; the one with a gradient.
        entropy: Of the predicted distributions, in nats.
        correct: Labels that had the highest logit.
        tokens: Label tokens.
    """

    def __init__(
        self, loss: torch.Tensor, entropy: torch.Tensor, correct: torch.Tensor, tokens: int
    ) -> None:
        self.loss, self.entropy, self.correct, self.tokens = loss, entropy, correct, tokens


def head_loss(head: torch.nn.Module, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> Sums:
    """Return the sums over positions; of a frozen head the gradient is made on the way.

    Args:
        head: The output embedding.
        hidden_ND: Hidden states of the positions that have a label.
        targets_N: The labels, int64.
    """
    if is_frozen(head):
        found = cast(
            "tuple[torch.Tensor, ...]", _FrozenHead.apply(hidden_ND, head.weight, targets_N)
        )
    else:
        return sums_of(head(hidden_ND).float(), targets_N)
    return Sums(*found, tokens=len(targets_N))


def is_frozen(head: torch.nn.Module) -> bool:
    """Return whether a head is nothing but a matrix that stays as it is."""
    plain = type(head) is torch.nn.Linear and head.bias is None
    return plain and not head.weight.requires_grad


def sums_of(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> Sums:
    """Return the sums of float32 logits, which are all kept for the gradient."""
    log_sums_N = logits_NV.logsumexp(-1)
    picked_N = logits_NV.gather(-1, targets_N[:, None])[:, 0]
    with torch.no_grad():
        probabilities_NV = (logits_NV - log_sums_N[:, None]).exp_()
        means_N = torch.linalg.vecdot(probabilities_NV, logits_NV)
        correct = (logits_NV.argmax(-1) == targets_N).sum()
    entropy = (log_sums_N.detach() - means_N).sum()
    return Sums((log_sums_N - picked_N).sum(), entropy, correct, tokens=len(targets_N))


class _FrozenHead(torch.autograd.Function):
    """Logits are made tile by tile, and with them the gradient of the hidden states: no logit is kept.

    d loss / d logit = softmax - one-hot, whatever the scale that the loss gets later.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        rows = max(1, TILE_ELEMENTS // weight_VD.shape[0])
        wanted = ctx.needs_input_grad[0]
        grad_ND = torch.empty_like(hidden_ND) if wanted else None
        totals = torch.zeros(2, dtype=torch.float32, device=hidden_ND.device)
        right = torch.zeros((), dtype=torch.int64, device=hidden_ND.device)
        for start in range(0, len(hidden_ND), rows):
            part = slice(start, start + rows)
            targets = targets_N[part]
            logits = (hidden_ND[part] @ weight_VD.T).float()
            log_sums = logits.logsumexp(-1)
            picked = logits.gather(-1, targets[:, None])[:, 0]
            right += (logits.argmax(-1) == targets).sum()
            slopes = (logits - log_sums[:, None]).exp_()
            means = torch.linalg.vecdot(slopes, logits)
            totals += torch.stack(((log_sums - picked).sum(), (log_sums - means).sum()))
            if grad_ND is not None:
                slopes[torch.arange(len(targets), device=targets.device), targets] -= 1
                torch.mm(slopes.to(hidden_ND.dtype), weight_VD, out=grad_ND[part])
        ctx.save_for_backward(*([] if grad_ND is None else [grad_ND]))
        loss, entropy = totals.unbind()
        loss, entropy = loss.clone(), entropy.clone()
        ctx.mark_non_differentiable(entropy, right)
        return loss, entropy, right

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grad_ND,) = ctx.saved_tensors
        return grad_ND * grads[0].to(grad_ND.dtype), None, None
