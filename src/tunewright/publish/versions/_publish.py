"""Writing a version.

The version is built under a hidden name in the store, every file flushed to disk and hashed on its way,
then renamed to its name. That rename is the claim: on one file system it is atomic, and it fails if the
name is taken, because a folder cannot be renamed onto one that is not empty and a version never is. So a
name has one winner, and a reader sees a whole version or none. A killed publisher leaves a hidden folder;
its lock died with it, so the next publisher removes it.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from errno import ENOTDIR
from pathlib import Path, PurePosixPath
from typing import Any

from tunewright.artifacts import Artifact, Kind, fsync, load_artifact, sha256, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.machine import require_space
from tunewright.publish import Forced, card_of
from tunewright.publish.private import found_in, refuse_secrets, refuse_secrets_in
from tunewright.publish.versions import blobs, drafts, founding, layout, manifest, pointers
from tunewright.publish.versions.blobs import StoredFile
from tunewright.publish.versions.layout import BLOBS, Key

_FOLDERS = {"adapter": "adapter", "exported": "gguf"}
CARD = "README.md"
_RESERVE_BYTES = 10_000_000
_STEP_BYTES = 64 << 20
"""How often a listener is told of a large file."""
_WAIT = "Wait for it, then publish again."


def publish_run(
    config: Config,
    adapter: Artifact,
    evaluation: Artifact,
    exported: Artifact,
    *,
    force: bool,
    reason: str | None,
    listener: Listener,
) -> Artifact:
    """Body of `publish`, which says what it does."""
    artifacts = {"adapter": adapter, "evaluation": evaluation, "exported": exported}
    root = layout.store_root(config)
    agent, name = config.publish.agent, config.publish.adapter or config.name
    layout.check_names((agent, name, *([v] if (v := config.publish.version) else [])))
    _require_text(reason)
    if found_in(reason or ""):
        message = "The reason holds what looks like a password, key or token."
        raise failure("E_SECRET_IN_ARTIFACT", message, where="reason", fix="Say it without.")
    refused = manifest.refusals(artifacts)
    if refused and not force:
        raise TunewrightError(refused)
    path = Path(config.run_dir) / "published"
    settings = settings_of(config, "published")
    with writing(path, "published", settings=settings, parents=artifacts) as draft:
        files = _files(artifacts)
        forced = _forced(refused, reason)
        card = draft.path / CARD
        card.write_text(card_of(artifacts | _beside(artifacts), config, forced), encoding="utf-8")
        files[CARD] = StoredFile(card, sha256(card), card.stat().st_size)
        sources = {name: file.source for name, file in files.items()}
        refuse_secrets(sources, made_in=draft.path)
        size_bytes = sum(file.size_bytes for file in files.values())
        require_space(root, size_bytes + _RESERVE_BYTES)
        info = layout.read_info(root) or founding.init(root)
        content = {
            "format": manifest.FORMAT,
            "agent": agent,
            "adapter": name,
            "forced": asdict(forced) if forced else None,
        } | manifest.describe(config, artifacts, files)
        refuse_secrets_in(content, manifest.MANIFEST)
        entry = _finished(root, content, config.publish.version, path)
        if entry is None:
            _require_free(root, agent, name, config.publish.version)
            with drafts.aside(root) as folder:
                # The store may have been copied since it was made.
                founding.probe(folder)
                listener.started("publish", size_bytes, "bytes")
                _copy(files, folder, root if info["files"] == "hardlink" else None, listener)
                # Who cleans up takes the lock too, and so sees no version that nothing points to yet.
                with layout.locked(root, _WAIT):
                    version = _claim(root, folder, content, config.publish.version)
                    entry = pointers.name_current(root, Key(agent, name, version))
        version = entry["version"]
        draft.facts |= {
            "agent": agent,
            "adapter": name,
            "version": version,
            "files": len(files),
            "bytes": size_bytes,
            "manifest_sha256": entry["manifest_sha256"],
            "forced": bool(refused),
            "gates": _gates(artifacts, len(files), len(refused)),
        }
    listener.said(f"Published {agent}/{name}/{version}.")
    return load_artifact(path, "published")


def _forced(refused: list[Problem], reason: str | None) -> Forced | None:
    """Return what is said of a version that is published all the same."""
    if not refused:
        return None
    return Forced([problem.message for problem in refused], reason)


def _require_text(reason: str | None) -> None:
    """Refuse a reason that no file can hold.

    Raises:
        TunewrightError: E_USAGE.
    """
    try:
        (reason or "").encode()
    except UnicodeEncodeError as error:
        message = "The reason is not UTF-8 text."
        raise failure("E_USAGE", message, where="--reason", fix="Type it in UTF-8.") from error


def _beside(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Return what lies beside the adapter, and is what the artifacts were made of or with: the card tells of it."""
    adapter, exported = artifacts["adapter"], artifacts["exported"]
    of_whom: dict[Kind, Artifact] = {"dataset": adapter, "merged": exported}
    found: dict[str, Artifact] = {}
    for kind in ("dataset", "check", "merged"):
        try:
            one = load_artifact(adapter.path.parent / kind, kind)
        except TunewrightError:
            continue
        dataset = found.get("dataset")
        if kind == "check":
            same = dataset is not None and one.parents.get("dataset") == dataset.digest
        else:
            same = one.digest == of_whom[kind].parents.get(kind)
        if same:
            found[kind] = one
    return found


def _finished(
    root: Path, content: Mapping[str, Any], named: str | None, receipt: Path
) -> pointers.Entry | None:
    """Point to the named version if a publisher died after it had put it in place; None: there is none.

    Raises:
        TunewrightError: E_UNSAFE_PATH, a folder or file of the store is a link. E_RUN_LOCKED.
    """
    if named is None:
        return None
    key = Key(content["agent"], content["adapter"], named)
    with layout.locked(root, _WAIT):
        is_unfinished = _is_unfinished(root, content, key, receipt)
        return pointers.name_current(root, key) if is_unfinished else None


def _is_unfinished(root: Path, content: Mapping[str, Any], key: Key, receipt: Path) -> bool:
    """Return whether a version is in the store with this content, but nobody was told.

    Raises:
        TunewrightError: E_UNSAFE_PATH, a folder or file of the store is a link.
    """
    layout.require_no_links(root, key)
    try:
        there = manifest.parse((layout.folder_of(root, key) / manifest.MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    now = json.loads(json.dumps(content))
    same = all(there[one] == now[one] for one in ("files", "parents", "forced"))
    try:
        told = load_artifact(receipt, "published").facts["version"] == key.version
    except TunewrightError:
        told = False
    return same and not told


def _require_free(root: Path, agent: str, adapter: str, version: str | None) -> None:
    """Refuse, before anything is copied, a name that is taken, and a store that the version cannot go into.

    Raises:
        TunewrightError: E_VERSION_EXISTS, E_NAME. E_UNSAFE_PATH, a folder or file of the store is a link.
            E_DIGEST_MISMATCH, the map is damaged.
    """
    layout.require_no_links(root, Key(agent, adapter, version or "unnamed"))
    if (root / BLOBS).is_symlink():
        raise TunewrightError([layout.link_problem(root / BLOBS)])
    pointers.pointed_at(root)
    if version is None:
        return
    if (root / agent / adapter / version).exists():
        raise _taken(root, version)
    pointers.require_version_name(root, agent, version)


def _files(artifacts: Mapping[str, Artifact]) -> dict[str, StoredFile]:
    """Return the files to store by their name in the version, after hashing every artifact."""
    evaluated = artifacts["evaluation"].parents.get("adapter")
    if evaluated not in (None, artifacts["adapter"].digest):
        raise failure(
            "E_ARTIFACT_INVALID",
            "The evaluation is of another adapter.",
            where=artifacts["evaluation"].path,
            fix="Compare again.",
        )
    files: dict[str, StoredFile] = {}
    for name, artifact in artifacts.items():
        # What is copied is hashed on its way.
        loaded = load_artifact(artifact.path, artifact.kind, verify=name not in _FOLDERS)
        if loaded.digest != artifact.digest:
            raise failure(
                "E_ARTIFACT_INVALID", "It was made anew in the meantime.", where=artifact.path
            )
        for file, digest in artifact.files.items() if name in _FOLDERS else ():
            relative = PurePosixPath(file)
            if relative.is_absolute() or ".." in relative.parts or "\\" in file:
                raise failure("E_ARTIFACT_INVALID", "A file is outside its folder.", where=file)
            source = artifact.path / relative
            stored = f"{_FOLDERS[name]}/{relative}"
            files[stored] = StoredFile(source, digest, source.stat().st_size)
    return files


def _copy(
    files: Mapping[str, StoredFile], folder: Path, root: Path | None, listener: Listener
) -> None:
    """Put every file into the draft; `root` is the store where files are shared.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, with every file of the run that has changed.
    """
    done, problems = 0, list[Problem]()
    for name, file in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        blob = blobs.blob_path(root, file.sha256) if root else None
        try:
            blobs.put(file, target, blob, _steps(done, name, listener))
        except TunewrightError as error:
            problems += error.problems
        done += file.size_bytes
        listener.advanced(done, name)
    if problems:
        raise TunewrightError(problems)
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync(path)


def _steps(before: int, name: str, listener: Listener) -> Callable[[int], None]:
    """Return what tells a listener how far a large file is."""
    told = 0

    def moved(done: int) -> None:
        nonlocal told
        if done - told >= _STEP_BYTES:
            told = done
            listener.advanced(before + done, name)

    return moved


def _claim(root: Path, folder: Path, content: Mapping[str, Any], named: str | None) -> str:
    """Rename the folder to its version and return the version's name."""
    home = root / content["agent"] / content["adapter"]
    created = datetime.now(UTC)
    while True:
        version = named or _free_name(home, f"{created:v%Y%m%d-%H%M}")
        stamp = {"version": version, "created": created.isoformat(timespec="milliseconds")}
        file = folder / manifest.MANIFEST
        file.write_bytes(manifest.dump({**content, **stamp}))
        fsync(file)
        fsync(folder)
        home.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(home / version)
        except OSError as error:
            if error.errno not in (*founding.TAKEN, ENOTDIR):
                raise
            if named is not None:
                raise _taken(root, named) from error
            continue
        try:
            for parent in (home, home.parent, root):
                fsync(parent)
        except OSError:
            # Not known to be on disk, so not published: out of sight, and then gone with the hidden folder.
            with suppress(OSError):
                (home / version).rename(folder)
            raise
        return version


def _free_name(home: Path, first: str) -> str:
    """Return a name, with a number after all that are there: the name of one that was removed is not given again."""
    names = [path.name for path in home.iterdir()] if home.is_dir() else []
    pattern = re.compile(rf"{re.escape(first)}(?:\.(\d{{1,9}}))?")
    numbers = [int(found[1] or 1) for name in names if (found := pattern.fullmatch(name))]
    return f"{first}.{max(numbers) + 1}" if numbers else first


def _taken(root: Path, version: str) -> TunewrightError:
    return failure("E_VERSION_EXISTS", f"Version '{version}' is in the store.", where=root)


def _gates(artifacts: Mapping[str, Artifact], files: int, refused: int) -> list[dict[str, Any]]:
    verdict = artifacts["evaluation"].facts.get("verdict")
    gates = [gate for a in artifacts.values() for gate in a.facts.get("gates", [])]
    passed = sum(bool(gate["passed"]) for gate in gates)
    return [
        {
            "gate": "files in the store equal the run's (SHA-256)",
            "value": f"{files} of {files}",
            "limit": "all",
            "passed": True,
        },
        {
            "gate": "verdict and gates of the published artifacts",
            "value": f"{verdict}, {passed} of {len(gates)} gates passed",
            "limit": "not overfitted, memorised or degraded, all passed",
            "passed": refused == 0,
        },
    ]
