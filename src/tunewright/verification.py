"""Whether what a run has made is still what it was."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tunewright.artifacts import MAKERS, MANIFEST, Kind, load_artifact
from tunewright.config.schema import Config
from tunewright.counting import counted
from tunewright.errors import CODES, Problem, TunewrightError, failure
from tunewright.events import SILENT, Listener
from tunewright.train import verify_training


@dataclass(frozen=True)
class Verified:
    """One folder of a run.

    Attributes:
        name: Of the artifact or checkpoint.
        files: Files that were hashed.
        problems: What is wrong; none: it is whole.
    """

    name: str
    files: int
    problems: tuple[Problem, ...] = ()


def verify(config: Config, *, listener: Listener = SILENT) -> list[Verified]:
    """Return every artifact and checkpoint of a run, each file hashed.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING, the run has none.
    """
    folder = Path(config.run_dir)
    found: list[Verified] = []
    for one in _verified(folder):
        listener.said(
            f"{one.name}: {counted(one.files, 'file')}{'' if one.problems else ', whole'}"
        )
        found.append(one)
    if not found:
        fix = "tunewright run CONFIG makes one."
        raise failure("E_ARTIFACT_MISSING", "Nothing of a run is here.", where=folder, fix=fix)
    return found


def _verified(folder: Path) -> Iterator[Verified]:
    for kind in get_args(Kind):
        if os.path.lexists(folder / kind):
            yield _artifact(folder / kind, kind)
    for path, files, problem in verify_training(folder):
        yield Verified(path.name, files, (problem,) if problem else ())


def _artifact(path: Path, kind: Kind) -> Verified:
    if path.is_dir() and not os.path.lexists(path / MANIFEST):
        message = f"{MANIFEST} is missing: nothing tells what belongs in the folder."
        fix = f"{MAKERS[kind]} {shlex.quote(str(path.parent))} makes it again"
        return Verified(kind, 0, (Problem("E_ARTIFACT_INVALID", message, str(path), fix),))
    try:
        return Verified(kind, len(load_artifact(path, kind, verify=True).files))
    except TunewrightError as error:
        return Verified(kind, 0, error.problems)
    except OSError as error:
        code, where = "E_IO", str(error.filename or path)
        message = f"{error.strerror or error}."
        return Verified(kind, 0, (Problem(code, message, where, CODES[code].fix),))
