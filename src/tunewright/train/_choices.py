"""What is decided before a training, each with its reason: the same for `plan` and `train`."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunewright import accel
from tunewright.accel import Choice
from tunewright.config.schema import Config
from tunewright.models.families import Shape
from tunewright.train import methods
from tunewright.train._adapter import flash_installed
from tunewright.train._room import memory_free
from tunewright.train.fit import fitted


def choose(
    config: Config, shape: Shape, rows: Sequence[Mapping[str, Any]], device: str
) -> dict[str, Choice]:
    """Return every choice by name.

    Raises:
        TunewrightError: E_OOM, not even one row fits.
    """
    options = config.train
    lengths = [len(row["input_ids"]) for row in rows]
    dtype = accel.precision(options.dtype, device, accel.measure_speeds(device))
    attention = methods.attention(
        options.attn_implementation, device=device, dtype=dtype.value, installed=flash_installed()
    )
    fit, fitting = fitted(
        options,
        shape,
        longest=max(lengths),
        memory_free=memory_free(device),
        dtype=dtype.value,
        device=device,
        attention=attention.value,
        added_tokens=len(config.model.extra_special_tokens),
    )
    choices = [
        dtype,
        methods.optimizer(options.optim, device=device, load_in_4bit=options.load_in_4bit),
        attention,
        *fitting,
        accel.batching(options.train_sampling_strategy, lengths, fit.per_device_train_batch_size),
    ]
    return {choice.name: choice for choice in choices}
