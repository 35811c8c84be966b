"""Where things are in a store: names, files of its own, folders of versions.

The layout is specified in docs/concepts/store.md; whoever changes it changes that page.
"""

import json
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tunewright.artifacts import fsync
from tunewright.config.names import check_name
from tunewright.config.schema import Config
from tunewright.errors import CODES, Problem, TunewrightError, failure

FORMAT = 1
"""Number of the layout, in INFO."""
INFO = "STORE.json"
MAP = "AGENT_MODEL_MAP.json"
ALIASES = "ALIASES.json"
BLOBS = "blobs"
DRAFT = ".tmp-"
"""Begins the name of a version in the making; beside it lies its lock."""
DOOMED = ".gone-"
"""Begins the name of a folder that is being removed."""
LATEST, CURRENT = "latest", "current"
"""Aliases that nobody sets: the newest version, and the one that the map names."""
LOCK_TIMEOUT_S = 60.0
_OWN = frozenset(name.lower() for name in (INFO, MAP, ALIASES, BLOBS))


@dataclass(frozen=True, order=True)
class Key:
    """Names of a version, in the order of its folders.

    Attributes:
        agent: Agent it belongs to.
        adapter: Its adapter.
        version: Its name.
    """

    agent: str
    adapter: str
    version: str

    def __str__(self) -> str:
        return f"{self.agent}/{self.adapter}/{self.version}"


def store_root(config: Config | None = None) -> Path:
    """Return the store's folder: the config's, else MODEL_STORE_ROOT, else `store`."""
    named = config.publish.store if config else None
    return Path(named or os.environ.get("MODEL_STORE_ROOT") or "store").expanduser()


def existing(root: Path) -> Path:
    """Return the store's folder, if it is one that can be read.

    Raises:
        TunewrightError: E_NOT_FOUND, there is none: an empty answer would look like a good one.
            E_ARTIFACT_INVALID, it has another format. E_UNSAFE_PATH.
    """
    if read_info(root) is None:
        raise failure(
            "E_NOT_FOUND",
            "There is no store here.",
            where=root,
            fix="Name it with --store or MODEL_STORE_ROOT, or publish first.",
        )
    return root


def read_info(root: Path) -> dict[str, Any] | None:
    """Return what a store says of itself; None: there is none.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, it is damaged or of another format. E_UNSAFE_PATH.
    """
    raw = read_own(root / INFO)
    if raw is None:
        return None
    try:
        info = json.loads(raw)
        number, _ = info["format"], info["files"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        message = f"{INFO} cannot be read."
        raise failure("E_ARTIFACT_INVALID", message, where=root / INFO, fix=_REPAIR) from error
    if number != FORMAT:
        message = f"The store has format {number!r}, and this version of Tunewright knows {FORMAT}."
        fix = "Use the version of Tunewright that made it, or a later one."
        raise failure("E_ARTIFACT_INVALID", message, where=root / INFO, fix=fix)
    return info


_REPAIR = f"Move {INFO} away; `tunewright store init` writes it anew."


def read_own(file: Path) -> bytes | None:
    """Return the bytes of one of the store's own files; None: it is not there.

    Raises:
        TunewrightError: E_UNSAFE_PATH, it is a link.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if file.is_symlink():
            raise TunewrightError([link_problem(file)]) from error
        raise
    with os.fdopen(handle, "rb") as stream:
        return stream.read()


def replace_own(file: Path, content: bytes) -> None:
    """Let one of the store's own files have these bytes, in one rename; call it under `locked`."""
    new = file.with_name(f".{file.name}.new")
    try:
        # What stands there was left by a process that was killed; or is a link that leads out of the store.
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        fsync(new)
        new.replace(file)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    fsync(file.parent)


@contextmanager
def locked(root: Path, fix: str = "Wait for it, then run the command again.") -> Generator[None]:
    """Keep others from writing the map, the aliases, and what a store says of itself.

    Raises:
        TunewrightError: E_RUN_LOCKED, another process is writing for a minute.
    """
    try:
        with FileLock(root / f".{MAP}.lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        message = "Another process is writing in the store."
        raise failure("E_RUN_LOCKED", message, where=root, fix=fix) from error


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are not safe as folders.

    Raises:
        TunewrightError: E_NAME for each.
    """
    problems: list[Problem] = []
    for name in names:
        try:
            if check_name(name).lower() in _OWN:
                raise ValueError("this is a name that the store uses itself")
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


def folder_of(root: Path, key: Key) -> Path:
    """Return the folder of a version, whether it is there or not.

    Raises:
        TunewrightError: E_NAME.
    """
    return version_path(root, key.agent, key.adapter, key.version)


def versions_in(root: Path) -> list[Key]:
    """Return the names of all versions, whole or not; links and hidden folders are none."""
    return sorted(
        Key(agent.name, adapter.name, version.name)
        for agent in _shown(root)
        for adapter in _shown(Path(agent.path))
        for version in _shown(Path(adapter.path))
        if not any(entry.is_symlink() for entry in (agent, adapter, version))
    )


def links_in(root: Path) -> list[Path]:
    """Return every link that stands where an agent, an adapter, a version or a blob should be."""
    found: list[Path] = []
    for agent in (*_shown(root), *_shown(root, only=BLOBS)):
        found += [Path(agent.path)] if agent.is_symlink() else []
        for adapter in [] if agent.is_symlink() else _shown(Path(agent.path)):
            found += [Path(adapter.path)] if adapter.is_symlink() else []
            inside = [] if adapter.is_symlink() else _shown(Path(adapter.path))
            found += [Path(version.path) for version in inside if version.is_symlink()]
    return sorted(found)


def _shown(folder: Path, *, only: str | None = None) -> Iterator[os.DirEntry[str]]:
    """Yield the folders in a folder, and links, that are not hidden and not the store's own."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        wanted = entry.name == only if only else entry.name.lower() not in _OWN
        if wanted and not entry.name.startswith(".") and (entry.is_symlink() or entry.is_dir()):
            yield entry


def link_problem(path: Path) -> Problem:
    """Return the refusal of a link in a store, which may lead anywhere."""
    message = "This is a link, which may lead out of the store."
    return Problem("E_UNSAFE_PATH", message, str(path), "Remove the link, and publish again.")


def require_no_links(root: Path, key: Key) -> None:
    """Refuse a version whose folders are links.

    Raises:
        TunewrightError: E_UNSAFE_PATH.
    """
    folder = folder_of(root, key)
    links = [path for path in (*reversed(folder.parents[:2]), folder) if path.is_symlink()]
    if links:
        raise TunewrightError([link_problem(path) for path in links])
