"""The plan stage."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright import accel
from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, TrainSection
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.machine import disk_space
from tunewright.models._load import device, load_tokenizer, resolve_model
from tunewright.models.families import LINEARS, Shape, read_shape
from tunewright.train._rows import read_side, token_rows
from tunewright.train.memory import training_memory

EXPORT_BYTES = {"F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 1.0625}
"""Bytes a parameter in a GGUF file."""


def plan(config: Config, dataset: Artifact, listener: Listener) -> Artifact:
    """Make the plan; see the facade."""
    options = config.train
    base = resolve_model(config.model.model_name_or_path, config.model.revision, weights=False)
    shape = read_shape(base)
    tokenizer = load_tokenizer(base, config.model.chat_template)
    rows = token_rows(read_side(dataset.path / "train.jsonl"), tokenizer, options)
    lengths = [len(row["input_ids"]) for row in rows]
    if not rows:
        raise failure("E_NOTHING_TO_LEARN", "No row has an answer left.", where=dataset.path)
    refuse(config, shape, highest_token(tokenizer))
    targets, disk = _targets(config), disk_need(config, shape)
    where = device()
    dtype = accel.precision(options.dtype, where, accel.measure_speeds(where))
    order = accel.batching(
        options.train_sampling_strategy, lengths, options.per_device_train_batch_size
    )
    trainable = shape.lora_parameters(options.lora.r, targets)
    memory = training_memory(
        shape,
        trainable,
        dtype=dtype.value,
        tokens=options.per_device_train_batch_size * max(lengths),
        checkpointing=options.gradient_checkpointing is True,
    )
    steps = total_steps(len(rows), options)
    facts: dict[str, Any] = {
        "device": where,
        "base_parameters": shape.matrix_parameters(),
        "trainable_parameters": trainable,
        "rows": len(rows),
        "tokens_an_epoch": sum(lengths),
        "trained_tokens_an_epoch": sum(sum(label >= 0 for label in row["labels"]) for row in rows),
        "steps": steps,
        "eval_steps": eval_interval(steps, len(rows), options),
        "memory_bytes": asdict(memory) | {"total": memory.total},
        "disk_bytes": disk,
        "choices": [asdict(dtype), asdict(order)],
        "gates": [
            {
                "gate": "the disk holds run, merged model and exports",
                "value": f"{disk / 1e6:,.0f} MB needed",
                "limit": f"{disk_space(Path(config.run_dir)).free_bytes / 1e6:,.0f} MB free",
                "passed": True,
            }
        ],
    }
    listener.said(f"{steps} steps, {trainable:,} trained parameters, {memory.total / 1e6:,.0f} MB")
    for choice in (dtype, order):
        listener.said(f"{choice.name}: {choice.value}, since {choice.reason}")
    path = Path(config.run_dir) / "plan"
    settings = settings_of(config, "plan")
    with writing(path, "plan", settings=settings, parents={"dataset": dataset}) as draft:
        draft.facts |= facts
    return load_artifact(path, "plan")


def total_steps(rows: int, options: TrainSection) -> int:
    """Return the optimizer steps of a run over `rows` rows on one device, as Trainer counts them."""
    batches = math.ceil(rows / options.per_device_train_batch_size)
    an_epoch = max(1, math.ceil(batches / options.gradient_accumulation_steps))
    return math.ceil(an_epoch * options.num_train_epochs)


def eval_interval(steps: int, rows: int, options: TrainSection) -> int:
    """Return the steps between evaluations: as asked, or a twentieth of the run, at most an epoch."""
    if options.eval_steps:
        return min(options.eval_steps, steps)
    batch = options.per_device_train_batch_size * options.gradient_accumulation_steps
    return max(1, min(math.ceil(steps / 20), math.ceil(rows / batch)))


def disk_need(config: Config, shape: Shape) -> int:
    """Return the bytes that adapter, merged model and exports take together, with a tenth to spare."""
    factors = 2.0 + sum(EXPORT_BYTES[kind] for kind in config.export.quantization)
    lora = 4 * shape.lora_parameters(config.train.lora.r, LINEARS) * config.train.save_total_limit
    return int(1.1 * (shape.matrix_parameters() * factors + lora))


def _targets(config: Config) -> tuple[str, ...]:
    named = config.train.lora.target_modules
    return LINEARS if named == "all-linear" else named


def highest_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the highest id that the tokenizer can give."""
    return max(tokenizer.get_vocab().values())


def refuse(config: Config, shape: Shape, highest: int) -> None:
    """Refuse a run that cannot end well.

    Args:
        config: What is asked for.
        shape: The base.
        highest: Highest id that the tokenizer can give.

    Raises:
        TunewrightError: Everything that is wrong, at once.
    """
    problems: list[Problem] = []
    disk = disk_need(config, shape)
    if highest >= shape.vocabulary:
        problems.append(
            Problem(
                "E_MODEL",
                f"The tokenizer has ids up to {highest}, the embedding has {shape.vocabulary} rows.",
                config.model.model_name_or_path,
                "Use the tokenizer that belongs to the base, or resize the embedding first.",
            )
        )
    if config.train.max_length > shape.context:
        problems.append(
            Problem(
                "E_CONFIG_VALUE",
                f"'train.max_length' is {config.train.max_length}, the model reads {shape.context} tokens.",
                "train.max_length",
                f"--set train.max_length={shape.context}",
            )
        )
    unknown = [name for name in _targets(config) if name not in LINEARS]
    if unknown:
        problems.append(
            Problem(
                "E_CONFIG_VALUE",
                f"The model has no linear layer named {', '.join(unknown)}.",
                "train.lora.target_modules",
                f"Use names from: {', '.join(LINEARS)}.",
            )
        )
    space = disk_space(Path(config.run_dir))
    if space.free_bytes < disk:
        problems.append(
            Problem(
                "E_DISK_SPACE",
                f"{disk / 1e6:,.0f} MB are needed and {space.free_bytes / 1e6:,.0f} MB are free.",
                str(space.path),
                "Free space, or change output_dir.",
            )
        )
    if problems:
        raise TunewrightError(problems)
