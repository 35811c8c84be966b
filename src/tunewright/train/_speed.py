"""Which techniques of `accel` a training uses: what stands against them here, and the rows they are judged by."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from tunewright import accel
from tunewright.accel import Choice
from tunewright.accel.layout import Row
from tunewright.accel.order import epoch_order
from tunewright.config.schema import Config, Recomputed
from tunewright.machine import is_sharded, process_count, shards
from tunewright.models.families import Shape
from tunewright.train.fit import Fit, largest_batch
from tunewright.train.methods import UNSLOTH, Method, method_of

SPEED = (*accel.TECHNIQUES, accel.TOKENS)
"""Choices that say how the rows of a step go through the model."""
MOST_TOKENS, MOST_TOKENS_IN_4_BITS = 4096, 16384
"""Positions of a pass that keep any of our devices busy; in 4 bits each pass unpacks all weights besides."""
FEWEST_TOKENS, OPERATIONS_OF_A_PASS = 512, 1e12
"""Positions, and operations of its linears, from which on a pass of a processor gains nothing by being longer: calling
its kernels takes less than a hundredth of its seconds. More would only take memory."""
SAMPLE = 20
"""Optimizer steps that the gain is predicted from."""


def speed_choices(
    config: Config,
    shape: Shape,
    method: Method,
    fit: Fit,
    rows: Sequence[Row],
    strategy: str,
    memory_free: int | None,
) -> list[Choice]:
    """Return the choice of each technique, the positions of a pass, and what they should gain in all.

    Args:
        config: What is asked for.
        shape: The base.
        method: The way of training.
        fit: What fits in memory of padded rows.
        rows: To train on.
        strategy: Order of the rows.
        memory_free: Bytes; None where that is not known.
    """
    micro = fit.per_device_train_batch_size
    a_step = micro * fit.gradient_accumulation_steps
    longest = max(len(row.tokens) for row in rows)
    at_once = micro
    if memory_free is not None:
        most = largest_batch(
            shape,
            method,
            step=a_step,
            longest=longest,
            memory_free=memory_free,
            checkpointing=fit.gradient_checkpointing,
            most=max(micro, _most_tokens(config) // longest),
        )
        at_once = max(micro, most)
    fitting = f"{at_once} of the longest rows fit" if at_once > 1 else "the longest row fits"
    why = f"{fitting} in memory"
    if method.device == "cpu" and at_once > (enough := _rows_enough(shape, longest)):
        at_once, why = enough, f"{fitting} in memory, and a longer pass is no faster"
    tokens = Choice(accel.TOKENS, str(at_once * longest), why)
    lengths = [len(row.tokens) for row in rows]
    order = epoch_order(lengths, rows_a_step=a_step, strategy=strategy, seed=config.seed, epoch=0)
    kept = [rows[at] for at in order[: SAMPLE * a_step] if at < len(rows)]
    steps = [kept[at : at + a_step] for at in range(0, len(kept), a_step)]
    again = shape.linear_parameters() * (2 if fit.gradient_checkpointing is True else 0)
    found, gain = accel.techniques(
        config.accel.model_dump(include=set(accel.TECHNIQUES)),
        accel.work_of(steps, rows_a_pass=micro, tokens_a_pass=at_once * longest),
        obstacles(config, shape, method, longest),
        layers=4 * shape.linear_parameters() + again,
        head=4 * shape.vocabulary * shape.hidden,
    )
    predicted = Choice(
        "predicted_gain", f"{gain:.2f}", "a step of the plain path has so many times the operations"
    )
    return [*found, tokens, predicted]


def _most_tokens(config: Config) -> int:
    return MOST_TOKENS_IN_4_BITS if config.train.load_in_4bit else MOST_TOKENS


def _rows_enough(shape: Shape, longest: int) -> int:
    operations = 4 * shape.linear_parameters()
    return math.ceil(max(FEWEST_TOKENS, OPERATIONS_OF_A_PASS / operations) / longest)


def method_for(config: Config, *, dtype: str, device: str, attention: str) -> Method:
    """Return the way of training that a config asks for, with what else was decided."""
    return method_of(
        config.train,
        dtype=dtype,
        device=device,
        attention=attention,
        added_tokens=len(config.model.extra_special_tokens),
        shards=shards(),
        fused=config.accel.fused_lora is not False
        and attention != UNSLOTH
        and not config.train.lora.use_dora
        and _in_one_process(config),
    )


def _in_one_process(config: Config) -> bool:
    return not (process_count() > 1 or is_sharded() or config.train.deepspeed)


def packs(config: Config, shape: Shape, method: Method, longest: int) -> bool:
    """Return whether rows will be packed; takes what `obstacles` takes."""
    against = obstacles(config, shape, method, longest)
    return config.accel.packing is not False and "packing" not in against


def obstacles(config: Config, shape: Shape, method: Method, longest: int) -> dict[str, str]:
    """Return why techniques cannot be used, by their names.

    Args:
        config: What is asked for.
        shape: The base.
        method: The way of training.
        longest: Tokens of the longest row.
    """
    found: dict[str, str] = {}
    if config.train.lora.lora_dropout:
        found["shared_prefix"] = "with dropout every row draws its own"
    if method.dora:
        found["fused_lora"] = "it is for plain LoRA"
    if method.attention != "sdpa":
        found["packing"] = f"attention is {method.attention}, and packing goes with sdpa"
    if shape.window is not None and longest > shape.window:
        found["packing"] = f"rows are longer than the attention's window of {shape.window}"
    if method.device != "cuda":
        found["liger_kernel"] = f"it is for GPUs, and this is {method.device}"
    elif find_spec("liger_kernel") is None:
        found["liger_kernel"] = "the package liger-kernel is not installed"
    if method.attention == UNSLOTH:
        found |= dict.fromkeys(("fused_lora", *accel.KERNELS), "Unsloth's kernels do it")
    if not _in_one_process(config):
        found = dict.fromkeys(accel.TECHNIQUES, "it is for training in one process")
    return found


def asked(config: Config) -> dict[str, Any]:
    """Return what is asked for, as a JSON value."""
    return config.accel.model_dump(mode="json", include={*accel.TECHNIQUES, "backend"})


def checkpointing_of(choices: Mapping[str, Choice]) -> Recomputed:
    """Return which activations are recomputed."""
    value = choices["gradient_checkpointing"].value
    return "selective" if value == "selective" else value == "true"


def ways_of(choices: Mapping[str, Choice]) -> accel.Ways:
    """Return how the rows of a step go through the model."""
    on = {name: choices[name].value == "on" for name in accel.TECHNIQUES}
    rows = int(choices["per_device_train_batch_size"].value)
    return accel.Ways(
        **on,
        tokens_a_pass=int(choices[accel.TOKENS].value),
        rows_a_pass=rows,
        selective=checkpointing_of(choices) == "selective",
    )


def rows_in_memory(choices: Mapping[str, Choice], longest: int) -> int:
    """Return how many of the longest rows a pass may hold: what memory is predicted for."""
    ways = ways_of(choices)
    return ways.rows_a_pass if ways.plain else max(1, ways.tokens_a_pass // longest)
