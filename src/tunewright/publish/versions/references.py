"""How a version is named: `AGENT`, `AGENT@VERSION`, `AGENT@ALIAS`, `AGENT@ADAPTER/VERSION`."""

import re
from pathlib import Path
from typing import Any

from tunewright.errors import TunewrightError, failure
from tunewright.publish.versions import checking, layout, pointers
from tunewright.publish.versions.layout import CURRENT, LATEST, Key

_NUMBERS = re.compile(r"\d+")


def find(root: Path, reference: str) -> Key:
    """Return the version that a reference names; without `@` the one that the map names.

    Raises:
        TunewrightError: E_NAME. E_NOT_FOUND, with the names that there are. E_DIGEST_MISMATCH, the map, the
            aliases or a manifest that is needed is damaged. E_UNSAFE_PATH.
    """
    agent, _, name = reference.partition("@")
    layout.check_names([agent])
    if "@" not in reference or name == CURRENT:
        entries = pointers.read_map(root)
        if agent not in entries:
            raise _no_agent(root, agent)
        return pointers.key_of(agent, entries[agent])
    layout.check_names(name.split("/", 1))
    if name == LATEST:
        return _latest(root, agent)
    return _version(root, agent, name) or _aliased(root, agent, name)


def within(root: Path, agent: str, name: str) -> Key:
    """Return a version of an agent by its name, or by an alias.

    Raises:
        TunewrightError: As `find` does.
    """
    return find(root, f"{agent}@{name}")


def order(data: dict[str, Any]) -> tuple[str, list[tuple[int, str]]]:
    """Return what sorts manifests by time; within a millisecond by the numbers in the version's name."""
    numbers = [(int(part), "") for part in _NUMBERS.findall(data["version"])]
    return data["created"], [*numbers, (0, data["version"])]


def _latest(root: Path, agent: str) -> Key:
    """Return the newest version of all the agent's adapters that has a whole manifest."""
    found: list[dict[str, Any]] = []
    for key in _of_agent(root, agent):
        try:
            found.append(checking.read_manifest(root, key))
        except TunewrightError:
            continue
    if not found:
        raise _no_agent(root, agent)
    newest = max(found, key=order)
    return Key(newest["agent"], newest["adapter"], newest["version"])


def _version(root: Path, agent: str, name: str) -> Key | None:
    """Return the only version of this name; of several, the one of the adapter that the map names."""
    adapter, _, version = name.rpartition("/")
    fitting = [
        key
        for key in _of_agent(root, agent)
        if key.version == version and adapter in ("", key.adapter)
    ]
    if len(fitting) > 1:
        entry = pointers.read_map(root).get(agent, {})
        fitting = [key for key in fitting if key.adapter == entry.get("adapter")] or fitting
    if len(fitting) > 1:
        names = ", ".join(f"{key.adapter}/{key.version}" for key in fitting)
        message = f"Several adapters of '{agent}' have a version '{version}'."
        raise failure("E_NOT_FOUND", message, where=root, fix=f"Name one: {names}.")
    return fitting[0] if fitting else None


def _aliased(root: Path, agent: str, name: str) -> Key:
    aliases = pointers.read_aliases(root).get(agent, {})
    if name in aliases:
        return pointers.key_of(agent, aliases[name])
    keys = _of_agent(root, agent)
    if not keys:
        raise _no_agent(root, agent)
    known = ", ".join([*aliases, *(key.version for key in keys[-5:])])
    message = f"The store has no version '{name}' of '{agent}', and no alias of that name."
    raise failure("E_NOT_FOUND", message, where=root, fix=f"There are: {known}.")


def _of_agent(root: Path, agent: str) -> list[Key]:
    return [key for key in layout.versions_in(root) if key.agent == agent]


def _no_agent(root: Path, agent: str) -> TunewrightError:
    known = sorted({key.agent for key in layout.versions_in(root)})
    return failure(
        "E_NOT_FOUND",
        f"The store has no agent '{agent}'.",
        where=root / layout.MAP,
        fix=f"There are: {', '.join(known)}." if known else "Publish a run first.",
    )
