"""Reading the model store from Python: which version an agent has, where it is, and what it says of itself.

    from tunewright import store

    folder = store.resolve("synthesizer")            # verified; folder / "adapter" is what PEFT loads
    folder = store.resolve("synthesizer@stable")     # an alias, or a version
    base = store.manifest("synthesizer")["base"]

The store is `store=`, else MODEL_STORE_ROOT, else the folder `store`. Nothing heavy is imported, and nothing
is written. What each file of a store means is specified in docs/concepts/store.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.publish.versions import checking, layout, pointers, references
from tunewright.publish.versions.store import resolve as resolve_in


def resolve(name: str, *, store: str | Path | None = None, verify: bool = True) -> Path:
    """Return the folder of a version, every file of it hashed.

    Args:
        name: `AGENT`: the version that the map names; `AGENT@VERSION`, `AGENT@ALIAS`, `AGENT@latest`.
        store: Folder of the store.
        verify: False: do not hash the files, of which there may be gigabytes; the manifest is read all the
            same, and what is returned is as good as the disk.

    Raises:
        TunewrightError: E_NOT_FOUND, there is no such store, agent or version. E_DIGEST_MISMATCH, with every
            file that is missing, changed or added. E_UNSAFE_PATH, something in the version is a link. E_NAME.
            E_ARTIFACT_INVALID, the store has another format.
    """
    return resolve_in(_root(store), name, verify=verify)


def manifest(name: str, *, store: str | Path | None = None) -> dict[str, Any]:
    """Return the manifest of a version: base, dataset, config, metrics, verdict, gates, files.

    Raises:
        TunewrightError: As `resolve` does.
    """
    root = _root(store)
    return checking.read_manifest(root, references.find(root, name))


def agents(*, store: str | Path | None = None) -> dict[str, Mapping[str, Any]]:
    """Return the map: agent -> adapter, version, base, base_revision, path in the store, manifest_sha256.

    Raises:
        TunewrightError: E_NOT_FOUND, there is no store. E_DIGEST_MISMATCH, the map is damaged.
    """
    return pointers.read_map(_root(store))


def _root(store: str | Path | None) -> Path:
    return layout.existing(layout.store_root() if store is None else Path(store).expanduser())
