"""Attention of a pass of pieces: each looks at itself and at what comes before it in its rows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunewright.accel.layout import Piece

NAME = "tunewright_pieces"
"""As models know it: `attn_implementation`."""


class Pieces:
    """Where the pieces of a pass lie, and which look at which."""

    def __init__(self, laid: Sequence[Piece], device: torch.device) -> None:
        self.lengths = [len(piece.tokens) for piece in laid]
        self.before = [piece.before for piece in laid]
        masks: dict[tuple[int, int], torch.Tensor] = {}
        self.masks: list[torch.Tensor | None] = []
        for piece, length in zip(laid, self.lengths, strict=True):
            size = length, piece.start
            if piece.start and size not in masks:
                masks[size] = torch.ones(
                    length, piece.start + length, dtype=torch.bool, device=device
                ).tril_(piece.start)
            self.masks.append(masks.get(size) if piece.start else None)


def register() -> None:
    """Make it known to Transformers under its name; calls without pieces are PyTorch's sdpa."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    pieces: Pieces | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention of one layer, as Transformers calls it.

    Args:
        module: The layer's attention.
        query: (1, heads, tokens, width).
        key: (1, key heads, tokens, width).
        value: As `key`.
        attention_mask: Not looked at where there are pieces.
        scaling: Of the products; None: one over the root of the width.
        pieces: Of the pass.
        **kwargs: For sdpa.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    if pieces is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    groups = query.shape[1] // key.shape[1]
    keys, values = (repeat_kv(x, groups).split(pieces.lengths, dim=2) for x in (key, value))
    found = [
        scaled_dot_product_attention(
            part,
            torch.cat([keys[n] for n in (*before, at)], dim=2) if before else keys[at],
            torch.cat([values[n] for n in (*before, at)], dim=2) if before else values[at],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
        ).transpose(1, 2)
        for at, (part, before, mask) in enumerate(
            zip(query.split(pieces.lengths, dim=2), pieces.before, pieces.masks, strict=True)
        )
    ]
    return torch.cat(found, dim=1), None
