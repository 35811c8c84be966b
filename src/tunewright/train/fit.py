"""Which micro-batch fits, and whether activations have to be recomputed for it. Pure."""

from dataclasses import asdict, dataclass

from tunewright.accel.choices import Choice
from tunewright.config.schema import Recomputed, TrainSection
from tunewright.errors import Problem, TunewrightError
from tunewright.models.families import Shape
from tunewright.train.memory import Memory, training_memory
from tunewright.train.methods import UNSLOTH, Method

SPARE = 0.1
"""Share of the free memory that is left alone: the prediction is good to a tenth."""


@dataclass(frozen=True)
class Fit:
    """How the rows of an optimizer step go through the model; their number is always the one asked for.

    Attributes:
        per_device_train_batch_size: Rows a forward pass.
        gradient_accumulation_steps: Forward passes an optimizer step.
        gradient_checkpointing: Activations are recomputed; `selective`: those that are cheap.
        memory: What that takes at its peak.
    """

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: Recomputed
    memory: Memory


def halvings(rows: int) -> list[int]:
    """Return `rows` and what to try after it, each time the largest divisor of at most half of the last."""
    found = [rows]
    while (last := found[-1]) > 1:
        found.append(next(d for d in range(last // 2, 0, -1) if last % d == 0))
    return found


def shared(rows_a_step: int, processes: int, most: int) -> tuple[int, int] | None:
    """Return rows a forward pass, at most `most`, and passes that give a step so many rows; None: uneven."""
    each, over = divmod(rows_a_step, processes)
    if over:
        return None
    rows = next(d for d in range(min(each, most), 0, -1) if each % d == 0)
    return rows, each // rows


def fitted(
    options: TrainSection,
    shape: Shape,
    method: Method,
    *,
    longest: int,
    memory_free: int | None,
) -> tuple[Fit, list[Choice]]:
    """Return the largest micro-batch up to the one asked for that fits, and the reasons.

    A smaller micro-batch costs little, recomputation of what is cheap some percent and that of everything about four
    tenths of the time, so with `gradient_checkpointing: auto` the micro-batch goes down first.

    Args:
        options: What is asked for.
        shape: The base.
        method: The way of training.
        longest: Tokens of the longest row.
        memory_free: Bytes free on the device before the model is loaded; None where that is not known.

    Raises:
        TunewrightError: E_OOM, not even one row fits: names the parts and what to lower.
    """
    asked, accumulation = options.per_device_train_batch_size, options.gradient_accumulation_steps
    ways = _ways(options, method)
    tried: list[tuple[Recomputed, int]] = [(way, rows) for way in ways for rows in halvings(asked)]
    for way, rows in tried:
        memory = _memory(shape, method, longest, (way, rows))
        if memory_free is None or memory.total <= usable(memory_free):
            fit = Fit(rows, accumulation * asked // rows, way, memory)
            return fit, _choices(options, fit, memory_free)
    least = _memory(shape, method, longest, tried[-1])
    raise TunewrightError([_too_large(least, memory_free or 0, method.device, options)])


def _ways(options: TrainSection, method: Method) -> tuple[Recomputed, ...]:
    """Return what may be recomputed, in the order in which it is tried."""
    if options.gradient_checkpointing != "auto":
        return (options.gradient_checkpointing,)
    # What is cheap is not recomputed by itself where weights come and go meanwhile, or layers are not Transformers'.
    alone = method.shards == 1 and options.deepspeed is None and method.attention != UNSLOTH
    return (False, "selective", True) if alone else (False, True)


def usable(memory_free: int) -> int:
    """Return how much of the free memory is planned with."""
    return int((1 - SPARE) * memory_free)


def largest_batch(
    shape: Shape,
    method: Method,
    *,
    step: int,
    longest: int,
    memory_free: int,
    checkpointing: Recomputed,
    most: int | None = None,
) -> int:
    """Return the most rows, up to `most`, that fit at once and divide a step's; 0 if not one does."""
    fits = (
        rows
        for rows in halvings(step)
        if (most is None or rows <= most)
        and _memory(shape, method, longest, (checkpointing, rows)).total <= usable(memory_free)
    )
    return next(fits, 0)


def _memory(shape: Shape, method: Method, longest: int, tried: tuple[Recomputed, int]) -> Memory:
    checkpointing, rows = tried
    return training_memory(shape, method, rows=rows, length=longest, checkpointing=checkpointing)


def _choices(options: TrainSection, fit: Fit, memory_free: int | None) -> list[Choice]:
    if memory_free is None:
        room = "the free memory is not known"
    else:
        room = f"{_gb(fit.memory.total)} of {_gb(memory_free)} free"
    asked, rows = options.per_device_train_batch_size, fit.per_device_train_batch_size
    passes, step = fit.gradient_accumulation_steps, asked * options.gradient_accumulation_steps
    if rows == asked:
        why, passed = f"as asked for: {room}", "as asked for"
    else:
        why = f"{asked} do not fit: {room} with {rows}"
        passed = f"an optimizer step keeps its {step} rows"
    if options.gradient_checkpointing != "auto":
        reason = "asked for in train.gradient_checkpointing"
    elif fit.gradient_checkpointing == "selective":
        reason = f"not even one row fits without: {room} when what is cheap is recomputed"
    elif fit.gradient_checkpointing:
        reason = f"not even one row fits without: {room} with it"
    else:
        reason = f"it fits without, which is faster: {room}"
    return [
        Choice("per_device_train_batch_size", str(rows), why),
        Choice("gradient_accumulation_steps", str(passes), passed),
        Choice("gradient_checkpointing", str(fit.gradient_checkpointing).lower(), reason),
    ]


def _too_large(memory: Memory, memory_free: int, device: str, options: TrainSection) -> Problem:
    parts = sorted(asdict(memory).items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {_gb(size)}" for name, size in parts if size > 0.01 * memory.total)
    ways = {
        "set `train.gradient_checkpointing=true`": options.gradient_checkpointing is False,
        "set `train.load_in_4bit=true`": not options.load_in_4bit and device != "mps",
        "lower `train.max_length`": True,
        "lower `train.lora.r`": memory.optimizer > 0.1 * memory.total,
        "take a smaller base": True,
    }
    fix = ", or ".join(way for way, helps in ways.items() if helps)
    return Problem(
        "E_OOM",
        f"One row would not fit: {_gb(memory.total)} are needed ({listed}), {_gb(memory_free)} are free.",
        device,
        f"{fix[0].upper()}{fix[1:]}.",
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e7 else f"{size / 1e6:,.1f} MB"
