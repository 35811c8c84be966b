"""How a training begins: anew, or from a checkpoint of one that was interrupted."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunewright.artifacts import fsync
from tunewright.errors import CODES, WARNINGS, failure
from tunewright.events import Listener
from tunewright.train._checkpoints import Saved, load, newest, quarantine
from tunewright.train.identity import is_same_training, require_same

TRAINING = "training"
IDENTITY = "identity.json"
CHECKPOINTS = "checkpoints"
PREVIOUS = "training.previous"
LOCKS = (".lock", "lock.json")
REMEMBERED = frozenset(
    {
        "train",
        "choices",
        "passes",
        "asked",
        "reasons",
        "dtype",
        "device",
        "world_size",
        "rows_a_step",
    }
)
"""What of an identity decides the choices of a training that goes on."""
Resume = str
"""`auto`: where there is something to resume. `must`: or an error. Otherwise the path of a checkpoint."""


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Attributes:
        kind: `fresh`, `resumed`, or `finished`: there is nothing left to do.
        checkpoint: What it goes on from; None: step 0.
        inexact: Fields of the machine that were not the same from its first step to the last.
    """

    kind: Literal["fresh", "resumed", "finished"]
    checkpoint: Saved | None = None
    inexact: tuple[str, ...] = ()


def started_from(folder: Path) -> dict[str, Any] | None:
    """Return what the training in a folder was started from, and whether it is `finished`; None: none was.

    Where the file cannot be read, the newest checkpoint has its own copy.
    """
    try:
        found = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict) and found.keys() >= REMEMBERED:
        return found
    saved = newest(folder / CHECKPOINTS)[0] if _checkpoints(folder) else None
    return dict(saved.identity) if saved else None


def remembered(folder: Path, *, resume: Resume, restart: bool) -> dict[str, Any] | None:
    """Return what the training that is to go on was started from; None: a new one begins.

    Raises:
        TunewrightError: E_NO_VALID_CHECKPOINT, E_UNSAFE_FORMAT; E_NOT_FOUND, `resume` names no folder.
    """
    if resume not in ("auto", "must"):
        return dict(_named(Path(resume)).identity)
    return None if restart else started_from(folder)


def begin(
    folder: Path,
    before: Mapping[str, Any] | None,
    identity: Mapping[str, Any],
    listener: Listener,
    *,
    rows: Callable[[int], list[int]],
    resume: Resume,
    allow_inexact: bool,
) -> Start:
    """Decide, and make the folder ready. Nothing is written before everything that refuses has passed.

    Args:
        folder: `training/` of the run folder.
        before: What `remembered` gave.
        identity: What the training would be started from now.
        listener: Told of checkpoints that are skipped or kept aside.
        rows: Gives the row numbers of the step after so many.
        resume: See `Resume`.
        allow_inexact: The machine may be another than the one it was started on.

    Raises:
        TunewrightError: E_RESUME_MISMATCH, E_RESUME_ENV; E_NO_VALID_CHECKPOINT; E_UNSAFE_FORMAT;
            E_NOT_FOUND, `must` or a path finds nothing.
    """
    named = None if resume in ("auto", "must") else Path(resume)
    finished = bool(before and before.get("finished"))
    unchanged = before is not None and is_same_training(before, identity)
    if finished and unchanged and (folder.parent / "adapter").is_dir():
        return Start("finished")
    # Of a finished training something may have been removed; with another option it is another training.
    goes_on = before is not None and (not finished or unchanged) and bool(_checkpoints(folder))
    if resume == "must" and not goes_on:
        fix = "Leave --resume out: the training then begins at step 0."
        raise failure("E_NOT_FOUND", "There is nothing to resume.", where=folder, fix=fix)
    saved = _named(named) if named else _newest(folder, listener) if goes_on else None
    if saved is None:
        set_aside(folder)
        write_identity(folder, identity, finished=False)
        return Start("fresh")
    start = _going_on(saved, identity, rows, allow_inexact=allow_inexact)
    if named:
        _keep_aside_after(folder, saved)
    else:
        for path in quarantine(folder / CHECKPOINTS):
            listener.said(f"A save that was cut off is kept aside: {path.name}")
    write_identity(folder, identity, finished=False)
    return start


def _named(path: Path) -> Saved:
    """Return exactly this checkpoint.

    Raises:
        TunewrightError: E_NOT_FOUND, E_NO_VALID_CHECKPOINT, E_UNSAFE_FORMAT.
    """
    if not path.is_dir():
        raise failure("E_NOT_FOUND", "There is no such checkpoint.", where=path)
    return load(path)


def _newest(folder: Path, listener: Listener) -> Saved | None:
    """Return the newest checkpoint that verifies; newer ones that do not are named.

    Raises:
        TunewrightError: E_NO_VALID_CHECKPOINT, E_UNSAFE_FORMAT.
    """
    saved, skipped = newest(folder / CHECKPOINTS)
    for one in skipped:
        listener.said(f"W_CKPT_SKIPPED {one.path}: {one.reason}. {WARNINGS['W_CKPT_SKIPPED'].fix}")
    return saved


def _going_on(
    saved: Saved,
    identity: Mapping[str, Any],
    rows: Callable[[int], list[int]],
    *,
    allow_inexact: bool,
) -> Start:
    """Return a start from a checkpoint of the same training.

    Raises:
        TunewrightError: E_RESUME_MISMATCH, E_RESUME_ENV.
    """
    where = saved.path
    now = require_same(saved.identity, identity, allow_inexact=allow_inexact, where=where)
    course = saved.document("course")
    if rows(saved.step) != course["next_rows"]:
        message = (
            f"The rows of step {saved.step + 1} are not those that were due when it was saved."
        )
        raise failure("E_RESUME_MISMATCH", message, where=where)
    return Start("resumed", saved, tuple(sorted({*course["inexact"], *now})))


def _checkpoints(folder: Path) -> list[Path]:
    found = (folder / CHECKPOINTS).glob("checkpoint-*")
    return [path for path in found if path.name.removeprefix("checkpoint-").isdigit()]


def _keep_aside_after(folder: Path, checkpoint: Saved) -> None:
    """Move checkpoints of later steps to `training.previous`: the training goes another way from here."""
    aside = folder.parent / PREVIOUS / CHECKPOINTS
    for other in _checkpoints(folder):
        step = int(other.name.removeprefix("checkpoint-"))
        if step > checkpoint.step:
            aside.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside / other.name, ignore_errors=True)
            other.rename(aside / other.name)


def set_aside(folder: Path) -> None:
    """Move what an earlier training left to `training.previous`, in place of what was there."""
    old = [path for path in folder.iterdir() if path.name not in LOCKS]
    if not any(path.name == IDENTITY or path.name == CHECKPOINTS for path in old):
        return
    aside = folder.parent / PREVIOUS
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    # The identity goes first: what is left if this is cut off is no training that could be resumed.
    for path in sorted(old, key=lambda path: path.name != IDENTITY):
        path.rename(aside / path.name)
    fsync(aside)
    fsync(folder)


def write_identity(folder: Path, identity: Mapping[str, Any], *, finished: bool) -> None:
    """Write what a training was started from, and whether it has come to its end.

    Raises:
        TunewrightError: E_IO.
    """
    fields = {**identity, "finished": True} if finished else dict(identity)
    draft = folder / f".tmp-{IDENTITY}-{secrets.token_hex(4)}"
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(folder / IDENTITY)
        fsync(folder)
    except OSError as error:
        draft.unlink(missing_ok=True)
        fix = CODES["E_IO"].fix
        raise failure(
            "E_IO", f"{error.strerror}.", where=error.filename or folder, fix=fix
        ) from error
