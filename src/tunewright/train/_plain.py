"""A checkpoint as an adapter that PEFT reads."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from tunewright.config.schema import LoraSection
from tunewright.models._weights import save_tensors
from tunewright.train._initial import START, without_start


def write_plain(
    state: Mapping[str, torch.Tensor], adapter: Path, folder: Path, options: LoraSection
) -> None:
    """Write what a checkpoint holds with the settings of an adapter of the same training.

    Args:
        state: What `adapter_state` returned.
        adapter: Folder of that adapter.
        folder: Where to.
        options: Of the training.
    """
    start = {name: x for name, x in state.items() if name.endswith(START)}
    plain = {name: x for name, x in state.items() if name not in start}
    if start:
        factor = math.sqrt(options.r) if options.use_rslora else 1.0
        plain |= without_start(plain, start, factor=factor)
    save_tensors(folder / "adapter_model.safetensors", plain)
    settings = (adapter / "adapter_config.json").read_bytes()
    (folder / "adapter_config.json").write_bytes(settings)
