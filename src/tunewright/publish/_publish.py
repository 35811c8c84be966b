"""Writing a version.

The version is built under a hidden name beside the agents' folders, every file flushed to disk and
hashed as it lies there, then renamed to its name. That rename is the claim: on one file system it is
atomic, and it fails if the name is taken, because a folder cannot be renamed onto one that is not
empty and a version never is. So a name has one winner, and a reader sees a whole version or none.
A killed publisher leaves a hidden folder; its lock died with it, so the next publisher removes it.
"""

import errno
import secrets
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from tunewright.artifacts import Artifact, fsync, load_artifact, sha256, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config
from tunewright.errors import TunewrightError, failure
from tunewright.events import Listener
from tunewright.machine import require_space
from tunewright.publish import manifest, store
from tunewright.publish.manifest import StoredFile
from tunewright.publish.private import refuse_secrets

_FOLDERS = {"adapter": "adapter", "exported": "gguf"}
_RESERVE_BYTES = 10_000_000
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


def publish_run(
    config: Config,
    adapter: Artifact,
    evaluation: Artifact,
    exported: Artifact,
    *,
    force: bool,
    listener: Listener,
) -> Artifact:
    """Body of `publish`, which says what it does."""
    artifacts = {"adapter": adapter, "evaluation": evaluation, "exported": exported}
    root = store.store_root(config)
    names = (config.publish.agent, config.publish.adapter or config.name)
    store.check_names(names)
    refused = manifest.refusals(artifacts)
    if refused and not force:
        raise TunewrightError(refused)
    path = Path(config.run_dir) / "published"
    settings = settings_of(config, "published")
    with writing(path, "published", settings=settings, parents=artifacts) as draft:
        if (taken := config.publish.version) and (root / names[0] / names[1] / taken).exists():
            raise _taken(root, taken)
        files = _files(artifacts)
        refuse_secrets({name: file.source for name, file in files.items()})
        size_bytes = sum(file.size_bytes for file in files.values())
        require_space(root, size_bytes + _RESERVE_BYTES)
        content = {
            "format": manifest.FORMAT,
            "agent": names[0],
            "adapter": names[1],
            "forced": bool(refused),
        } | manifest.describe(config, artifacts, files)
        with _aside(root) as folder:
            listener.started("publish", size_bytes, "bytes")
            _copy(files, folder, listener)
            version = _claim(root, folder, content, config.publish.version)
        store.point(root, *names, version)
        final = store.version_path(root, *names, version)
        draft.facts |= {
            "agent": names[0],
            "adapter": names[1],
            "version": version,
            "files": len(files),
            "bytes": size_bytes,
            "manifest_sha256": sha256(final / manifest.MANIFEST),
            "forced": bool(refused),
            "gates": _gates(artifacts, len(files), len(refused)),
        }
    listener.said(f"Published {'/'.join(names)}/{version}.")
    return load_artifact(path, "published")


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
        loaded = load_artifact(artifact.path, artifact.kind, verify=True)
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


@contextmanager
def _aside(root: Path) -> Generator[Path]:
    """Give a hidden folder in the store that is gone when the block ends, unless it was renamed."""
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    folder = root / f".tmp-{secrets.token_hex(8)}"
    lock = folder.with_suffix(".lock")
    try:
        with FileLock(lock):
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _sweep(root: Path) -> None:
    """Remove what killed publishers left: hidden folders whose lock nobody holds."""
    for lock in root.glob(".tmp-*.lock"):
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        except Timeout:
            continue


def _copy(files: Mapping[str, StoredFile], folder: Path, listener: Listener) -> None:
    """Copy, flush, and hash what was written."""
    done = 0
    for name, file in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.source, target)
        fsync(target)
        if sha256(target) != file.sha256:
            raise failure("E_ARTIFACT_INVALID", "The file changed meanwhile.", where=file.source)
        done += file.size_bytes
        listener.advanced(done, name)
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync(path)


def _claim(root: Path, folder: Path, content: Mapping[str, Any], named: str | None) -> str:
    """Rename the folder to its version and return the version's name."""
    home = root / content["agent"] / content["adapter"]
    created = datetime.now(UTC)
    first = named or f"{created:v%Y%m%d-%H%M}"
    version, count = first, 1
    while True:
        while named is None and (home / version).exists():
            count += 1
            version = f"{first}.{count}"
        stamp = {"version": version, "created": created.isoformat(timespec="milliseconds")}
        file = folder / manifest.MANIFEST
        file.write_bytes(manifest.dump({**content, **stamp}))
        fsync(file)
        fsync(folder)
        home.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(home / version)
        except OSError as error:
            if error.errno not in _TAKEN:
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
