"""Checkpoints: complete or not there, every file hashed, nothing in them that can run code.

A checkpoint is built in `.tmp-<step>-<nonce>`, file by file to disk, its manifest last, and is then renamed
to `checkpoint-<step>`. One that is to go is renamed to `.tmp-old-<step>-<nonce>` before it is removed. So a
process killed anywhere leaves either a whole checkpoint or a name that is none.
"""

import json
import re
import secrets
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EDQUOT, ENOSPC
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open

from tunewright.artifacts import fsync
from tunewright.errors import CODES, Problem, TunewrightError, failure
from tunewright.machine import disk_space, library_versions
from tunewright.models.programs import is_pickled
from tunewright.train._files import (
    FORMAT,
    MANIFEST,
    Damaged,
    check,
    parsed,
    read_manifest,
    sealed,
    serialised,
    write,
)
from tunewright.train.identity import is_same_training

_NAME = re.compile(r"checkpoint-(0|[1-9]\d*)")
_LEFTOVER = re.compile(r"\.tmp-(\d+)-([0-9a-f]{8})")
_REMOVED = re.compile(r"\.tmp-old-\d+-[0-9a-f]{8}")
_TORN = re.compile(r"checkpoint-(\d+)-[0-9a-f]{8}\.torn")


@dataclass(frozen=True)
class Saved:
    """A checkpoint that verifies.

    Attributes:
        path: Its folder.
        step: Optimizer steps done when it was saved.
        identity: What the run was started from.
        files: Name of each file to its SHA-256.
    """

    path: Path
    step: int
    identity: Mapping[str, Any]
    files: Mapping[str, str]

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors of `<name>.safetensors`, on the CPU, in memory of their own.

        Raises:
            TunewrightError: E_NO_VALID_CHECKPOINT, the checkpoint has no such file.
        """
        # A clone, as what is read may be mapped from a file that retention removes.
        with safe_open(self._file(f"{name}.safetensors"), framework="pt") as stream:
            return {key: stream.get_tensor(key).clone() for key in stream.keys()}  # noqa: SIM118

    def document(self, name: str) -> Any:
        """Return the value of `<name>.json`; keys that were numbers are strings.

        Raises:
            TunewrightError: E_NO_VALID_CHECKPOINT, the checkpoint has no such file.
        """
        return parsed(self._file(f"{name}.json").read_bytes())

    def _file(self, name: str) -> Path:
        if name not in self.files:
            raise _refusal([Skipped(self.path, f"{name}: it has no such file")])
        return self.path / name


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that does not verify.

    Attributes:
        path: Its folder.
        reason: File and what is wrong with it.
        unsafe: Whether it holds files that can run code when loaded.
    """

    path: Path
    reason: str
    unsafe: bool = False


def save(
    folder: Path,
    step: int,
    *,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    documents: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> Saved:
    """Return the checkpoint of a step, once all of it is on disk; one of the same step is replaced.

    Args:
        folder: Where the checkpoints of the run lie.
        step: Optimizer steps done.
        tensors: File name without suffix to its tensors, of any device, form and type.
        documents: File name without suffix to a JSON value.
        identity: What the run was started from; a JSON value.

    Raises:
        TunewrightError: E_DISK_SPACE, E_IO. Nothing of the new checkpoint is left then, and the others are
            as they were.
    """
    need_bytes = sum(value.nbytes for group in tensors.values() for value in group.values())
    draft = folder / f".tmp-{step}-{secrets.token_hex(4)}"
    target = folder / f"checkpoint-{step}"
    try:
        with _told(folder, need_bytes):
            _make(folder)
            draft.mkdir()
            entries = _write_all(draft, tensors, documents)
            fields = {
                "format": FORMAT,
                "step": step,
                "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "versions": _versions(),
                "identity": dict(identity),
                "files": entries,
            }
            write(draft / MANIFEST, [sealed(fields)])
            fsync(draft)
            _publish(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    known = cast("dict[str, Any]", json.loads(json.dumps(fields["identity"])))
    return Saved(target, step, known, {name: entry["sha256"] for name, entry in entries.items()})


def scan(folder: Path) -> tuple[list[Saved], list[Skipped]]:
    """Return the checkpoints that verify and those that do not, each with the highest step first."""
    examined = [_examined(path) for path in found_in(folder)]
    return (
        [one for one in examined if isinstance(one, Saved)],
        [one for one in examined if isinstance(one, Skipped)],
    )


def newest(folder: Path) -> tuple[Saved | None, list[Skipped]]:
    """Return the checkpoint of the highest step that verifies, and those above it that do not.

    Raises:
        TunewrightError: E_NO_VALID_CHECKPOINT, there are checkpoints and none verifies: the reason of each.
            E_UNSAFE_FORMAT, one that would come first holds pickles.
    """
    skipped: list[Skipped] = []
    for path in found_in(folder):
        one = _examined(path)
        if isinstance(one, Saved):
            return one, skipped
        if one.unsafe:
            raise _refusal([one])
        skipped.append(one)
    if skipped:
        raise _refusal(skipped)
    return None, []


def load(path: Path) -> Saved:
    """Return exactly this checkpoint.

    Raises:
        TunewrightError: E_NO_VALID_CHECKPOINT, it does not verify. E_UNSAFE_FORMAT, it holds pickles.
    """
    one = _examined(path)
    if isinstance(one, Skipped):
        raise _refusal([one])
    return one


def best_whole(
    folder: Path, evaluations: Sequence[tuple[int, float]], identity: Mapping[str, Any]
) -> tuple[Saved, list[Path]]:
    """Return the checkpoint of the best evaluation that verifies, and those of better ones, which do not.

    Args:
        folder: Where the checkpoints of the run lie; some of another training may lie there too.
        evaluations: Steps and held-out losses.
        identity: What the run was started from.

    Raises:
        TunewrightError: E_NO_VALID_CHECKPOINT, none does: the reason of each. E_UNSAFE_FORMAT.
    """
    skipped: list[Skipped] = []
    for step, _ in sorted((one for one in evaluations if one[0]), key=lambda one: one[1]):
        one = _examined(folder / f"checkpoint-{step}")
        if isinstance(one, Saved):
            if is_same_training(one.identity, identity):
                return one, [other.path for other in skipped]
            one = Skipped(one.path, "it is that of another training")
        skipped.append(one)
    raise _refusal(skipped)


def quarantine(folder: Path) -> list[Path]:
    """Return what was put aside as `*.torn`: saves cut off by a kill, and newer checkpoints that do not verify.

    One torn folder is kept, the one of the highest step; removals that a kill cut off are finished. Where no
    checkpoint verifies, none is put aside, so that the next start does not take it for a fresh run.

    Raises:
        TunewrightError: As `newest`. E_IO.
    """
    _, skipped = newest(folder)
    with _told(folder):
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        for name in filter(_REMOVED.fullmatch, names):
            _remove(folder / name)
        torn = [(int(m[1]), folder / m[0]) for m in map(_LEFTOVER.fullmatch, names) if m]
        torn += [(_step(one.path), one.path) for one in skipped]
        aside = [
            path.rename(folder / f"checkpoint-{step}-{secrets.token_hex(4)}.torn")
            for step, path in sorted(torn, reverse=True)
        ]
        before = sorted(
            ((int(m[1]), folder / m[0]) for m in map(_TORN.fullmatch, names) if m), reverse=True
        )
        for path in [*aside, *(path for _, path in before)][1:]:
            _remove(path)
    return aside[:1]


def retain(folder: Path, *, keep: int, best: int | None) -> None:
    """Remove all but the `keep` checkpoints of the highest steps and that of step `best`.

    Raises:
        TunewrightError: E_IO.
    """
    with _told(folder):
        for path in reversed(found_in(folder)[keep:]):
            if _step(path) != best:
                _remove(_moved_aside(path))


def found_in(folder: Path) -> list[Path]:
    """Return what is named as a checkpoint, the highest step first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in paths if _NAME.fullmatch(p.name)), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))


def _examined(path: Path) -> Saved | Skipped:
    try:
        pickled = sorted(p.name for p in path.iterdir() if is_pickled(p.name))
        if pickled:
            reason = f"{', '.join(pickled)}: pickled, which can run code when loaded"
            return Skipped(path, reason, unsafe=True)
        return _verified(path)
    except Damaged as error:
        return Skipped(path, str(error))
    except OSError as error:
        name = Path(error.filename or path).name
        return Skipped(path, f"{name}: {error.strerror or error}")


def _verified(path: Path) -> Saved:
    if path.is_symlink() or not path.is_dir():
        raise Damaged(f"{path.name}: it is not a folder")
    fields = read_manifest(path)
    named = _NAME.fullmatch(path.name)
    if named and int(named[1]) != fields["step"]:
        raise Damaged(f"{MANIFEST}: it is that of step {fields['step']}")
    files: dict[str, str] = {}
    for name, entry in fields["files"].items():
        check(path, name, entry)
        files[name] = entry["sha256"]
    return Saved(path, fields["step"], fields["identity"], files)


def _refusal(skipped: Iterable[Skipped]) -> TunewrightError:
    return TunewrightError([problem_of(one) for one in skipped])


def problem_of(one: Skipped) -> Problem:
    """Return what is told of a checkpoint that cannot be used."""
    if one.unsafe:
        fix = "Move the folder away: Tunewright's own checkpoints hold safetensors and JSON only."
        return Problem("E_UNSAFE_FORMAT", f"{one.reason}.", str(one.path), fix)
    code = "E_NO_VALID_CHECKPOINT"
    return Problem(
        code, f"The checkpoint is damaged: {one.reason}.", str(one.path), CODES[code].fix
    )


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fsync(folder.parent)


def _write_all(
    draft: Path, tensors: Mapping[str, Mapping[str, torch.Tensor]], documents: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for name, group in tensors.items():
        file = f"{name}.safetensors"
        entries[file] = write(draft / file, serialised(group))
    for name, value in documents.items():
        file = f"{name}.json"
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        entries[file] = write(draft / file, [text.encode()])
    return entries


def _publish(draft: Path, target: Path) -> None:
    old = _moved_aside(target) if target.exists() else None
    try:
        draft.rename(target)
        fsync(target.parent)
    except BaseException:
        # It may not be on disk, so it must not be seen; nor must what it replaces be lost.
        if target.exists():
            target.rename(draft)
        if old is not None:
            old.rename(target)
        raise
    if old is not None:
        _remove(old)


def _moved_aside(path: Path) -> Path:
    return path.rename(path.parent / f".tmp-old-{_step(path)}-{secrets.token_hex(4)}")


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)


@cache
def _versions() -> dict[str, str]:
    return library_versions()


@contextmanager
def _told(folder: Path, need_bytes: int = 0) -> Generator[None]:
    """Turn a refusal of the system into an error that says where."""
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            have_bytes = disk_space(folder).free_bytes
            message = (
                f"A checkpoint needs {need_bytes / 1e6:,.1f} MB and {have_bytes / 1e6:,.1f} MB are "
                "free; the checkpoints before it are whole."
            )
            raise failure("E_DISK_SPACE", message, where=folder) from error
        message = f"{error.strerror or error}."
        raise failure("E_IO", message, where=error.filename or folder) from error
