"""The local store: folders `<agent>/<adapter>/<version>/` and a map from each agent to its version.

A version is immutable and appears in one rename, so readers take no lock. The map is replaced in one
rename too; a lock keeps two writers from losing each other's entry.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tunewright.artifacts import fsync, verify_files
from tunewright.config.names import check_name
from tunewright.config.schema import Config
from tunewright.errors import CODES, Problem, TunewrightError, failure
from tunewright.publish import manifest

MAP = "AGENT_MODEL_MAP.json"
LOCK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Version:
    """A line of the store's list.

    Attributes:
        agent: Agent it belongs to.
        adapter: Its adapter.
        version: Its name.
        created: ISO time, UTC; empty if the manifest is damaged.
        base: Name of the base model; empty if the manifest is damaged.
        verdict: Of its comparison, or `damaged`.
        size_bytes: Sum of its files.
        current: Whether the map points to it.
    """

    agent: str
    adapter: str
    version: str
    created: str
    base: str
    verdict: str
    size_bytes: int
    current: bool


def store_root(config: Config | None = None) -> Path:
    """Return the store's folder: the config's, else MODEL_STORE_ROOT, else `store`."""
    named = config.publish.store if config else None
    return Path(named or os.environ.get("MODEL_STORE_ROOT") or "store").expanduser()


def existing(root: Path) -> Path:
    """Return the store's folder.

    Raises:
        TunewrightError: E_NOT_FOUND, there is none: an empty answer would look like a good one.
    """
    if not root.is_dir():
        raise failure(
            "E_NOT_FOUND",
            "There is no store here.",
            where=root,
            fix="Name it with --store, or publish first.",
        )
    return root


def list_versions(root: Path) -> list[Version]:
    """Return all versions, by agent, adapter and time; files are not read.

    Raises:
        TunewrightError: E_DIGEST_MISMATCH, the map is damaged.
    """
    current = {
        (agent, entry["adapter"], entry["version"]) for agent, entry in read_map(root).items()
    }
    found = [_summary(names, folder, current=names in current) for names, folder in _folders(root)]
    return sorted(found, key=lambda v: (v.agent, v.adapter, v.created, v.version))


def show(root: Path, agent: str, adapter: str, version: str) -> dict[str, Any]:
    """Return the manifest of a version.

    Raises:
        TunewrightError: E_NAME. E_NOT_FOUND, with the versions there are. E_DIGEST_MISMATCH, the
            manifest is damaged.
    """
    folder = version_path(root, agent, adapter, version)
    if not (folder / manifest.MANIFEST).is_file():
        known = ", ".join(
            v.version for v in list_versions(root) if (v.agent, v.adapter) == (agent, adapter)
        )
        raise failure(
            "E_NOT_FOUND",
            f"The store has no version '{version}' of '{agent}/{adapter}'.",
            where=root,
            fix=f"There are: {known}." if known else "See `tunewright store list`.",
        )
    try:
        return manifest.parse((folder / manifest.MANIFEST).read_bytes())
    except ValueError as error:
        raise TunewrightError([_mismatch("The manifest has changed.", folder)]) from error


def resolve(root: Path, agent: str) -> Path:
    """Return the folder of an agent's current version after hashing every file.

    Raises:
        TunewrightError: E_NAME. E_NOT_FOUND, the map has no such agent. E_DIGEST_MISMATCH, with every
            file that is missing, changed or added.
    """
    check_names([agent])
    entry = _entry(root, agent)
    problems = _map_problems(root, agent, entry)
    folder = version_path(root, agent, entry["adapter"], entry["version"])
    if problems := problems or version_problems(folder, (agent, entry["adapter"], folder.name)):
        raise TunewrightError(problems)
    return folder


def verify(root: Path) -> list[Problem]:
    """Return a problem for everything in the store that is not as it was published."""
    problems = [p for names, folder in _folders(root) for p in version_problems(folder, names)]
    try:
        entries = read_map(root)
    except TunewrightError as error:
        return problems + list(error.problems)
    return problems + [p for agent, e in entries.items() for p in _map_problems(root, agent, e)]


def rollback(root: Path, agent: str, version: str) -> Path:
    """Point the map to another version of the agent's adapter, and return its folder.

    Raises:
        TunewrightError: E_NAME, E_NOT_FOUND. E_DIGEST_MISMATCH, the version is damaged: the map stays.
            E_RUN_LOCKED, the map is being written for a minute.
    """
    check_names([agent, version])
    adapter = _entry(root, agent)["adapter"]
    show(root, agent, adapter, version)
    folder = version_path(root, agent, adapter, version)
    if problems := version_problems(folder, (agent, adapter, version)):
        raise TunewrightError(problems)
    point(root, agent, adapter, version)
    return folder


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are not safe as folders.

    Raises:
        TunewrightError: E_NAME for each.
    """
    problems: list[Problem] = []
    for name in names:
        try:
            if check_name(name).lower() == MAP.lower():
                raise ValueError("this is the name of the store's map")
        except ValueError as error:
            problems.append(
                Problem("E_NAME", f"Not a name: {error}.", repr(name), CODES["E_NAME"].fix)
            )
    if problems:
        raise TunewrightError(problems)


def version_path(root: Path, agent: str, adapter: str, version: str) -> Path:
    """Return the folder of a version, whether it is there or not.

    Raises:
        TunewrightError: E_NAME.
    """
    check_names([agent, adapter, version])
    return root / agent / adapter / version


def version_problems(folder: Path, names: tuple[str, str, str]) -> list[Problem]:
    """Return what differs between a version's folder and its manifest."""
    try:
        data = manifest.parse((folder / manifest.MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        return [_mismatch(f"The manifest cannot be used: {error}.", folder / manifest.MANIFEST)]
    if (data["agent"], data["adapter"], data["version"]) != names:
        return [_mismatch("The manifest is of another version.", folder / manifest.MANIFEST)]
    expected: Mapping[str, Any] = data["files"]
    problems = verify_files(
        folder, {name: entry["sha256"] for name, entry in expected.items()}, "E_DIGEST_MISMATCH"
    )
    extra = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_symlink()
        or (path.is_file() and path.relative_to(folder).as_posix() not in _listed(expected))
    ]
    problems += [_mismatch("The manifest does not name this.", path) for path in extra]
    return [replace(p, fix=CODES[p.code].fix) for p in problems]


def read_map(root: Path) -> dict[str, Any]:
    """Return the map: agent -> adapter, version, base, path, manifest_sha256. None yet: empty.

    Raises:
        TunewrightError: E_DIGEST_MISMATCH, it is damaged.
    """
    try:
        entries: dict[str, Any] = json.loads((root / MAP).read_bytes())
        for agent, entry in entries.items():
            check_names([agent, entry["adapter"], entry["version"]])
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError, TunewrightError) as error:
        raise failure(
            "E_DIGEST_MISMATCH",
            "The map cannot be read.",
            where=root / MAP,
            fix="Move it away and publish again.",
        ) from error
    return entries


def point(root: Path, agent: str, adapter: str, version: str) -> None:
    """Let the map name this version as the agent's.

    Raises:
        TunewrightError: E_RUN_LOCKED, another process writes the map for a minute.
    """
    folder = version_path(root, agent, adapter, version)
    raw = (folder / manifest.MANIFEST).read_bytes()
    entry = {
        "adapter": adapter,
        "version": version,
        "base": manifest.parse(raw)["base"]["name"],
        "path": folder.relative_to(root).as_posix(),
        "manifest_sha256": hashlib.sha256(raw).hexdigest(),
    }
    new = root / f".{MAP}.new"
    try:
        with FileLock(root / f".{MAP}.lock", timeout=LOCK_TIMEOUT_S):
            entries = read_map(root) | {agent: entry}
            new.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            fsync(new)
            new.replace(root / MAP)
            fsync(root)
    except Timeout as error:
        raise failure(
            "E_RUN_LOCKED",
            f"The map is being written; version '{version}' is in the store.",
            where=root / MAP,
            fix=f"Wait, then `tunewright store rollback {agent} {version}`.",
        ) from error


def _folders(root: Path) -> list[tuple[tuple[str, str, str], Path]]:
    """Names and folder of every version; hidden folders are versions in the making."""
    return [
        ((folder.parts[-3], folder.parts[-2], folder.parts[-1]), folder)
        for folder in sorted(root.glob("[!.]*/[!.]*/[!.]*"))
        if folder.is_dir()
    ]


def _summary(names: tuple[str, str, str], folder: Path, *, current: bool) -> Version:
    try:
        data = manifest.parse((folder / manifest.MANIFEST).read_bytes())
    except (OSError, ValueError):
        return Version(*names, "", "", "damaged", 0, current)
    size_bytes = sum(entry["bytes"] for entry in data["files"].values())
    return Version(
        *names, data["created"], data["base"]["name"], data["verdict"] or "", size_bytes, current
    )


def _entry(root: Path, agent: str) -> Mapping[str, Any]:
    entries = read_map(root)
    if agent not in entries:
        raise failure(
            "E_NOT_FOUND",
            f"The store has no agent '{agent}'.",
            where=root / MAP,
            fix=f"There are: {', '.join(sorted(entries))}." if entries else "Publish a run first.",
        )
    return entries[agent]


def _map_problems(root: Path, agent: str, entry: Mapping[str, Any]) -> list[Problem]:
    file = version_path(root, agent, entry["adapter"], entry["version"]) / manifest.MANIFEST
    if not file.is_file():
        return [_mismatch(f"The map names a version of '{agent}' that is missing.", file)]
    if hashlib.sha256(file.read_bytes()).hexdigest() != entry.get("manifest_sha256"):
        return [_mismatch(f"This is not the manifest that the map has for '{agent}'.", file)]
    return []


def _listed(expected: Mapping[str, Any]) -> set[str]:
    return {manifest.MANIFEST, *expected}


def _mismatch(message: str, where: Path) -> Problem:
    return Problem("E_DIGEST_MISMATCH", message, str(where), CODES["E_DIGEST_MISMATCH"].fix)
