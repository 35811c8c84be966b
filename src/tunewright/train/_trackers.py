"""TensorBoard, Trackio and W&B: opened for one training, and closed however it ends."""

import io
import os
import secrets
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
)

from tunewright.config.schema import TrainSection
from tunewright.errors import TunewrightError, failure, first_line
from tunewright.events import Listener
from tunewright.train.trackers import OFFLINE, missing_trackers, wandb_mode

WANDB_ID = "wandb-run-id"


def tracking(options: TrainSection, name: str) -> dict[str, Any]:
    """Return the arguments of SFTConfig that trackers read; the callbacks come from `trackers`."""
    return {
        "report_to": "none",
        "run_name": options.run_name or name,
        "project": options.project,
        "trackio_space_id": None,
    }


@contextmanager
def trackers(
    options: TrainSection,
    folder: Path,
    name: str,
    listener: Listener,
    *,
    step: int = 0,
    writes: bool = True,
) -> Generator[list[TrainerCallback]]:
    """Give the callbacks of `train.report_to`; after the block all they opened is closed.

    Their files are below `folder`. Nothing is sent anywhere but by W&B with a key, or where the environment
    names a Space for Trackio.

    Args:
        options: What is asked for.
        folder: `training/` of the run folder.
        name: Name of the run, where the options have none.
        listener: Told where the metrics go.
        step: Step after which training goes on; what was reported of later ones no longer counts.
        writes: False on every process but the first, which reports nothing.

    Raises:
        TunewrightError: E_CONFIG_VALUE, a tracker is not installed. E_HUB, W&B refuses.
    """
    problems = missing_trackers(options)
    if problems:
        raise TunewrightError(problems)
    makers: dict[str, Callable[..., Any]] = {
        "tensorboard": _tensorboard,
        "trackio": _trackio,
        "wandb": _wandb,
    }
    with ExitStack() as stack:
        yield [
            stack.enter_context(makers[kind](options, folder, name, listener, step))
            for kind in options.report_to
            if writes
        ]


@contextmanager
def _tensorboard(
    options: TrainSection, folder: Path, name: str, listener: Listener, step: int
) -> Generator[TrainerCallback]:
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (needs the extra)

    del options, name
    place = folder / "tensorboard"
    # What an interrupted training reported after its last checkpoint is drawn no more.
    writer = SummaryWriter(log_dir=str(place), purge_step=step + 1 if step else None)
    listener.said(f"TensorBoard: tensorboard --logdir {place}")
    callback = _TensorBoard(writer, listener)
    try:
        yield callback
    finally:
        callback.close()


class _TensorBoard(TensorBoardCallback):
    """Trainer's own, which a full disk does not stop."""

    def __init__(self, writer: Any, listener: Listener) -> None:
        super().__init__(writer)
        self._writer = writer
        self._listener = listener
        self._open = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Report a row."""
        if not self._open:
            return
        try:
            super().on_log(args, state, control, logs=logs, **kwargs)
        except OSError as error:
            self._refused(error)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what is left."""
        self.close()

    def close(self) -> None:
        """Close the event file; a second time does nothing."""
        if not self._open:
            return
        self._open = False
        try:
            self._writer.close()
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        self._open = False
        reason = error.strerror or error
        self._listener.said(f"TensorBoard's file cannot be written ({reason}): training goes on.")


@contextmanager
def _trackio(
    options: TrainSection, folder: Path, name: str, listener: Listener, step: int
) -> Generator[TrainerCallback]:
    del name, step
    # Trackio reads it when it is imported, once in a process.
    os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
    callback = _Trackio()
    from trackio import context_vars, finish  # noqa: PLC0415  (needs the extra)
    from trackio.utils import TRACKIO_DIR  # noqa: PLC0415

    listener.said(f"Trackio: TRACKIO_DIR={TRACKIO_DIR} trackio show --project {options.project}")
    try:
        yield callback
    finally:
        if context_vars.current_run.get() is not None:
            with redirect_stdout(io.StringIO()):
                finish()


class _Trackio(TrackioCallback):
    """Trainer's own, without what Trackio prints on stdout, which is for results."""

    def setup(self, args: Any, state: Any, model: Any, **kwargs: Any) -> None:
        """Open the run."""
        with redirect_stdout(io.StringIO()):
            super().setup(args, state, model, **kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Close the run."""
        with redirect_stdout(io.StringIO()):
            super().on_train_end(*args, **kwargs)


@contextmanager
def _wandb(
    options: TrainSection, folder: Path, name: str, listener: Listener, step: int
) -> Generator[TrainerCallback]:
    import wandb  # noqa: PLC0415  (needs the extra)

    mode = wandb_mode(os.environ, wandb.Settings().base_url)
    if mode in OFFLINE and mode != "disabled":
        listener.said(f"W&B is offline; send it later: wandb sync {folder / 'wandb'}/offline-run-*")
    try:
        run = wandb.init(
            project=options.project,
            name=options.run_name or name,
            dir=folder,
            id=_wandb_id(folder / WANDB_ID, step),
            resume=None if mode in OFFLINE else "allow",
            mode=mode,  # pyright: ignore[reportArgumentType]
            settings=wandb.Settings(
                silent=True, console="off", disable_code=True, disable_git=True
            ),
        )
    except wandb.Error as error:
        fix = "Check WANDB_API_KEY and the network; or WANDB_MODE=offline."
        message = f"W&B: {first_line(error)}."
        raise failure("E_HUB", message, where="train.report_to", fix=fix) from error
    code = 1
    try:
        yield WandbCallback()
        code = 0
    finally:
        run.finish(exit_code=code)


def _wandb_id(file: Path, step: int) -> str:
    """Return the id of the run: one that goes on keeps that of its beginning."""
    if not step or not file.is_file():
        file.write_text(secrets.token_hex(8), encoding="ascii")
    return file.read_text(encoding="ascii")
