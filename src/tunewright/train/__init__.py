"""A dataset to an adapter."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.errors import Problem
from tunewright.events import SILENT, Listener


def plan(
    config: Config, dataset: Artifact, *, load_model: bool = False, listener: Listener = SILENT
) -> Artifact:
    """Return what can be known before training: sizes, steps, memory, disk, time, and why.

    Args:
        config: The run.
        dataset: What `prepare` made.
        load_model: Load the weights and run one step on the longest rows, to measure memory and time.
        listener: Told what was found.

    Raises:
        TunewrightError: Everything that makes the run impossible, at once: E_MODEL, E_HUB, E_DISK_SPACE, E_OOM,
            E_NOT_FOUND, E_CONFIG_VALUE (sequence longer than the model's context, no module of that name, a
            package that is not installed, settings that do not go together).
    """
    from tunewright.train._plan import plan as body

    return body(config, dataset, listener, load_model=load_model)


def train(
    config: Config,
    dataset: Artifact,
    *,
    resume: str = "auto",
    restart: bool = False,
    allow_inexact: bool = False,
    listener: Listener = SILENT,
) -> Artifact:
    """Return the adapter of the best evaluation, with its metrics log and summary.

    A training that was interrupted goes on from its newest whole checkpoint and ends with the same bytes as one
    that was not.

    Args:
        config: The run.
        dataset: What `prepare` made.
        resume: `auto` goes on where there is something to go on from; `must` refuses to begin anew; otherwise the
            path of the checkpoint to go on from.
        restart: Begin at step 0; what was there is kept in `training.previous`.
        allow_inexact: Go on though device, threads, processes or library versions are others than at the start.
        listener: Told how far it is.

    Raises:
        TunewrightError: E_DIVERGED, loss or gradient is no longer a number: step and rows. E_OOM, one row alone
            does not fit. E_RESUME_MISMATCH, E_RESUME_ENV, E_NO_VALID_CHECKPOINT: what was interrupted cannot go
            on, and why. E_RUN_LOCKED, another process trains here. E_DISK_SPACE, E_IO, E_WORKER_DIED.
    """
    from tunewright.train._train import train as body

    return body(
        config, dataset, listener, resume=resume, restart=restart, allow_inexact=allow_inexact
    )


def is_finished(run: Path) -> bool:
    """Return whether the training of a run has come to its end; False: it goes on, or there is none."""
    from tunewright.train._start import TRAINING, started_from

    return bool((started_from(run / TRAINING) or {}).get("finished"))


def whole_checkpoints(run: Path) -> list[tuple[int, Path, float | None]]:
    """Return step, folder and held-out loss of each checkpoint of a run that verifies, in the order of steps."""
    from tunewright.train._checkpoints import scan
    from tunewright.train._start import CHECKPOINTS, TRAINING

    whole, _ = scan(run / TRAINING / CHECKPOINTS)
    found: list[tuple[int, Path, float | None]] = []
    for one in reversed(whole):
        losses = dict(one.document("course")["evaluations"])
        found.append((one.step, one.path, losses.get(one.step)))
    return found


def write_checkpoint(config: Config, adapter: Path, checkpoint: Path, folder: Path) -> None:
    """Write a checkpoint of a finished training as an adapter that PEFT reads.

    Args:
        config: The run.
        adapter: Folder of the adapter that the training ended with: the settings are the same.
        checkpoint: Its folder.
        folder: Where to; it is there.

    Raises:
        TunewrightError: E_NO_VALID_CHECKPOINT, the checkpoint is damaged.
    """
    from tunewright.train._checkpoints import load
    from tunewright.train._plain import write_plain

    lora = config.train.lora
    write_plain(load(checkpoint).tensors("adapter_model"), adapter, folder, lora)


def verify_training(run: Path) -> Sequence[tuple[Path, int, Problem | None]]:
    """Return each checkpoint of a run with its number of files, and what is wrong with it.

    `identity.json` is among them where it is not what it was.
    """
    from tunewright.train._checkpoints import problem_of, scan
    from tunewright.train._start import CHECKPOINTS, IDENTITY, TRAINING

    folder = run / TRAINING
    whole, damaged = scan(folder / CHECKPOINTS)
    found: list[tuple[Path, int, Problem | None]] = [
        (one.path, len(one.files), None) for one in whole
    ]
    for one in damaged:
        problem = problem_of(one)
        if whole and not one.unsafe:
            fix = "Training goes on from another where it can; nothing to do where it is finished."
            problem = replace(problem, fix=fix)
        found.append((one.path, 0, problem))
    file, fix = folder / IDENTITY, "tunewright train CONFIG --restart begins again at step 0."
    if whole:
        fix = "Remove it: tunewright train writes it again, from what the newest checkpoint remembers."
    fault = _fault_of_identity(file, whole[0].identity if whole else None)
    if fault and (found or os.path.lexists(file)):
        found.append((file, 0, Problem("E_ARTIFACT_INVALID", fault, str(file), fix)))
    return found


def _fault_of_identity(file: Path, remembered: Mapping[str, Any] | None) -> str | None:
    """Return why a training is not known by this file; `remembered` is what its newest checkpoint says."""
    from tunewright.train._start import LEAVING, REMEMBERED
    from tunewright.train.identity import is_same_training

    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        return f"What the training was started from cannot be read: {error.strerror or error}."
    except (ValueError, RecursionError):
        return "What the training was started from cannot be read: the file is damaged."
    if isinstance(found, dict) and LEAVING in found:
        return None
    if not isinstance(found, dict) or not found.keys() >= REMEMBERED:
        return "What the training was started from is not all in the file."
    known = cast("dict[str, Any]", found)
    if remembered is not None and not is_same_training(remembered, known):
        return (
            "The file says otherwise than the newest checkpoint what the training was started from."
        )
    return None
