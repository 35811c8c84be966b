"""What a training is made of: rows, choices, identity, model, trainer."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    PreTrainedTokenizerFast,
    TrainerCallback,
    set_seed,
)
from trl.trainer.sft_config import SFTConfig

from tunewright import accel
from tunewright.accel import Choice
from tunewright.accel._recompute import recompute
from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.machine import is_sharded, library_versions, process_count
from tunewright.models._folders import resolve_model
from tunewright.models._room import device
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.families import read_shape
from tunewright.models.messages import messages_of
from tunewright.train._adapter import build, keeping_float32, pinned
from tunewright.train._choices import decided, started_with
from tunewright.train._course import Order, Rules, Snapshot
from tunewright.train._fast import Fast
from tunewright.train._monitor import Metrics, Samples, held_out
from tunewright.train._plan import eval_interval, refuse, require_rows, total_steps
from tunewright.train._processes import of_first
from tunewright.train._rows import read_side, token_rows
from tunewright.train._speed import checkpointing_of, ways_of
from tunewright.train._trackers import tracking
from tunewright.train._trainer import Trainer
from tunewright.train.divergence import Watchdog
from tunewright.train.schedule import Schedule
from tunewright.train.timing import Limit, limit_of

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """What a training needs beside the model.

    Attributes:
        base: Folder of the base.
        tokenizer: With its chat template.
        rows: Token rows to train on, with the line of each.
        eval_rows: The held-out ones.
        choices: What was decided, by name.
        micro: Rows of a forward pass.
        accumulation: Forward passes of a step.
        schedule: Steps, evaluations, checkpoints.
        identity: What the training is started from.
        device: Kind of device.
        prompts: Held-out prompts that the model answers at evaluations.
        max_length: Tokens of a row at most.
        order: Rows of each step.
        watchdog: Stops a run that has gone wrong.
        limit: What the device could do at most.
    """

    base: Path
    tokenizer: PreTrainedTokenizerFast
    rows: Sequence[Row]
    eval_rows: Sequence[Row]
    choices: Mapping[str, Choice]
    micro: int
    accumulation: int
    schedule: Schedule
    identity: Mapping[str, Any]
    device: str
    prompts: Sequence[Any]
    max_length: int
    order: Order
    watchdog: Watchdog
    limit: Limit


def prepare(config: Config, dataset: Artifact, before: Mapping[str, Any] | None) -> Prepared:
    """Return what a training needs; `before` is what one that was interrupted was started from.

    Raises:
        TunewrightError: Everything that makes the training impossible.
    """
    options = config.train
    base = resolve_model(config.model.model_name_or_path, config.model.revision)
    tokenizer = load_tokenizer(base, config.model.chat_template, config.model.extra_special_tokens)
    limits = {"train": options.max_train_samples, "eval": options.max_eval_samples}
    raw = {side: read_side(dataset.path / f"{side}.jsonl", n) for side, n in limits.items()}
    sides = {side: token_rows(rows, tokenizer, options) for side, rows in raw.items()}
    require_rows(sides, dataset.path)
    shape = read_shape(base)
    where = device()
    refuse(config, shape, tokenizer, where)
    about = {
        "model": config.model.model_name_or_path,
        "base": {"revision": config.model.revision, "files": pinned(base, config.model.revision)},
        "dataset": {name: dataset.files[name] for name in ("train.jsonl", "eval.jsonl")},
        "rows": {side: _digest([_for_model(row) for row in rows]) for side, rows in sides.items()},
        "tokenizer": _digest(tokenizer.backend_tokenizer.to_str()),
        "chat_template": _digest(str(tokenizer.chat_template)),
        "seed": config.seed,
    }
    # What was chosen for another base or for other rows says nothing of these.
    known = before if before and all(before.get(k) == about[k] for k in ("base", "rows")) else None
    choices = of_first(decided(config, shape, sides["train"], where, known))
    micro = int(choices["per_device_train_batch_size"].value)
    accumulation = int(choices["gradient_accumulation_steps"].value)
    passes = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulation}
    shared = options.model_copy(update=passes)
    steps = total_steps(len(sides["train"]), shared)
    interval = eval_interval(steps, len(sides["train"]), shared)
    identity = {
        **about,
        "steps": steps,
        **started_with(config, choices, process_count()),
        **_environment(where),
    }
    identity, file = of_first(identity), dataset.path / "train.jsonl"
    return Prepared(
        base=base,
        tokenizer=tokenizer,
        rows=sides["train"],
        eval_rows=sides["eval"],
        choices=choices,
        micro=micro,
        accumulation=accumulation,
        schedule=Schedule(
            steps=steps,
            eval_steps=interval,
            save_steps=min(options.save_steps or interval, steps),
            patience=options.early_stopping_patience,
            threshold=options.early_stopping_threshold,
        ),
        identity=identity,
        device=where,
        max_length=options.max_length,
        prompts=held_out([messages_of(row) for row in raw["eval"]], count=options.sample_prompts),
        order=Order(
            [len(row["input_ids"]) for row in sides["train"]],
            rows_a_step=micro * accumulation * process_count(),
            strategy=choices["train_sampling_strategy"].value,
            seed=config.seed,
        ),
        limit=limit_of(shape, accel.measure_speeds(where).of(choices["dtype"].value)),
        watchdog=Watchdog(len(tokenizer), lambda row: f"{file}:{sides['train'][row]['number']}"),
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _environment(where: str) -> dict[str, Any]:
    """Return what of the machine decides the last bits of a result."""
    name = torch.cuda.get_device_name() if where == "cuda" else platform.machine()
    return {
        "device": where,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "world_size": process_count(),
        "sharded": is_sharded(),
        "versions": library_versions(),
    }


def tuned_model(config: Config, prepared: Prepared) -> PeftModel:
    """Return the base with its new adapter, every random number generator seeded.

    Raises:
        TunewrightError: E_CONFIG_VALUE, E_MODEL.
    """
    model = build(
        prepared.base,
        prepared.tokenizer,
        config.train,
        dtype=prepared.choices["dtype"].value,
        device=prepared.device,
        attention=prepared.choices["attn_implementation"].value,
        seed=config.seed,
        extra_special_tokens=config.model.extra_special_tokens,
        calibration=prepared.rows,
    )
    set_seed(config.seed)
    return model


def arguments(config: Config, prepared: Prepared, folder: Path) -> SFTConfig:
    """Return what TRL is told; order, evaluations and checkpoints are our own."""
    if is_sharded():
        # Without it accelerate would gather the whole base at once, which nobody wants of FSDP.
        os.environ.setdefault("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    options = config.train
    steps = prepared.schedule.steps
    warmup: float | None = options.warmup_steps
    if warmup is None:
        # Rounded up it would take away a step of a run that has few.
        warmup = options.warmup_ratio if options.warmup_ratio * steps >= 1 else 0
    # The accelerated path takes all rows of a step at once, and lays them out itself.
    at_once = 1 if ways_of(prepared.choices).plain else prepared.accumulation
    given = SFTConfig(
        output_dir=str(folder),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        num_train_epochs=options.num_train_epochs,
        max_steps=options.max_steps or -1,
        per_device_train_batch_size=prepared.micro * at_once,
        per_device_eval_batch_size=options.per_device_eval_batch_size or prepared.micro * at_once,
        gradient_accumulation_steps=prepared.accumulation // at_once,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.lr_scheduler_type,
        warmup_steps=min(warmup, steps),
        weight_decay=options.weight_decay,
        adam_beta1=options.adam_beta1,
        adam_beta2=options.adam_beta2,
        adam_epsilon=options.adam_epsilon,
        max_grad_norm=options.max_grad_norm,
        optim=prepared.choices["optim"].value,
        gradient_checkpointing=checkpointing_of(prepared.choices) is True,
        dataloader_num_workers=options.dataloader_num_workers,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=options.logging_steps,
        logging_nan_inf_filter=False,
        bf16=False,
        use_cpu=prepared.device == "cpu",
        dataloader_pin_memory=prepared.device == "cuda",
        ddp_find_unused_parameters=False,
        deepspeed=options.deepspeed,
        disable_tqdm=True,
        seed=config.seed,
        **tracking(options, config.name),
    )
    # Several cards without a launcher: the first one, in place of the data parallelism that TRL refuses.
    given._n_gpu = min(1, given.n_gpu)
    return given


def make_trainer(
    model: PeftModel,
    given: SFTConfig,
    prepared: Prepared,
    *,
    schedule: Schedule,
    metrics: Metrics,
    save: Callable[[Snapshot], None],
    said: Callable[[str, str], None],
    callbacks: Sequence[TrainerCallback],
    self_check: bool,
) -> Trainer:
    """Return the trainer, ready to run."""
    rules = Rules(
        order=prepared.order,
        schedule=schedule,
        watchdog=prepared.watchdog,
        save=save,
        said=said,
        saving=bool(checkpointing_of(prepared.choices)),
    )
    samples = Samples(metrics, prepared.prompts, prepared.tokenizer, max_length=prepared.max_length)
    if checkpointing_of(prepared.choices) == "selective":
        recompute(model, selective=True)
    ways = ways_of(prepared.choices)
    fast = None if ways.plain else Fast(model, ways, self_check=self_check, said=said)
    with keeping_float32(model):
        return Trainer(
            model,
            given,
            *([_for_model(row) for row in side] for side in (prepared.rows, prepared.eval_rows)),
            rules=rules,
            callbacks=[metrics, samples, *callbacks],
            processing_class=prepared.tokenizer,
            fast=fast,
        )


def _for_model(row: Row) -> dict[str, Any]:
    return {"input_ids": row["input_ids"], "labels": row["labels"]}
