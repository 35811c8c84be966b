"""How a training begins: anew, or from a checkpoint of one that was interrupted."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from tunewright.artifacts import fsync
from tunewright.errors import CODES, WARNINGS, TunewrightError, failure
from tunewright.events import Listener
from tunewright.train._checkpoints import Saved, found_in, load, newest, quarantine
from tunewright.train.identity import differences, is_same_training, require_same
from tunewright.train.schedule import best_of

TRAINING = "training"
IDENTITY = "identity.json"
CHECKPOINTS = "checkpoints"
PREVIOUS = "training.previous"
LEAVING = "set_aside"
"""Set in the identity of a training whose files are being moved away; all of them, however often that is cut off."""
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
    found = _read(folder)
    if LEAVING in found:
        return None
    if found.keys() >= REMEMBERED:
        return found
    saved, _ = newest(folder / CHECKPOINTS)
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
    made: bool,
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
        made: The adapter that the training would end with is there.
        resume: See `Resume`.
        allow_inexact: The machine may be another than the one it was started on.

    Raises:
        TunewrightError: E_RESUME_MISMATCH, E_RESUME_ENV; E_NO_VALID_CHECKPOINT; E_UNSAFE_FORMAT;
            E_NOT_FOUND, `must` or a path finds nothing.
    """
    named = None if resume in ("auto", "must") else Path(resume)
    finished = bool(before and before.get("finished"))
    unchanged = before is not None and is_same_training(before, identity)
    if finished and unchanged and made:
        return Start("finished")
    # A finished training whose adapter is gone makes it again; with another option it is another training.
    goes_on = before is not None and (not finished or unchanged)
    goes_on = goes_on and bool(found_in(folder / CHECKPOINTS))
    if resume == "must" and not goes_on:
        if before is not None and finished:
            require_same(before, identity, allow_inexact=True, where=folder)
        fix = "Leave --resume out: the training then begins at step 0."
        raise failure("E_NOT_FOUND", "There is nothing to resume.", where=folder, fix=fix)
    saved = _named(named) if named else _newest(folder, listener) if goes_on else None
    if saved is None:
        _tell_of_old(folder, before, identity, listener)
        set_aside(folder)
        write_identity(folder, identity, finished=False)
        return Start("fresh")
    start = _going_on(saved, identity, rows, allow_inexact=allow_inexact, finished=finished)
    _bring_best(folder, saved, listener)
    if named:
        _keep_aside_after(folder, saved)
    if not named or saved.path.parent.resolve() == (folder / CHECKPOINTS).resolve():
        for path in quarantine(folder / CHECKPOINTS):
            listener.said(f"A save that was cut off is kept aside: {path.name}")
    write_identity(folder, identity, finished=False)
    return start


def _tell_of_old(
    folder: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any], listener: Listener
) -> None:
    """Say what becomes of the training that was here, and why another one begins."""
    if not found_in(folder / CHECKPOINTS):
        if before is not None:
            listener.said("The training that was here had no checkpoint yet: it begins again.")
        return
    changed = [f"'{name}'" for name in differences(before, now)] if before else []
    why = f"Another training begins, since {', '.join(changed[:5])} changed. " if changed else ""
    listener.said(f"{why}The old one is kept in {folder.parent / PREVIOUS}.")


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
    finished: bool,
) -> Start:
    """Return a start from a checkpoint of the same training; of a finished one no step is left to be inexact.

    Raises:
        TunewrightError: E_RESUME_MISMATCH, E_RESUME_ENV.
    """
    where = saved.path
    allowed = allow_inexact or finished
    now = require_same(saved.identity, identity, allow_inexact=allowed, where=where)
    course = saved.document("course")
    if rows(saved.step) != course["next_rows"]:
        message = (
            f"The rows of step {saved.step + 1} are not those that were due when it was saved."
        )
        raise failure("E_RESUME_MISMATCH", message, where=where)
    inexact = {*course["inexact"], *(() if finished else now)}
    return Start("resumed", saved, tuple(sorted(inexact)))


def _bring_best(folder: Path, saved: Saved, listener: Listener) -> None:
    """See that the checkpoint is there that the run ends with if no later evaluation is better.

    It may lie beside a checkpoint that was named. One that is missing was given up for a better one that comes
    again; of one that is damaged the user hears now, and not when the training is over.
    """
    evaluations = [(step, loss) for step, loss in saved.document("course")["evaluations"]]
    best = best_of(evaluations)[0] if evaluations[1:] else saved.step
    own, beside = folder / CHECKPOINTS, saved.path.parent
    path = own / f"checkpoint-{best}"
    if best == saved.step or _is_there(path, saved.identity):
        return
    if _is_there(beside / path.name, saved.identity):
        draft = own / f".tmp-{best}-{secrets.token_hex(4)}"
        shutil.copytree(beside / path.name, draft)
        shutil.rmtree(path, ignore_errors=True)
        draft.rename(path)
    elif path.exists():
        listener.said(
            f"W_CKPT_SKIPPED {path}: that of the best evaluation so far is not whole, or of another training. "
            "Unless a later one is better, the training ends with the best of the others."
        )


def _is_there(path: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether a whole checkpoint of this training lies there."""
    try:
        return is_same_training(load(path).identity, identity)
    except TunewrightError:
        return False


def _keep_aside_after(folder: Path, checkpoint: Saved) -> None:
    """Move checkpoints of later steps to `training.previous`: the training goes another way from here."""
    aside = folder.parent / PREVIOUS / CHECKPOINTS
    for other in found_in(folder / CHECKPOINTS):
        step = int(other.name.removeprefix("checkpoint-"))
        if step > checkpoint.step:
            aside.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside / other.name, ignore_errors=True)
            other.rename(aside / other.name)


def set_aside(folder: Path) -> None:
    """Move what an earlier training left to `training.previous`, in place of what was there.

    One that has no checkpoint is removed: it is not worth what is kept there. A move that is cut off is
    finished by the next one.

    Raises:
        TunewrightError: E_IO.
    """
    before, aside = _read(folder), folder.parent / PREVIOUS
    if LEAVING not in before and not found_in(folder / CHECKPOINTS):
        for path in _content(folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    if LEAVING not in before:
        write_identity(folder, before | {LEAVING: True}, finished=False)
        shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(exist_ok=True)
    # The identity goes last: as long as it is here, the rest is known to be leaving.
    for path in sorted(_content(folder), key=lambda path: path.name == IDENTITY):
        if (aside / path.name).is_dir():
            shutil.rmtree(aside / path.name)
        path.rename(aside / path.name)
    fsync(aside)
    fsync(folder)


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in LOCKS]


def _read(folder: Path) -> dict[str, Any]:
    """Return the identity in a folder; nothing where it is missing or damaged."""
    try:
        found = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


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
