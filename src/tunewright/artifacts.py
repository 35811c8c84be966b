"""What crosses the border between stages: a folder, and a manifest written last.

If an artifact loads, its folder is complete: it is built aside, hashed, and renamed into place.
"""

import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

from filelock import FileLock, Timeout

from tunewright.config import version
from tunewright.errors import CODES, Problem, TunewrightError, failure, io_fix

MANIFEST = "manifest.json"
FORMAT = 1
MADE_HOW = frozenset({"created", "key", "options"})
"""Keys of a manifest that tell when and by which wish an artifact was made, and not what it is."""
SHORT = 12
"""Hexadecimal digits that tell two values of an option apart."""
Kind = Literal[
    "dataset",
    "check",
    "plan",
    "adapter",
    "evaluation",
    "merged",
    "exported",
    "published",
    "report",
    "cross",
]


@dataclass(frozen=True)
class Artifact:
    """A finished folder.

    Attributes:
        kind: Which stage made it.
        path: The folder.
        key: SHA-256 of what determined it: config sections and parents.
        digest: SHA-256 of what it is: files, facts and parents. Made anew with the same outcome it is the same.
        parents: Kind of each parent to its digest.
        facts: What the stage has to say: settings, metrics, gates. JSON values.
        files: Relative path of each file to its SHA-256.
        created: ISO time, UTC.
        made_by: Version of Tunewright that made it.
        options: Dotted name of each option that determined it to the beginning of its value's SHA-256.
    """

    kind: Kind
    path: Path
    key: str
    digest: str
    parents: Mapping[str, str]
    facts: Mapping[str, Any]
    files: Mapping[str, str]
    created: str
    made_by: str = ""
    options: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass
class Draft:
    """An artifact in the making.

    Attributes:
        path: Folder to write into.
        facts: To be filled with JSON values; ends up in the manifest.
    """

    path: Path
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def make_key(
    kind: Kind, settings: object, parents: Mapping[str, str], made_by: str | None = None
) -> str:
    """Return the SHA-256 of what determines an artifact.

    Args:
        kind: What it is.
        settings: A JSON value.
        parents: Kind of each parent to its digest.
        made_by: Version of Tunewright; unset: this one.
    """
    text = json.dumps(
        [FORMAT, made_by or version("tunewright"), kind, settings, dict(parents)],
        sort_keys=True,
        ensure_ascii=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprints(settings: object) -> dict[str, str]:
    """Return the dotted name of each leaf of a JSON value to the beginning of its SHA-256.

    Two artifacts can then be told apart by name of option, and no path or text of a config is written down.
    """
    found: dict[str, str] = {}

    def visit(name: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for key, inner in cast("dict[str, object]", value).items():
                visit(f"{name}.{key}" if name else key, inner)
        elif name:
            text = json.dumps(value, sort_keys=True, ensure_ascii=False)
            found[name] = hashlib.sha256(text.encode()).hexdigest()[:SHORT]

    visit("", settings)
    return found


@contextmanager
def writing(
    path: Path, kind: Kind, *, settings: object, parents: Mapping[str, Artifact]
) -> Generator[Draft]:
    """Give a draft folder that becomes the artifact at `path` when the block ends without an error.

    Until then whatever stood at `path` stays. After an error or an interrupt nothing is left; what a
    killed process left behind is removed by the next one that writes the same artifact.

    Raises:
        TunewrightError: E_RUN_LOCKED, another process is writing it. E_UNSAFE_PATH, `path` is a link. E_IO,
            the system refused.
    """
    _require_no_link(path)
    digests = {name: parent.digest for name, parent in parents.items()}
    draft: Draft | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.lock", timeout=0):
            for stale in path.parent.glob(f".tmp-{path.name}-*"):
                shutil.rmtree(stale)
            draft = Draft(path.parent / f".tmp-{path.name}-{secrets.token_hex(4)}")
            draft.path.mkdir()
            yield draft
            made_how = {
                "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "key": make_key(kind, settings, digests),
                "options": fingerprints(settings),
            }
            _finish(draft, path, kind, made_how, digests)
    except Timeout as error:
        raise failure(
            "E_RUN_LOCKED", f"Another process is writing '{path.name}'.", where=path
        ) from error
    except OSError as error:
        where, message = error.filename or path, f"{error.strerror or error}."
        raise failure("E_IO", message, where=where, fix=io_fix(error)) from error
    finally:
        if draft is not None:
            shutil.rmtree(draft.path, ignore_errors=True)


def load_artifact(path: Path, kind: Kind, *, verify: bool = False) -> Artifact:
    """Return the artifact at `path`; with `verify`, after hashing every file.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING, nothing complete is there. E_ARTIFACT_INVALID, it is of
            another kind, or files differ from the manifest (all of them named). E_UNSAFE_PATH, it is a
            link, or has files that lead out of it.
    """
    _require_no_link(path)
    manifest = path / MANIFEST
    try:
        raw = manifest.read_bytes()
        data = cast("dict[str, Any]", json.loads(raw))
        artifact = Artifact(
            kind=data["kind"],
            path=path,
            key=data["key"],
            digest=_digest(data),
            parents=data["parents"],
            facts=data["facts"],
            files=data["files"],
            created=data["created"],
            made_by=data.get("tunewright", ""),
            options=data.get("options", {}),
        )
    except FileNotFoundError as error:
        raise failure(
            "E_ARTIFACT_MISSING",
            f"There is no finished {called(kind)} here.",
            where=path,
            fix=f"{MAKERS[kind]} CONFIG makes it; tunewright run CONFIG makes all that is missing.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise failure(
            "E_ARTIFACT_INVALID", "The manifest cannot be read.", where=manifest
        ) from error
    if artifact.kind != kind:
        raise failure(
            "E_ARTIFACT_INVALID",
            f"This folder is of the kind '{artifact.kind}', and '{kind}' was looked for.",
            where=manifest,
        )
    strangers = _outside(path, (MANIFEST, *artifact.files))
    if strangers:
        raise TunewrightError(strangers)
    if verify:
        problems = verify_files(path, artifact.files)
        if problems:
            raise TunewrightError(problems)
    return artifact


def kind_of(folder: Path) -> Kind | None:
    """Return which artifact a folder holds, told by the beginning of its manifest; None: none."""
    try:
        with (folder / MANIFEST).open("rb") as stream:
            match = _BEGINNING.match(stream.read(200))
    except OSError:
        return None
    kind = match[1].decode() if match else None
    return cast("Kind", kind) if kind in get_args(Kind) else None


_BEGINNING = re.compile(rb'\{\s*"format": \d+,\s*"kind": "(\w+)"')


def _require_no_link(path: Path) -> None:
    if path.is_symlink():
        message = "The folder is a link, which may lead anywhere."
        fix = "Remove the link; `output_dir` can name another place."
        raise failure("E_UNSAFE_PATH", message, where=path, fix=fix)


def _outside(path: Path, names: Iterable[str]) -> list[Problem]:
    """Return a problem for every file that does not lie in the folder."""
    root = path.resolve()
    message, fix = "The file leads out of the folder.", "Make the artifact again."
    return [
        Problem("E_UNSAFE_PATH", message, str(path / name), fix)
        for name in names
        if not (path / name).resolve().is_relative_to(root)
    ]


def verify_files(
    path: Path, files: Mapping[str, str], code: str = "E_ARTIFACT_INVALID"
) -> list[Problem]:
    """Return a problem for every file that is missing or whose SHA-256 differs."""
    kind = kind_of(path)
    fix = (
        f"{MAKERS[kind]} {shlex.quote(str(path.parent))} makes it again"
        if kind
        else CODES[code].fix
    )
    problems: list[Problem] = []
    for name, digest in files.items():
        file = path / name
        if not file.is_file():
            problems.append(Problem(code, "The file is missing.", str(file), fix))
        elif sha256(file) != digest:
            problems.append(
                Problem(code, "The file has changed since it was made.", str(file), fix)
            )
    return problems


def sha256(file: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Force a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_NOUNS: Mapping[str, str] = {
    "evaluation": "comparison",
    "merged": "merged model",
    "exported": "export",
    "published": "version in the store",
}


def called(kind: str) -> str:
    """Return what a sentence calls an artifact of a kind."""
    return _NOUNS.get(kind, kind)


MAKERS: Mapping[Kind, str] = {
    "dataset": "tunewright prepare",
    "check": "tunewright check",
    "plan": "tunewright plan",
    "adapter": "tunewright train",
    "evaluation": "tunewright compare",
    "merged": "tunewright merge",
    "exported": "tunewright export",
    "published": "tunewright publish",
    "report": "tunewright report",
    "cross": "tunewright compare",
}
"""Command that makes an artifact."""


def _digest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says that an artifact is."""
    content = {key: value for key, value in manifest.items() if key not in MADE_HOW}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finish(
    draft: Draft, path: Path, kind: Kind, made_how: Mapping[str, Any], parents: Mapping[str, str]
) -> None:
    inside = sorted(draft.path.rglob("*"))
    for entry in inside:
        fsync(entry)
    files = [entry for entry in inside if entry.is_file()]
    manifest = {
        "format": FORMAT,
        "kind": kind,
        **made_how,
        "tunewright": version("tunewright"),
        "parents": dict(parents),
        "facts": draft.facts,
        "files": {p.relative_to(draft.path).as_posix(): sha256(p) for p in files},
    }
    target = draft.path / MANIFEST
    target.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    fsync(target)
    fsync(draft.path)
    _put_in_place(draft.path, path)


def _put_in_place(made: Path, path: Path) -> None:
    """Rename a folder to where another may stand; that one is back if the disk does not take it."""
    old = path.parent / f".tmp-{path.name}-{secrets.token_hex(4)}"
    with suppress(FileNotFoundError):
        path.rename(old)
    try:
        made.rename(path)
        fsync(path.parent)
    except OSError:
        with suppress(OSError):
            path.rename(made)
        with suppress(OSError):
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
