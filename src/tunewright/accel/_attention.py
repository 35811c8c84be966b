"""Attention of a pass of pieces: each looks at itself and at what comes before it in its rows."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, cast

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunewright.accel.layout import HELD, Piece

NAME = "tunewright_pieces"
"""As models know it: `attn_implementation`."""


class Held:
    """Keys and values, layer by layer, of what all rows of a step begin with.

    Each pass looks at copies that are cut off from it. Their gradients add up, and go on at the end, once.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._own: dict[int, tuple[torch.Tensor, ...]] = {}
        self._copies: dict[int, tuple[torch.Tensor, ...]] = {}

    def keep(self, layer: int, *own: torch.Tensor) -> None:
        """Keep keys and values of a layer; those of a layer that is run again are the same."""
        if layer not in self._own:
            self._own[layer] = own
            self._copies[layer] = tuple(x.detach() for x in own)
            for copy, x in zip(self._copies[layer], own, strict=True):
                copy.requires_grad = x.requires_grad

    def of(self, layer: int) -> tuple[torch.Tensor, ...]:
        """Return keys and values of a layer, each (1, key heads, length, width)."""
        return self._copies[layer]

    def backward(self) -> None:
        """Send on the gradients that the passes have left."""
        own = [x for layer in self._own.values() for x in layer]
        copies = [x for layer in self._copies.values() for x in layer]
        found = [
            (x, copy.grad) for x, copy in zip(own, copies, strict=True) if copy.grad is not None
        ]
        if found:
            tensors, gradients = zip(*found, strict=True)
            torch.autograd.backward(tensors, gradients)


class Pieces:
    """Where the pieces of a pass lie, and which look at which.

    Attributes:
        held: What all of them look at and is not in the pass.
        keeps: The other way round: what the pass, which is one piece, leaves for others.
    """

    def __init__(
        self,
        laid: Sequence[Piece],
        device: torch.device,
        *,
        held: Held | None = None,
        keeps: Held | None = None,
    ) -> None:
        self.held, self.keeps = held, keeps
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
        # What is held lies before the pass.
        self._first = held.length if held else 0
        self._starts = [0, *accumulate(self.lengths)]
        self._device = device

    @property
    def order(self) -> list[int]:
        """Numbers of the pieces as their keys lie, what is held first."""
        return [*([HELD] if self.held else []), *range(len(self.lengths))]

    @property
    def sizes(self) -> list[int]:
        """Keys of each."""
        return [*([self._first] if self.held else []), *self.lengths]

    @cached_property
    def queries(self) -> torch.Tensor:
        """Where each piece begins, and where the last ends: int32, (pieces + 1)."""
        return torch.tensor(self._starts, dtype=torch.int32, device=self._device)

    @cached_property
    def keys(self) -> torch.Tensor:
        """Likewise of the keys that each piece looks at, laid end to end."""
        sizes = [len(at) for at in self._looked_at]
        return torch.tensor([0, *accumulate(sizes)], dtype=torch.int32, device=self._device)

    @cached_property
    def gathered(self) -> torch.Tensor:
        """Positions of these keys; one that is shared stands in it for each piece that looks at it."""
        return torch.tensor([at for each in self._looked_at for at in each], device=self._device)

    @cached_property
    def longest(self) -> tuple[int, int]:
        """The most positions of a piece, and the most keys that one looks at."""
        return max(self.lengths), max(len(at) for at in self._looked_at)

    @cached_property
    def _looked_at(self) -> list[list[int]]:
        return [
            [position for piece in (*before, at) for position in self._range(piece)]
            for at, before in enumerate(self.before)
        ]

    def _range(self, piece: int) -> range:
        if piece == HELD:
            return range(self._first)
        return range(self._first + self._starts[piece], self._first + self._starts[piece + 1])


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
    if pieces.keeps is not None:
        pieces.keeps.keep(_layer(module), key, value)
    if pieces.held is not None:
        key, value = (
            torch.cat(both, dim=2)
            for both in zip(pieces.held.of(_layer(module)), (key, value), strict=True)
        )
    if in_one_kernel(query):
        return _of_varying_length(query, key, value, pieces, scaling), None
    groups = query.shape[1] // key.shape[1]
    keys, values = (
        dict(zip(pieces.order, repeat_kv(x, groups).split(pieces.sizes, dim=2), strict=True))
        for x in (key, value)
    )
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


def _layer(module: torch.nn.Module) -> int:
    return cast("int", module.layer_idx)


def in_one_kernel(query: torch.Tensor) -> bool:
    """Return whether there is a kernel for pieces of any length: on CUDA, in 16 bits."""
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def _of_varying_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pieces: Pieces,
    scaling: float | None,
) -> torch.Tensor:
    """Return the attention of all pieces at once, (1, tokens, heads, width).

    The kernel lines up the ends of queries and keys, so that the first position of a piece looks at all that comes
    before the piece and at itself.
    """
    groups = query.shape[1] // key.shape[1]
    keys, values = (
        repeat_kv(x.index_select(2, pieces.gathered), groups)[0].transpose(0, 1)
        for x in (key, value)
    )
    most_queries, most_keys = pieces.longest
    found = varlen_attn(
        query[0].transpose(0, 1),
        keys,
        values,
        pieces.queries,
        pieces.keys,
        most_queries,
        most_keys,
        scale=scaling,
        window_size=(-1, 0),
    )
    return cast("torch.Tensor", found)[None]
