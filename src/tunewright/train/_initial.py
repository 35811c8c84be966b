"""How an adapter begins where PEFT alone does not do it: EVA, LoftQ, and what was there at the start."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors import safe_open

from tunewright.errors import failure
from tunewright.train._rows import IGNORED
from tunewright.train.methods import CHANGES_BASE

NAME = "default"
PREFIX = "base_model.model."
START = ("start_A", "start_B")
"""Buffers of a layer whose B A is not zero at the start: A and B as they were then."""
SAMPLE, ROWS = 256, 4
"""Rows that EVA looks at, and how many at once."""
SWEEPS, SPARE = 3, 8
"""Passes over them, and directions searched for beside twice the ones that are wanted."""


def configuration(model: PeftModel) -> LoraConfig:
    """Return the configuration of the adapter."""
    found = model.peft_config[NAME]
    if not isinstance(found, LoraConfig):
        raise TypeError(f"expected LoRA, got {type(found).__name__}")
    return found


def lora_layers(model: PeftModel) -> list[tuple[str, Any]]:
    """Return path and layer of each adapter; the layer is LoraLayer and torch's Module at once."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer)]


@torch.no_grad()
def start_from_data(model: PeftModel, rows: Sequence[Mapping[str, Any]], *, padding: int) -> None:
    """Set A of each layer to the directions in which its inputs vary most over the trained tokens.

    They are found by subspace iteration: a few passes over a bounded number of rows, however the data are.
    PEFT's own search goes on until nothing moves, which text may put off for hundreds of batches.

    Args:
        model: With a new adapter.
        rows: Token rows with `input_ids` and `labels`.
        padding: Id that fills up shorter rows.

    Raises:
        TunewrightError: E_CONFIG_VALUE, there are fewer trained tokens than directions to find.

    Source: Paischer et al. 2024, "One Initialization to Rule them All: Fine-tuning via Explained Variance
    Adaptation"; Halko et al. 2011, "Finding structure with randomness", algorithm 4.4.
    """
    used, rank = rows[:SAMPLE], configuration(model).r
    tokens = sum(label != IGNORED for row in used for label in row["labels"])
    if tokens < rank:
        raise failure(
            "E_CONFIG_VALUE",
            f"'eva' cannot start from these data: {tokens} tokens are trained, and the rank is {rank}.",
            where="train.lora.init_lora_weights",
            fix=f"--set train.lora.init_lora_weights=true, or train.lora.r={max(tokens, 1)} at most",
        )
    layers = dict(lora_layers(model))
    bases = {name: _random_basis(layer.in_features, rank) for name, layer in layers.items()}
    was_training = model.training
    model.eval()
    images: dict[str, torch.Tensor] = {}
    for last in [False] * (SWEEPS - 1) + [True]:
        images = _images(model, layers, bases, used, padding)
        if not last:
            bases = {name: torch.linalg.qr(image).Q for name, image in images.items()}
    model.train(was_training)
    for name, layer in layers.items():
        basis = bases[name].to(images[name])
        _, vectors = torch.linalg.eigh(basis.T @ images[name])
        layer.lora_A[NAME].weight.copy_((basis @ vectors.flip(1)[:, :rank]).T)


def _random_basis(width: int, rank: int) -> torch.Tensor:
    """Return orthonormal columns, more than the rank so that it is found sooner; the same for inputs of the same width."""
    generator = torch.Generator().manual_seed(width)
    columns = min(2 * rank + SPARE, width)
    return torch.linalg.qr(torch.randn(width, columns, generator=generator)).Q


def _images(
    model: PeftModel,
    layers: Mapping[str, Any],
    bases: Mapping[str, torch.Tensor],
    rows: Sequence[Mapping[str, Any]],
    padding: int,
) -> dict[str, torch.Tensor]:
    """Return X^T X Q of each layer, X being its inputs at trained tokens and Q its basis."""
    found: dict[str, torch.Tensor] = {}
    counts = torch.empty(0)

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def hook(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            x = given[0][counts.to(given[0].device)].float()
            image = x.T @ (x @ bases[name].to(x))
            found[name] = found[name] + image if name in found else image

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        for first in range(0, len(rows), ROWS):
            batch = _padded(rows[first : first + ROWS], padding)
            counts = batch.pop("labels") != IGNORED
            model(**{name: x.to(model.device) for name, x in batch.items()})
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _padded(rows: Sequence[Mapping[str, Any]], padding: int) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)

    def fill(values: Sequence[int], filler: int) -> list[int]:
        return [*values, *[filler] * (longest - len(values))]

    return {
        "input_ids": torch.tensor([fill(row["input_ids"], padding) for row in rows]),
        "attention_mask": torch.tensor([fill([1] * len(row["input_ids"]), 0) for row in rows]),
        "labels": torch.tensor([fill(row["labels"], IGNORED) for row in rows]),
    }


@torch.no_grad()
def start_from_loss(model: PeftModel, base: Path) -> None:
    """Set A and B so that their product is the best of its rank for what 4 bits lost.

    Source: Li et al. 2023, "LoftQ", with one iteration; unlike PEFT's, it heeds the scale of the product.
    """
    wanted = {f"{name.removeprefix(PREFIX)}.weight": layer for name, layer in lora_layers(model)}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as shard:
            for name in sorted(wanted.keys() & set(shard.keys())):
                layer = wanted[name]
                have = dequantize_module_weight(layer.get_base_layer()).float()
                lost = shard.get_tensor(name).to(have.device, torch.float32) - have
                u, s, v = torch.linalg.svd(lost, full_matrices=False)
                rank, root = layer.r[NAME], s.sqrt()
                layer.lora_A[NAME].weight.copy_(root[:rank, None] * v[:rank])
                layer.lora_B[NAME].weight.copy_(u[:, :rank] * root[:rank] / layer.scaling[NAME])


def remember_start(model: PeftModel) -> None:
    """Keep A and B of each layer as they are now."""
    for _, layer in lora_layers(model):
        for buffer, weights in zip(START, (layer.lora_A, layer.lora_B), strict=True):
            # Not persistent: it is no part of the model, only of what is saved of it.
            layer.register_buffer(buffer, weights[NAME].weight.detach().clone(), persistent=False)


def start_of(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return what `remember_start` kept, by path."""
    return {name: buffer for name, buffer in model.named_buffers() if name.endswith(START)}


def restart(model: PeftModel, start: Mapping[str, torch.Tensor]) -> None:
    """Put the layers onto the beginning of another process.

    Where the two differ, as on other hardware, what PiSSA and OLoRA take out of the base differs as well.
    """
    changed = str(configuration(model).init_lora_weights).startswith(CHANGES_BASE)
    for name, layer in lora_layers(model) if start else ():
        own = [layer.get_buffer(buffer) for buffer in START]
        theirs = [start[f"{name}.{buffer}"].to(own[0]) for buffer in START]
        if all(torch.equal(a, b) for a, b in zip(own, theirs, strict=True)):
            continue
        with torch.no_grad():
            if changed:
                weight = layer.get_base_layer().weight
                moved = own[1] @ own[0] - theirs[1] @ theirs[0]
                weight.copy_(weight + layer.scaling[NAME] * moved)
            for mine, other in zip(own, theirs, strict=True):
                mine.copy_(other)


def without_start(
    state: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor], *, factor: float
) -> dict[str, torch.Tensor]:
    """Return A and B of twice the rank, whose product is that of now less that of the start.

    Where the start was taken out of the base (PiSSA, OLoRA), that puts it back; for LoftQ it takes out of
    the adapter what only made up for the 4 bits. It is exact but for the rounding of the base's weights.

    Args:
        state: A and B now.
        start: What `start_of` returns.
        factor: To multiply B by.

    Source: [A; A0] and [B, -B0] give B A - B0 A0, as PEFT converts PiSSA and OLoRA.
    """
    found: dict[str, torch.Tensor] = {}
    for name in (n.removesuffix(f".{START[0]}") for n in start if n.endswith(START[0])):
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        found[a] = torch.cat([state[a], start[f"{name}.{START[0]}"]])
        found[b] = factor * torch.cat([state[b], -start[f"{name}.{START[1]}"]], dim=1)
    return found
