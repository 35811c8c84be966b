"""A dataset to an adapter."""

from collections.abc import Sequence
from pathlib import Path

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


def verify_training(run: Path) -> Sequence[tuple[Path, int, Problem | None]]:
    """Return each checkpoint of a run with its number of files, and what is wrong with it."""
    from tunewright.train._checkpoints import scan
    from tunewright.train._start import CHECKPOINTS, TRAINING

    whole, damaged = scan(run / TRAINING / CHECKPOINTS)
    fix = "Training goes on from an older one by itself; nothing to do where it is finished."
    problems = (
        Problem(
            "E_NO_VALID_CHECKPOINT", f"The checkpoint is damaged: {one.reason}.", str(one.path), fix
        )
        for one in damaged
    )
    found: list[tuple[Path, int, Problem | None]] = [
        (one.path, len(one.files), None) for one in whole
    ]
    return found + [(one.path, 0, problem) for one, problem in zip(damaged, problems, strict=True)]
