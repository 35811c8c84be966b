"""What is decided before a training, each with its reason: the same for `plan` and `train`."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunewright import accel
from tunewright.accel import Choice
from tunewright.accel.layout import Row
from tunewright.config.inputs import NO_MATTER
from tunewright.config.schema import Config
from tunewright.machine import process_count
from tunewright.models._room import memory_free
from tunewright.models.families import Shape
from tunewright.train import methods
from tunewright.train._adapter import flash_installed
from tunewright.train._speed import SPEED, asked, method_for, packs, speed_choices
from tunewright.train.fit import fitted, shared

PASSES = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "attn_implementation",
    "per_device_eval_batch_size",
)
"""Options of how the rows of a step go through the model: with others it is the same step, rounded otherwise."""
GAIN = "predicted_gain"
"""Told, and decides nothing."""
DECIDING = ("optim", "train_sampling_strategy")
"""Choices that make it another training."""


def started_with(config: Config, choices: Mapping[str, Choice], processes: int) -> dict[str, Any]:
    """Return the fields of a run's identity that options and choices decide.

    `asked` and `reasons` are kept for the next time and not compared: what they led to is.
    """
    options = config.train
    values = {name: choice.value for name, choice in choices.items()}
    rows = int(values[PASSES[0]]) * int(values[PASSES[1]])
    given = options.model_dump(mode="json", exclude={*NO_MATTER, *PASSES})
    wanted = _wanted(config)
    passes = {name: values.get(name, wanted.get(name)) for name in (*PASSES, *SPEED)}
    return {
        "train": given,
        "rows_a_step": rows * processes,
        "choices": {name: values[name] for name in DECIDING},
        "passes": passes,
        "dtype": values["dtype"],
        "gain": values[GAIN],
        "asked": wanted,
        "reasons": {name: choice.reason for name, choice in choices.items()},
    }


def _wanted(config: Config) -> dict[str, Any]:
    """Return what is asked for of the passes of a step."""
    return config.train.model_dump(mode="json", include=set(PASSES)) | {"accel": asked(config)}


def decided(
    config: Config,
    shape: Shape,
    rows: Sequence[Mapping[str, Any]],
    device: str,
    before: Mapping[str, Any] | None,
) -> dict[str, Choice]:
    """Return every choice, as a training that is gone on with had them.

    A choice that was measured could fall differently today. With other processes or other passes only
    those are chosen anew, so that a step keeps its rows where they can be shared evenly.

    Args:
        config: What is asked for now.
        shape: The base.
        rows: Token rows to train on.
        device: Kind of device.
        before: What the training was started from; None: it is a new one.

    Raises:
        TunewrightError: E_OOM, not even one row fits.
    """
    options, processes = config.train, process_count()
    given = options.model_dump(mode="json", exclude={*NO_MATTER, *PASSES})
    if before is None or (before["train"], before["device"]) != (given, device):
        return choose(config, shape, rows, device)
    fixed = {**before["choices"], "dtype": before["dtype"]}
    same_passes = before["asked"] == _wanted(config)
    if same_passes and before["world_size"] == processes:
        values = {**before["passes"], **fixed, GAIN: before["gain"]}
        reasons = before["reasons"]
        return {name: Choice(name, values[name], reasons[name]) for name in reasons}
    told = dict.fromkeys(fixed, "as it was when the training began")
    share = shared(before["rows_a_step"], processes, options.per_device_train_batch_size)
    if same_passes and share:
        fixed |= dict(zip(PASSES[:2], share, strict=True))
        text = f"a step keeps its {before['rows_a_step']} rows, on {processes} processes"
        told |= dict.fromkeys(PASSES[:2], text)
    again = choose(
        config.model_copy(update={"train": options.model_copy(update=fixed)}), shape, rows, device
    )
    return {
        name: Choice(name, choice.value, told.get(name, choice.reason))
        for name, choice in again.items()
    }


def choose(
    config: Config, shape: Shape, rows: Sequence[Mapping[str, Any]], device: str
) -> dict[str, Choice]:
    """Return every choice by name.

    Raises:
        TunewrightError: E_OOM, not even one row fits.
    """
    options = config.train
    lengths = [len(row["input_ids"]) for row in rows]
    own = config.accel.backend == methods.UNSLOTH
    dtype = accel.precision(options.dtype, device, accel.measure_speeds(device))
    if own:
        dtype = Choice("dtype", "bfloat16", "accel.backend computes in 16 bits")
    attention = methods.attention(
        methods.UNSLOTH if own else options.attn_implementation,
        device=device,
        dtype=dtype.value,
        installed=flash_installed(),
    )
    free = memory_free(device)
    method = method_for(config, dtype=dtype.value, device=device, attention=attention.value)
    fit, fitting = fitted(options, shape, method, longest=max(lengths), memory_free=free)
    order = accel.batching(
        options.train_sampling_strategy,
        lengths,
        fit.per_device_train_batch_size,
        packed=packs(config, shape, method, max(lengths)),
    )
    speed = speed_choices(
        config,
        shape,
        method,
        fit,
        [Row(row["input_ids"], row["labels"]) for row in rows],
        order.value,
        free,
    )
    optimizer = methods.optimizer(options.optim, device=device, load_in_4bit=options.load_in_4bit)
    choices = [dtype, optimizer, attention, *fitting, order, *speed]
    return {choice.name: choice for choice in choices}
