"""The train stage: a dataset to an adapter, exactly the same one however often it is interrupted."""

import gc
import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact, load_artifact, make_key, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config
from tunewright.counting import counted
from tunewright.errors import TunewrightError, failure, first_line
from tunewright.events import Listener
from tunewright.machine import library_versions, process_count, process_rank
from tunewright.models._tokenizer import save_tokenizer
from tunewright.train._adapter import save_adapter
from tunewright.train._batches import is_out_of_memory
from tunewright.train._checkpoints import best_whole, retain, save
from tunewright.train._course import Snapshot
from tunewright.train._loop import Prepared, arguments, make_trainer, prepare, tuned_model
from tunewright.train._monitor import Metrics
from tunewright.train._plan import expectation
from tunewright.train._processes import any_of, of_first, wait_for_all
from tunewright.train._start import (
    CHECKPOINTS,
    TRAINING,
    Resume,
    Start,
    begin,
    remembered,
    write_identity,
)
from tunewright.train._trackers import trackers
from tunewright.train._trainer import Trainer
from tunewright.train.interrupt import Interrupt, listening
from tunewright.train.lock import only_one
from tunewright.train.schedule import Evaluations, best_of

SNAPSHOT_TENSORS = ("adapter_model", "optimizer", "rng_state")
SNAPSHOT_DOCUMENTS = ("trainer_state", "optimizer", "scheduler", "rng_state", "course")


def train(
    config: Config,
    dataset: Artifact,
    listener: Listener,
    *,
    resume: Resume,
    restart: bool,
    allow_inexact: bool,
) -> Artifact:
    """Train the adapter; see the facade."""
    folder = Path(config.run_dir) / TRAINING
    first = process_rank() == 0
    with only_one(folder) if first else nullcontext():
        before = remembered(folder, resume=resume, restart=restart)
        prepared = prepare(config, dataset, before)
        decide = partial(
            begin,
            folder,
            before,
            prepared.identity,
            listener,
            rows=prepared.order.rows,
            made=_made(config, dataset) is not None,
            resume=resume,
            allow_inexact=allow_inexact,
        )
        start = of_first(decide() if first else None)
        if start.checkpoint is not None and config.train.deepspeed:
            message = (
                "A run under DeepSpeed cannot be resumed: its optimizer's state is DeepSpeed's own."
            )
            fix = "`tunewright train ... --restart` begins at step 0; the old checkpoints are kept aside."
            raise failure("E_RESUME_ENV", message, where=folder, fix=fix)
        if start.kind == "finished":
            listener.said(
                "This training is finished; `tunewright train ... --restart` begins it again."
            )
            return load_artifact(Path(config.run_dir) / "adapter", "adapter")
        with _told(folder):
            return _run(config, dataset, prepared, start, listener)


def _made(config: Config, dataset: Artifact) -> Artifact | None:
    """Return the adapter if it is whole and what the config would make of this dataset."""
    try:
        made = load_artifact(Path(config.run_dir) / "adapter", "adapter", verify=True)
    except TunewrightError:
        return None
    settings = settings_of(config, "adapter")
    return made if made.key == make_key("adapter", settings, {"dataset": dataset.digest}) else None


def _run(
    config: Config,
    dataset: Artifact,
    prepared: Prepared,
    start: Start,
    listener: Listener,
) -> Artifact:
    started, interrupt = time.monotonic(), Interrupt()
    folder = Path(config.run_dir) / TRAINING
    first = process_rank() == 0
    schedule = replace(prepared.schedule, interrupted=interrupt.requested)
    metrics = Metrics(
        folder,
        listener,
        total_steps=schedule.steps,
        device=prepared.device,
        limit=prepared.limit,
        writes=first,
    )
    done = start.checkpoint.step if start.checkpoint else 0
    metrics.resume_at(done)
    epochs = schedule.steps * prepared.order.rows_a_step / len(prepared.order)
    expected = expectation(len(prepared.rows), len(prepared.eval_rows), epochs)
    if expected and not done:
        listener.said(expected)

    def told(kind: str, text: str) -> None:
        metrics.event(kind, text)
        listener.said(text)

    costs: list[float] = []

    def keep(snapshot: Snapshot) -> None:
        began = time.monotonic()
        save(
            folder / CHECKPOINTS,
            snapshot.step,
            tensors=snapshot.tensors,
            documents=snapshot.documents,
            identity=prepared.identity,
        )
        tidy(snapshot.documents["course"]["evaluations"])
        prepared.watchdog.checkpoint = snapshot.step
        costs.append(time.monotonic() - began)

    def tidy(evaluations: Evaluations) -> None:
        best = best_of(evaluations)[0] if evaluations[1:] else None
        retain(folder / CHECKPOINTS, keep=config.train.save_total_limit, best=best)

    given = arguments(config, prepared, folder)
    model = tuned_model(config, prepared)
    with trackers(
        config.train, folder, config.name, listener, step=done, writes=first
    ) as callbacks:
        trainer = make_trainer(
            model,
            given,
            prepared,
            schedule=schedule,
            metrics=metrics,
            save=keep,
            said=told,
            callbacks=callbacks,
            self_check=config.accel.self_check,
        )
        if start.checkpoint is not None:
            trainer.resume(_snapshot(start), start.inexact)
            if first:
                tidy(trainer.course.evaluations)
            listener.said(f"Going on after step {done} of {schedule.steps}.")
        listener.started("train", schedule.steps, "steps")
        listener.advanced(done, "")
        if done < schedule.steps and not schedule.is_over(trainer.course.evaluations):
            heard = listening(interrupt, listener.said, launched=process_count() > 1)
            with _diverging(metrics), heard:
                trainer.run(str(start.checkpoint.path) if start.checkpoint else None)
    if any_of(interrupt.requested()):
        metrics.event(
            "interrupted", f"stopped by signal {interrupt.signal or 'to another process'}"
        )
        step = trainer.state.global_step
        text = f"Saved after step {step} of {schedule.steps}. To go on: the same command, without --restart or --resume PATH."
        listener.said(text)
        interrupt.leave()
    if first:
        seconds = {"seconds": time.monotonic() - started, "checkpoint_seconds": sum(costs)}
        _finish(config, dataset, prepared, trainer, metrics, start, listener, seconds)
    wait_for_all()
    return load_artifact(Path(config.run_dir) / "adapter", "adapter")


def _snapshot(start: Start) -> Snapshot:
    saved = start.checkpoint
    if saved is None:
        raise TypeError("there is no checkpoint to go on from")
    return Snapshot(
        step=saved.step,
        tensors={name: saved.tensors(name) for name in SNAPSHOT_TENSORS},
        documents={name: saved.document(name) for name in SNAPSHOT_DOCUMENTS},
    )


def _finish(
    config: Config,
    dataset: Artifact,
    prepared: Prepared,
    trainer: Trainer,
    metrics: Metrics,
    start: Start,
    listener: Listener,
    seconds: Mapping[str, float],
) -> None:
    """Write the adapter of the best evaluation, and mark the training as finished."""
    folder = Path(config.run_dir) / TRAINING
    model = trainer.accelerator.unwrap_model(trainer.model)
    evaluations = trainer.course.evaluations
    saved, lost = best_whole(folder / CHECKPOINTS, evaluations, prepared.identity)
    step, loss = saved.step, dict(evaluations)[saved.step]
    for path in lost:
        listener.said(
            f"{path.name} had a lower held-out loss and is not whole: the adapter is that of step {step}."
        )
    # Not by way of the model: only all processes together could set a sharded one.
    best = saved.tensors("adapter_model")
    facts = {
        "train_losses": _series(metrics, "loss"),
        "eval_losses": evaluations,
        "best_step": step,
        "best_eval_loss": loss,
        "steps": evaluations[-1][0],
        "base": config.model.model_name_or_path,
        "base_revision": config.model.revision,
        "base_files": prepared.identity["base"]["files"],
        "steps_planned": prepared.schedule.steps,
        **{name: round(value, 3) for name, value in seconds.items()},
        "choices": [asdict(choice) for choice in prepared.choices.values()],
        "rows_at_once": trainer.course.rows_at_once,
        "eval_rows_at_once": trainer.course.eval_rows_at_once,
        "rows": {"train": len(prepared.rows), "eval": len(prepared.eval_rows)},
        "tokens_seen": trainer.course_tokens,
        "executed_tokens": trainer.course.executed or None,
        "label_tokens": trainer.course.labels or None,
        **metrics.speed,
        "accel": {
            "predicted_gain": float(prepared.choices["predicted_gain"].value),
            "measured_gain": trainer.measured_gain,
            "checked": trainer.course.checked,
        },
        "first_eval_loss": evaluations[0][1],
        "machine": {
            name: prepared.identity[name]
            for name in ("device", "device_name", "threads", "world_size")
        },
        "inexact": [*start.inexact, *(["best"] if lost else [])],
    }
    facts["stopped_early"] = facts["steps"] < facts["steps_planned"]
    if facts["stopped_early"]:
        text = (
            f"Stopped early after step {facts['steps']} of {facts['steps_planned']}: "
            f"{counted(config.train.early_stopping_patience or 0, 'evaluation')} without a better one. The adapter is that of "
            f"step {step}."
        )
        metrics.event("stopped_early", text)
        listener.said(text)
    facts["train_loss"] = facts["train_losses"][-1][1] if facts["train_losses"] else None
    facts["gates"] = _gates(facts)
    metrics.event("finished", f"best held-out loss {loss:.3f} at step {step}")
    with writing(
        Path(config.run_dir) / "adapter",
        "adapter",
        settings=settings_of(config, "adapter"),
        parents={"dataset": dataset},
    ) as draft:
        save_adapter(
            model,
            draft.path,
            base=config.model.model_name_or_path,
            revision=config.model.revision,
            state=best,
        )
        save_tokenizer(prepared.tokenizer, draft.path)
        (draft.path / "metrics.jsonl").write_text(metrics.text, encoding="utf-8")
        _write_summary(draft.path, config, dataset, facts)
        draft.facts |= facts
    write_identity(folder, prepared.identity, finished=True)


def _series(metrics: Metrics, name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in metrics.rows if name in row]


def _gates(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    first = facts["eval_losses"][0][1]
    return [
        {
            "gate": "the held-out loss fell",
            "value": f"{first:.3f} to {facts['best_eval_loss']:.3f} at step {facts['best_step']}",
            "limit": "lower than before training",
            "passed": facts["best_eval_loss"] < first,
        }
    ]


def _write_summary(
    folder: Path, config: Config, dataset: Artifact, facts: Mapping[str, Any]
) -> None:
    shown = (
        "best_step",
        "best_eval_loss",
        "steps",
        "steps_planned",
        "stopped_early",
        "first_eval_loss",
        "train_loss",
        "tokens_seen",
        "executed_tokens",
        "label_tokens",
        "tokens_per_second",
        "executed_tokens_per_second",
        "share_of_limit",
        "accel",
        "rows_at_once",
        "eval_rows_at_once",
        "seconds",
        "checkpoint_seconds",
    )
    summary = {
        "model_name_or_path": config.model.model_name_or_path,
        "revision": config.model.revision,
        "base_files": facts["base_files"],
        "dataset": {
            "digest": dataset.digest,
            "inputs": dataset.facts["inputs"],
            "rows": facts["rows"],
        },
        "hyperparameters": config.train.model_dump(mode="json"),
        "choices": facts["choices"],
        "seed": config.seed,
        "machine": facts["machine"],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "bit_exact": not facts["inexact"],
        "metrics": {name: facts[name] for name in shown},
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    (folder / "training_summary.json").write_text(text + "\n", encoding="utf-8")


@contextmanager
def _diverging(metrics: Metrics) -> Iterator[None]:
    """Write down that the training has diverged: who watches it sees why it is over."""
    try:
        yield
    except TunewrightError as error:
        for problem in error.problems:
            if problem.code == "E_DIVERGED":
                metrics.event("diverged", problem.message)
        raise


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn what ends a training from below into an error that says what to do.

    Raises:
        TunewrightError: E_OOM, E_WORKER_DIED.
    """
    try:
        with _workers_unheard():
            yield
    except (RuntimeError, MemoryError, ConnectionError) as error:
        if is_out_of_memory(error):
            message = f"Memory ran out before a step could be run: {first_line(error)}."
            raise failure("E_OOM", message, where=folder) from error
        if isinstance(error, ConnectionError) or "DataLoader worker" in str(error):
            message = f"A process that makes batches has died: {first_line(error)}."
            raise failure("E_WORKER_DIED", message, where=folder) from error
        raise


@contextmanager
def _workers_unheard() -> Iterator[None]:
    """Keep torch from printing that a dead worker cannot be waited for: it is told as an error."""
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if "DataLoader worker" not in str(found.exc_value):
            before(found)

    sys.unraisablehook = hook
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        # The batches in the making are freed here, while nobody hears of it.
        _hear_no_more_of_children()
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        raise
    finally:
        sys.unraisablehook = before


def _hear_no_more_of_children() -> None:
    """Take away torch's signal handler: told of a death once more, it would raise wherever we are by then.

    A later training in this process notices a dead worker all the same, when it waits for a batch.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
