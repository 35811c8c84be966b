"""The local store: folders `<agent>/<adapter>/<version>/`, a map from each agent to its version, and aliases.

A version is immutable and appears in one rename, so readers take no lock. The map and the aliases are replaced
in one rename each; a lock keeps two writers from losing each other's entry.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import Problem, TunewrightError
from tunewright.publish.versions import checking, layout, pointers, references
from tunewright.publish.versions.layout import CURRENT, LATEST, Key


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
        aliases: Others that point to it; `latest` is the agent's newest.
        forced: Why it was published in spite of a refusal; empty where no reason was given; None: it was not.
    """

    agent: str
    adapter: str
    version: str
    created: str
    base: str
    verdict: str
    size_bytes: int
    current: bool
    aliases: tuple[str, ...] = ()
    forced: str | None = None


def list_versions(root: Path) -> list[Version]:
    """Return all versions, by agent, adapter and time; files are not read.

    Raises:
        TunewrightError: E_DIGEST_MISMATCH, the map or the aliases are damaged. E_UNSAFE_PATH.
    """
    pointed = pointers.pointed_at(root)
    known: dict[Key, dict[str, Any] | None] = {}
    for key in layout.versions_in(root):
        try:
            known[key] = checking.read_manifest(root, key)
        except TunewrightError:
            known[key] = None
    newest: dict[str, Key] = {}
    for key in sorted((k for k, data in known.items() if data), key=lambda k: _order(known[k])):
        newest[key.agent] = key
    for key in newest.values():
        pointed.setdefault(key, []).append(LATEST)
    found = [_summary(key, data, pointed.get(key, [])) for key, data in known.items()]
    return sorted(found, key=lambda v: (v.agent, v.adapter, v.created, _order(vars(v))))


def _order(data: dict[str, Any] | None) -> Any:
    return references.order(data or {"created": "", "version": ""})


def _summary(key: Key, data: dict[str, Any] | None, aliases: list[str]) -> Version:
    names = (key.agent, key.adapter, key.version)
    others = tuple(alias for alias in aliases if alias != CURRENT)
    if data is None:
        return Version(*names, "", "", "damaged", 0, CURRENT in aliases, others)
    forced = data["forced"]
    return Version(
        *names,
        data["created"],
        str(data["base"].get("name") or ""),
        data["verdict"] or "",
        sum(entry["bytes"] for entry in data["files"].values()),
        CURRENT in aliases,
        others,
        None if forced is None else str(forced.get("reason") or ""),
    )


def show(root: Path, agent: str, adapter: str, version: str) -> dict[str, Any]:
    """Return the manifest of a version.

    Raises:
        TunewrightError: E_NAME. E_NOT_FOUND. E_DIGEST_MISMATCH, the manifest is damaged. E_UNSAFE_PATH.
    """
    return checking.read_manifest(root, Key(agent, adapter, version))


def describe(root: Path, reference: str) -> dict[str, Any]:
    """Return a version's manifest, and in `store` its place, size, aliases and whether the map names it.

    Raises:
        TunewrightError: As `references.find` and `show` do.
    """
    key = references.find(root, reference)
    data = checking.read_manifest(root, key)
    aliases = pointers.pointed_at(root).get(key, [])
    if references.find(root, f"{key.agent}@{LATEST}") == key:
        aliases = [*aliases, LATEST]
    return data | {
        "store": {
            "path": str(layout.folder_of(root, key)),
            "bytes": sum(entry["bytes"] for entry in data["files"].values()),
            "current": CURRENT in aliases,
            "aliases": [alias for alias in aliases if alias != CURRENT],
        }
    }


def resolve(root: Path, reference: str, *, verify: bool = True) -> Path:
    """Return the folder of a version after hashing every file.

    Args:
        root: The store.
        reference: `AGENT`: its current version; `AGENT@VERSION`, `AGENT@ALIAS`.
        verify: False: only the manifest is looked at.

    Raises:
        TunewrightError: E_NAME. E_NOT_FOUND, there is no such agent or version. E_DIGEST_MISMATCH, with
            every file that is missing, changed or added. E_UNSAFE_PATH, something in it is a link.
    """
    key = references.find(root, reference)
    folder = layout.folder_of(root, key)
    problems = _pointer_problems(root, reference, key)
    if not problems and verify:
        problems = checking.version_problems(folder, (key.agent, key.adapter, key.version))
    if problems:
        raise TunewrightError(problems)
    if not verify:
        checking.read_manifest(root, key)
    return folder


def _pointer_problems(root: Path, reference: str, key: Key) -> list[Problem]:
    """Return what is wrong with the manifest that the map or an alias promises."""
    agent, _, name = reference.partition("@")
    entries = {CURRENT: pointers.read_map(root).get(agent)} | pointers.read_aliases(root).get(
        agent, {}
    )
    entry = entries.get(name or CURRENT)
    if entry is None or pointers.key_of(agent, entry) != key:
        return []
    return pointers.entry_problems(root, agent, entry)


def verify(root: Path) -> list[Problem]:
    """Return a problem for everything in the store that is not as it was published."""
    problems = [layout.link_problem(path) for path in layout.links_in(root)]
    for key in layout.versions_in(root):
        try:
            folder = layout.folder_of(root, key)
        except TunewrightError as error:
            problems += error.problems
            continue
        problems += checking.version_problems(folder, (key.agent, key.adapter, key.version))
    return problems + pointers.problems_of(root)


def rollback(root: Path, agent: str, name: str) -> Path:
    """Point the map to another version of the agent, named by itself or by an alias; return its folder.

    Raises:
        TunewrightError: E_NAME, E_NOT_FOUND. E_DIGEST_MISMATCH, the version is damaged: the map stays.
            E_UNSAFE_PATH. E_RUN_LOCKED, the map is being written for a minute.
    """
    folder = resolve(root, f"{agent}@{name}")
    key = references.within(root, agent, name)
    pointers.point(root, key.agent, key.adapter, key.version)
    return folder


def alias(root: Path, agent: str, name: str, version: str) -> Key:
    """Let an alias name a version, which is itself named by its name or an alias, after hashing it.

    Raises:
        TunewrightError: E_NAME, it cannot be an alias. E_NOT_FOUND. E_DIGEST_MISMATCH, the version is damaged:
            the alias stays. E_UNSAFE_PATH. E_RUN_LOCKED.
    """
    pointers.require_alias(name)
    folder = resolve(root, f"{agent}@{version}")
    key = Key(agent, folder.parent.name, folder.name)
    pointers.set_alias(root, key, name)
    return key
