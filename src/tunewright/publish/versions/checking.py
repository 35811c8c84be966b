"""Whether a version is what was published: every file opened without following a link, and hashed."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import CODES, Problem, TunewrightError, failure
from tunewright.publish.versions import blobs, layout, manifest
from tunewright.publish.versions.layout import Key
from tunewright.publish.versions.manifest import MANIFEST

Seen = tuple[int, int, int, int]
"""Device, inode, size and time of the last change: what another file in the same place differs in."""


def read_manifest(root: Path, key: Key) -> dict[str, Any]:
    """Return a version's manifest.

    Raises:
        TunewrightError: E_NAME. E_NOT_FOUND, the version is not there. E_DIGEST_MISMATCH, the manifest is
            damaged, or of another version. E_UNSAFE_PATH.
    """
    layout.require_no_links(root, key)
    file = layout.folder_of(root, key) / MANIFEST
    raw = layout.read_own(file)
    if raw is None:
        if file.parent.is_dir():
            raise TunewrightError([mismatch(f"{key} has no manifest.", file)])
        raise failure("E_NOT_FOUND", f"The store has no version {key}.", where=root)
    try:
        data = manifest.parse(raw)
    except ValueError as error:
        message = f"The manifest of {key} cannot be used: {error}."
        raise TunewrightError([mismatch(message, file)]) from error
    if Key(data["agent"], data["adapter"], data["version"]) != key:
        raise TunewrightError([mismatch(f"The manifest in {key} is of another version.", file)])
    return data


def version_problems(folder: Path, names: tuple[str, str, str]) -> list[Problem]:
    """Return what differs between a version's folder and its manifest."""
    root = folder.parents[2]
    key = Key(*names)
    try:
        data = read_manifest(root, key)
    except TunewrightError as error:
        return list(error.problems)
    return _file_problems(folder, key, data["files"])


def _file_problems(
    folder: Path, key: Key, expected: Mapping[str, Mapping[str, Any]]
) -> list[Problem]:
    there, problems = _listed(folder)
    seen: dict[str, Seen | None] = {}
    for name, entry in expected.items():
        if name not in there:
            if not any(problem.where == str(folder / name) for problem in problems):
                problems.append(mismatch(f"{key}: {name} is missing.", folder / name))
            continue
        digest, seen[name] = _hashed(folder / name)
        if digest != entry["sha256"]:
            problems.append(mismatch(f"{key}: {name} has changed.", folder / name))
    for name in sorted(there - expected.keys() - {MANIFEST}):
        problems.append(mismatch(f"{key}: the manifest does not name {name}.", folder / name))
    # Whoever puts another file in place of one that was hashed before, or a link, is seen here.
    for name, before in seen.items():
        if before is not None and _look(folder / name) != before:
            problems.append(mismatch(f"{key}: {name} was changed meanwhile.", folder / name))
    return problems or _listed(folder)[1]


def _listed(folder: Path) -> tuple[set[str], list[Problem]]:
    """Return the names of all plain files, and a problem for everything that is neither file nor folder."""
    names: set[str] = set()
    problems: list[Problem] = []
    todo = [folder]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    todo.append(path)
                elif entry.is_file(follow_symlinks=False):
                    names.add(path.relative_to(folder).as_posix())
                else:
                    problems.append(layout.link_problem(path))
    return names, problems


def _hashed(path: Path) -> tuple[str | None, Seen | None]:
    """Return the SHA-256 of a file, and which file it was; None: it is gone or was swapped for a link."""
    try:
        with blobs.opened(path) as handle:
            digest = blobs.digest_of(blobs.chunks_of(handle))
            return digest, _identity(os.fstat(handle))
    except (OSError, TunewrightError):
        return None, None


def _look(path: Path) -> Seen | None:
    try:
        return _identity(path.lstat())
    except OSError:
        return None


def _identity(found: os.stat_result) -> Seen:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def copy_version(
    root: Path, key: Key, target: Path, moved: Callable[[int], object] = bool
) -> dict[str, Any]:
    """Copy a version into an empty folder, each file hashed as it is copied; return its manifest.

    Raises:
        TunewrightError: E_NOT_FOUND. E_DIGEST_MISMATCH with every file that is not what was published.
            E_UNSAFE_PATH.
    """
    data = read_manifest(root, key)
    folder = layout.folder_of(root, key)
    problems: list[Problem] = []
    done = 0
    for name, entry in data["files"].items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            blobs.copy(folder / name, copy, entry["sha256"])
        except FileNotFoundError:
            problems.append(mismatch(f"{key}: {name} is missing.", folder / name))
        except TunewrightError as error:
            if error.problems[0].code != "E_ARTIFACT_INVALID":
                raise
            problems.append(mismatch(f"{key}: {name} has changed.", folder / name))
        done += entry["bytes"]
        moved(done)
    if problems:
        raise TunewrightError(problems)
    (target / MANIFEST).write_bytes(manifest.dump(data))
    return data


def mismatch(message: str, where: Path) -> Problem:
    """Return a problem of something that is not as it was published."""
    return Problem("E_DIGEST_MISMATCH", message, str(where), CODES["E_DIGEST_MISMATCH"].fix)
