"""How a training begins: anew, or from a checkpoint of one that was interrupted."""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunewright.artifacts import fsync
from tunewright.errors import CODES, WARNINGS, failure
from tunewright.events import Listener
from tunewright.train._checkpoints import Saved, load, newest, quarantine
from tunewright.train.identity import differences, require_same

TRAINING = "training"
IDENTITY = "identity.json"
CHECKPOINTS = "checkpoints"
PREVIOUS = "training.previous"
LOCKS = (".lock", "lock.json")
Resume = str
"""`auto`: where there is something to resume. `must`: or an error. Otherwise the path of a checkpoint."""


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Attributes:
        kind: `fresh`, `resumed`, or `finished`: there is nothing left to do.
        checkpoint: What it goes on from; None: step 0.
        inexact: Fields of the machine that differ from those it was started on.
    """

    kind: Literal["fresh", "resumed", "finished"]
    checkpoint: Saved | None = None
    inexact: tuple[str, ...] = ()


def started_from(folder: Path) -> dict[str, Any] | None:
    """Return what the training in a folder was started from, and whether it is `finished`; None: none was.

    A file that cannot be read counts as none: the checkpoints have their own copy.
    """
    try:
        found = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def begin(
    folder: Path,
    identity: Mapping[str, Any],
    listener: Listener,
    *,
    resume: Resume,
    restart: bool,
    allow_inexact: bool,
    writes: bool = True,
) -> Start:
    """Decide, and make the folder ready. Nothing is written before everything that refuses has passed.

    Args:
        folder: `training/` of the run folder.
        identity: What the training would be started from now.
        listener: Told of checkpoints that are skipped or kept aside.
        resume: See `Resume`.
        restart: Begin at step 0 whatever is there.
        allow_inexact: The machine may be another than the one it was started on.
        writes: False on every process but the first, which decides the same and changes nothing.

    Raises:
        TunewrightError: E_RESUME_MISMATCH, E_RESUME_ENV; E_NO_VALID_CHECKPOINT; E_UNSAFE_FORMAT;
            E_NOT_FOUND, `must` or a path finds nothing.
    """
    if resume not in ("auto", "must"):
        start = _from_path(folder, Path(resume), identity, allow_inexact=allow_inexact)
        if writes:
            _keep_aside_after(folder, start)
            write_identity(folder, identity, finished=False)
        return start
    before = None if restart else started_from(folder) or _told_by_checkpoints(folder)
    finished = bool(before and before.pop("finished", False))
    if finished and before is not None and not differences(before, identity):
        return Start("finished")
    if before is not None and not finished and _checkpoints(folder):
        inexact = require_same(before, identity, allow_inexact=allow_inexact, where=folder)
        return _newest(folder, before, listener, tuple(inexact), writes=writes)
    if resume == "must":
        fix = "Leave --resume out: the training then begins at step 0."
        raise failure("E_NOT_FOUND", "There is nothing to resume.", where=folder, fix=fix)
    if writes:
        set_aside(folder)
        write_identity(folder, identity, finished=False)
    return Start("fresh")


def _newest(
    folder: Path,
    before: Mapping[str, Any],
    listener: Listener,
    inexact: tuple[str, ...],
    *,
    writes: bool,
) -> Start:
    """Return a start from the newest checkpoint that verifies; the others are named and kept aside.

    Raises:
        TunewrightError: E_NO_VALID_CHECKPOINT, E_UNSAFE_FORMAT; E_RESUME_MISMATCH, it is that of another run.
    """
    saved, skipped = newest(folder / CHECKPOINTS)
    for one in skipped:
        listener.said(f"W_CKPT_SKIPPED {one.path}: {one.reason}. {WARNINGS['W_CKPT_SKIPPED'].fix}")
    for path in quarantine(folder / CHECKPOINTS) if writes else ():
        listener.said(f"A save that was cut off is kept aside: {path.name}")
    if saved is not None:
        require_same(saved.identity, before, allow_inexact=True, where=saved.path)
    return Start("resumed", saved, inexact)


def _checkpoints(folder: Path) -> list[Path]:
    found = (folder / CHECKPOINTS).glob("checkpoint-*")
    return [path for path in found if path.name.removeprefix("checkpoint-").isdigit()]


def _told_by_checkpoints(folder: Path) -> dict[str, Any] | None:
    """Return what the newest checkpoint says the training was started from: identity.json is damaged."""
    saved = newest(folder / CHECKPOINTS)[0] if _checkpoints(folder) else None
    return dict(saved.identity) if saved else None


def _from_path(
    folder: Path, path: Path, identity: Mapping[str, Any], *, allow_inexact: bool
) -> Start:
    """Return a start from exactly this checkpoint.

    Raises:
        TunewrightError: As `begin`.
    """
    if not path.is_dir():
        raise failure("E_NOT_FOUND", "There is no such checkpoint.", where=path)
    saved = load(path)
    inexact = require_same(saved.identity, identity, allow_inexact=allow_inexact, where=path)
    return Start("resumed", saved, tuple(inexact))


def _keep_aside_after(folder: Path, start: Start) -> None:
    """Move checkpoints of later steps to `training.previous`: the training goes another way from here."""
    aside = folder.parent / PREVIOUS / CHECKPOINTS
    for other in _checkpoints(folder):
        step = int(other.name.removeprefix("checkpoint-"))
        if start.checkpoint and step > start.checkpoint.step:
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
