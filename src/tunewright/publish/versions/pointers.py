"""What moves in a store: the map from each agent to its version, and the aliases."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.config.names import check_name
from tunewright.errors import CODES, Problem, TunewrightError, failure
from tunewright.publish.versions import checking, layout, manifest
from tunewright.publish.versions.layout import ALIASES, CURRENT, LATEST, MAP, Key
from tunewright.publish.versions.manifest import MANIFEST

Entry = Mapping[str, Any]
"""adapter, version, base, base_revision, path in the store, manifest_sha256."""


def read_map(root: Path) -> dict[str, Entry]:
    """Return the map: agent -> entry. None yet: empty.

    Raises:
        TunewrightError: E_DIGEST_MISMATCH, it is damaged. E_UNSAFE_PATH.
    """
    raw = layout.read_own(root / MAP)
    try:
        entries: dict[str, Entry] = json.loads(b"{}" if raw is None else raw)
        for agent, entry in entries.items():
            _check(agent, entry)
    except (*_UNREADABLE, TunewrightError) as error:
        fix = "Move it away and publish again."
        raise _damaged("The map cannot be read.", root / MAP, fix) from error
    return entries


def read_aliases(root: Path) -> dict[str, dict[str, Entry]]:
    """Return agent -> alias -> entry. None yet: empty.

    Raises:
        TunewrightError: E_DIGEST_MISMATCH, they are damaged. E_UNSAFE_PATH.
    """
    raw = layout.read_own(root / ALIASES)
    try:
        found: dict[str, dict[str, Entry]] = json.loads(b"{}" if raw is None else raw)
        for agent, aliases in found.items():
            for alias, entry in aliases.items():
                check_name(alias)
                _check(agent, entry)
    except (*_UNREADABLE, TunewrightError) as error:
        fix = "Move it away, and set the aliases again."
        raise _damaged("The aliases cannot be read.", root / ALIASES, fix) from error
    return found


_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def _check(agent: str, entry: Entry) -> None:
    layout.check_names([agent, entry["adapter"], entry["version"]])
    if entry["path"] != str(key_of(agent, entry)) or not isinstance(entry["manifest_sha256"], str):
        raise ValueError("it names another folder")


def _damaged(message: str, file: Path, fix: str) -> TunewrightError:
    return failure("E_DIGEST_MISMATCH", message, where=file, fix=fix)


def key_of(agent: str, entry: Entry) -> Key:
    """Return the names of the version that an entry of the map or of the aliases is about."""
    return Key(agent, entry["adapter"], entry["version"])


def pointed_at(root: Path) -> dict[Key, list[str]]:
    """Return the aliases of each version that has any, `current` for the map among them.

    Raises:
        TunewrightError: E_DIGEST_MISMATCH, E_UNSAFE_PATH.
    """
    found: dict[Key, list[str]] = {}
    for agent, entry in read_map(root).items():
        found.setdefault(key_of(agent, entry), []).append(CURRENT)
    for agent, aliases in read_aliases(root).items():
        for alias, entry in sorted(aliases.items()):
            found.setdefault(key_of(agent, entry), []).append(alias)
    return found


def point(root: Path, agent: str, adapter: str, version: str) -> None:
    """Let the map name this version as the agent's.

    Raises:
        TunewrightError: E_RUN_LOCKED, another process writes for a minute. E_DIGEST_MISMATCH, the map or
            the version's manifest is damaged.
    """
    key = Key(agent, adapter, version)
    fix = f"Wait, then `tunewright store rollback {agent} {version}`: the version is in the store."
    with layout.locked(root, fix):
        name_current(root, key)


def name_current(root: Path, key: Key) -> Entry:
    """Let the map name a version, and return its entry; call it under `layout.locked`.

    Raises:
        TunewrightError: E_NOT_FOUND. E_DIGEST_MISMATCH, the map or the version's manifest is damaged.
    """
    entry = _entry(root, key)
    layout.replace_own(root / MAP, _bytes(read_map(root) | {key.agent: entry}))
    return entry


def set_alias(root: Path, key: Key, alias: str) -> None:
    """Let an alias of the agent name this version, whatever it named before.

    Raises:
        TunewrightError: E_NAME, it is no name, or the name of a version, or one that is computed.
            E_NOT_FOUND, E_DIGEST_MISMATCH, E_RUN_LOCKED.
    """
    require_alias(alias)
    with layout.locked(root):
        if any(
            other.agent == key.agent and other.version == alias
            for other in layout.versions_in(root)
        ):
            message = f"'{alias}' is the name of a version of '{key.agent}'."
            raise failure("E_NAME", message, where=root, fix="Choose another name for the alias.")
        aliases = read_aliases(root)
        aliases.setdefault(key.agent, {})[alias] = _entry(root, key)
        layout.replace_own(root / ALIASES, _bytes(aliases))


def delete_alias(root: Path, agent: str, alias: str) -> None:
    """Forget an alias; the version that it named stays.

    Raises:
        TunewrightError: E_NAME, E_NOT_FOUND, E_DIGEST_MISMATCH, E_RUN_LOCKED.
    """
    require_alias(alias)
    with layout.locked(root):
        aliases = read_aliases(root)
        if alias not in aliases.get(agent, {}):
            known = ", ".join(sorted(aliases.get(agent, {}))) or "none"
            message = f"'{agent}' has no alias '{alias}'; there are: {known}."
            fix = "Name one of them; tunewright store list shows all."
            raise failure("E_NOT_FOUND", message, where=root / ALIASES, fix=fix)
        del aliases[agent][alias]
        kept = {name: own for name, own in aliases.items() if own}
        layout.replace_own(root / ALIASES, _bytes(kept))


def require_alias(alias: str) -> None:
    """Refuse what cannot be an alias that is set.

    Raises:
        TunewrightError: E_NAME.
    """
    layout.check_names([alias])
    if alias.lower() in (LATEST, CURRENT):
        message = f"'{alias}' is computed, and cannot be set."
        fix = "`tunewright store rollback` moves `current`; choose another name for an alias."
        raise failure("E_NAME", message, where=repr(alias), fix=fix)


def require_version_name(root: Path, agent: str, version: str) -> None:
    """Refuse the name of an alias for a version.

    Raises:
        TunewrightError: E_NAME. E_DIGEST_MISMATCH, the aliases are damaged.
    """
    if version.lower() in (LATEST, CURRENT) or version in read_aliases(root).get(agent, {}):
        message = f"'{version}' is an alias of '{agent}', so no version can have that name."
        raise failure("E_NAME", message, where="publish.version", fix="Name the version otherwise.")


def _entry(root: Path, key: Key) -> Entry:
    raw = manifest.dump(checking.read_manifest(root, key))
    base = manifest.parse(raw)["base"]
    return {
        "adapter": key.adapter,
        "version": key.version,
        "base": base.get("name"),
        "base_revision": base.get("revision"),
        "path": str(key),
        "manifest_sha256": hashlib.sha256(raw).hexdigest(),
    }


def _bytes(entries: Mapping[str, Any]) -> bytes:
    return (json.dumps(entries, indent=1, sort_keys=True) + "\n").encode()


def problems_of(root: Path) -> list[Problem]:
    """Return what is wrong with the map and the aliases: versions that are gone, or other than they were."""
    problems: list[Problem] = []
    try:
        for agent, entry in read_map(root).items():
            problems += entry_problems(root, agent, entry)
    except TunewrightError as error:
        problems += error.problems
    try:
        for agent, aliases in read_aliases(root).items():
            names = {key.version for key in layout.versions_in(root) if key.agent == agent}
            for alias, entry in aliases.items():
                problems += entry_problems(root, agent, entry)
                if alias in names:
                    message = (
                        f"'{alias}' is an alias and a version of '{agent}': the version counts."
                    )
                    problems.append(Problem("E_NAME", message, str(root), CODES["E_NAME"].fix))
    except TunewrightError as error:
        problems += error.problems
    return problems


def entry_problems(root: Path, agent: str, entry: Entry) -> list[Problem]:
    """Return what is wrong with the version that an entry names, but for its files."""
    key = key_of(agent, entry)
    file = layout.folder_of(root, key) / MANIFEST
    try:
        layout.require_no_links(root, key)
        raw = layout.read_own(file)
    except TunewrightError as error:
        return list(error.problems)
    if raw is None:
        return [checking.mismatch(f"{key} is missing, and the store points to it.", file)]
    if hashlib.sha256(raw).hexdigest() != entry["manifest_sha256"]:
        return [checking.mismatch(f"{key} is not the version that the store points to.", file)]
    return []
