"""The train stage: the only file that knows TRL."""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    set_seed,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tunewright import accel
from tunewright.artifacts import Artifact, load_artifact, sha256, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, LoraSection, TrainSection
from tunewright.errors import failure
from tunewright.events import Listener
from tunewright.machine import library_versions
from tunewright.models._load import device, load_model, load_tokenizer, resolve_model
from tunewright.models.families import read_shape
from tunewright.train._plan import eval_interval, highest_token, refuse, total_steps
from tunewright.train._rows import read_side, token_rows


def train(config: Config, dataset: Artifact, listener: Listener) -> Artifact:
    """Train the adapter; see the facade."""
    options = config.train
    started = time.monotonic()
    base = resolve_model(config.model.model_name_or_path, config.model.revision)
    tokenizer = load_tokenizer(base, config.model.chat_template)
    sides = {
        side: token_rows(read_side(dataset.path / f"{side}.jsonl"), tokenizer, options)
        for side in ("train", "eval")
    }
    if not sides["train"] or not sides["eval"]:
        raise failure(
            "E_NOTHING_TO_LEARN", "A side of the split has no row left.", where=dataset.path
        )
    refuse(config, read_shape(base), highest_token(tokenizer))
    steps = total_steps(len(sides["train"]), options)
    interval = eval_interval(steps, len(sides["train"]), options)
    choices = _choose(options, [len(row["input_ids"]) for row in sides["train"]])
    settings = settings_of(config, "adapter")
    path = Path(config.run_dir) / "adapter"
    with writing(path, "adapter", settings=settings, parents={"dataset": dataset}) as draft:
        checkpoints = draft.path / "checkpoints"
        log = Log(draft.path / "metrics.jsonl", listener, len(tokenizer))
        set_seed(config.seed)
        trainer = SFTTrainer(
            model=load_model(base, choices["dtype"].value),
            args=_arguments(
                options,
                checkpoints,
                interval=interval,
                order=choices["train_sampling_strategy"].value,
                seed=config.seed,
            ),
            train_dataset=Dataset.from_list(sides["train"]),
            eval_dataset=Dataset.from_list(sides["eval"]),
            processing_class=tokenizer,
            peft_config=_lora(options.lora),
            callbacks=[log, *_stopping(options)],
        )
        for unwanted in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(unwanted)
        listener.started("train", steps, "steps")
        trainer.train()
        _save(trainer, draft.path, config.model.model_name_or_path, config.model.revision)
        tokenizer.save_pretrained(draft.path)
        shutil.rmtree(checkpoints, ignore_errors=True)
        draft.facts |= log.facts() | {
            "base": config.model.model_name_or_path,
            "base_revision": config.model.revision,
            "base_files": {p.name: sha256(p) for p in sorted(base.glob("*.safetensors"))},
            "steps_planned": steps,
            "seconds": round(time.monotonic() - started, 1),
            "choices": [vars(choice) for choice in choices.values()],
        }
        draft.facts["stopped_early"] = draft.facts["steps"] < steps
        draft.facts["gates"] = _gates(draft.facts)
        _write_summary(draft.path, config, dataset, draft.facts)
    return load_artifact(path, "adapter")


class Log(TrainerCallback):
    """Writes metrics.jsonl, tells the listener, and stops a run that has diverged.

    Diverged is a loss or gradient norm that is no number, or a held-out loss as high as that of a model that
    guesses evenly, ln(vocabulary), unless it was about as high before training.
    """

    def __init__(self, file: Path, listener: Listener, vocabulary: int) -> None:
        self._file = file
        self._guessing = 0.95 * math.log(vocabulary)
        self._listener = listener
        self._rows: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep one record."""
        row = {"step": state.global_step, **logs}
        self._rows.append(row)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        self._stop_if_diverged(row)
        self._listener.advanced(state.global_step, self._detail())

    def _stop_if_diverged(self, row: dict[str, Any]) -> None:
        evaluations = self._series("eval_loss")
        highest = max(self._guessing, 1.5 * evaluations[0][1]) if evaluations else math.inf
        limits = {"loss": math.inf, "eval_loss": highest, "grad_norm": math.inf}
        for name in limits.keys() & row.keys():
            if not row[name] < limits[name] and row["step"]:
                good = [step for step, loss in evaluations if loss < highest]
                raise failure(
                    "E_DIVERGED",
                    f"'{name}' is {row[name]:.4g}; the last good evaluation was at step {good[-1] if good else 'none'}.",
                    where=f"step {row['step']}",
                )

    def facts(self) -> dict[str, Any]:
        """Return the curves and the best evaluation."""
        evaluations = self._series("eval_loss")
        # Trainer keeps no checkpoint of the evaluation before training.
        best_step, best_loss = min(evaluations[1:], key=lambda point: point[1])
        return {
            "train_losses": self._series("loss"),
            "eval_losses": evaluations,
            "best_step": best_step,
            "best_eval_loss": best_loss,
            "steps": self._rows[-1]["step"],
        }

    def _series(self, name: str) -> list[tuple[int, float]]:
        return [(row["step"], row[name]) for row in self._rows if name in row]

    def _detail(self) -> str:
        texts = [
            f"{label} {points[-1][1]:.3f}"
            for label, points in (
                ("loss", self._series("loss")),
                ("eval", self._series("eval_loss")),
            )
            if points
        ]
        return ", ".join(texts)


def _choose(options: TrainSection, lengths: list[int]) -> dict[str, accel.Choice]:
    where = device()
    choices = (
        accel.precision(options.dtype, where, accel.measure_speeds(where)),
        accel.batching(
            options.train_sampling_strategy, lengths, options.per_device_train_batch_size
        ),
    )
    return {choice.name: choice for choice in choices}


def _lora(options: LoraSection) -> LoraConfig:
    targets = options.target_modules
    return LoraConfig(
        r=options.r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=options.use_rslora,
        task_type="CAUSAL_LM",
    )


def _arguments(
    options: TrainSection, folder: Path, *, interval: int, order: str, seed: int
) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        num_train_epochs=options.num_train_epochs,
        per_device_train_batch_size=options.per_device_train_batch_size,
        per_device_eval_batch_size=options.per_device_train_batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.lr_scheduler_type,
        warmup_steps=options.warmup_ratio,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        optim="adamw_torch" if options.optim == "auto" else options.optim,
        gradient_checkpointing=options.gradient_checkpointing is True,
        train_sampling_strategy=order,
        eval_strategy="steps",
        eval_steps=interval,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=options.save_total_limit,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
        seed=seed,
    )


def _stopping(options: TrainSection) -> list[TrainerCallback]:
    patience = options.early_stopping_patience
    return [] if patience is None else [EarlyStoppingCallback(early_stopping_patience=patience)]


def _save(trainer: SFTTrainer, folder: Path, base: str, revision: str | None) -> None:
    model = trainer.model
    if not isinstance(model, PeftModel):
        raise TypeError(f"expected an adapter, got {type(model).__name__}")
    model.save_pretrained(str(folder))
    # PEFT names the base by where it lies on this machine, in the config and in an empty model card.
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings |= {"base_model_name_or_path": base, "revision": revision}
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _gates(facts: dict[str, Any]) -> list[dict[str, Any]]:
    first = facts["eval_losses"][0][1]
    return [
        {
            "gate": "the held-out loss fell",
            "value": f"{first:.3f} to {facts['best_eval_loss']:.3f} at step {facts['best_step']}",
            "limit": "lower than before training",
            "passed": facts["best_eval_loss"] < first,
        }
    ]


def _write_summary(folder: Path, config: Config, dataset: Artifact, facts: dict[str, Any]) -> None:
    summary = {
        "model_name_or_path": config.model.model_name_or_path,
        "revision": config.model.revision,
        "dataset": {"digest": dataset.digest, "inputs": dataset.facts["inputs"]},
        "hyperparameters": config.train.model_dump(mode="json"),
        "seed": config.seed,
        "versions": library_versions(),
        "metrics": {k: facts[k] for k in ("best_step", "best_eval_loss", "steps", "seconds")},
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    (folder / "training_summary.json").write_text(text + "\n", encoding="utf-8")
