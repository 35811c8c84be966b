"""Recomputes in the backward pass what is cheap, and keeps what is dear: the outputs of wide matrix products."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    create_selective_checkpoint_contexts,
)

LEAST_INNER = 64
"""Inner length from which on the output of a matrix product is kept: a number of it costs twice as many operations.

An adapter's way back up, of its rank, is below it. So a linear with an adapter keeps one output and not two.
"""
PRODUCTS: Mapping[Any, int] = {
    torch.ops.aten.mm.default: 0,
    torch.ops.aten.addmm.default: 1,
}
"""Products of a linear, with the place of their first factor among the arguments; eager attention's are others."""
ATTENTION = frozenset(
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
)


def recompute(model: PeftModel, *, selective: bool) -> None:
    """Let every decoder layer of a model recompute in the backward pass what it does not keep: all of it, or what is cheap.

    Source: torch.utils.checkpoint.create_selective_checkpoint_contexts. The numbers are those of a model that keeps
    everything: random states are put back before the second time.

    Args:
        model: Before training.
        selective: Keep what is dear.
    """
    model.enable_input_require_grads()
    settings: dict[str, Any] = {"use_reentrant": False}
    if selective:
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, policy)
    inner: Any = model.get_base_model()
    # Transformers renamed it in 5.23.
    named = hasattr(inner, "activation_checkpointing_enable")
    enable = inner.activation_checkpointing_enable if named else inner.gradient_checkpointing_enable
    enable(settings)


def policy(
    _: SelectiveCheckpointContext, operation: Any, *args: Any, **__: Any
) -> CheckpointPolicy:
    """Return whether the output of an operation is kept."""
    at = PRODUCTS.get(operation)
    dear = operation in ATTENTION or (at is not None and args[at].shape[-1] >= LEAST_INNER)
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
