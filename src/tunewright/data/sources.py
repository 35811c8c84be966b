"""Where a dataset comes from: files, folders, Hub datasets and bundled samples, and what each file is."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

from tunewright.artifacts import sha256
from tunewright.config.schema import PrepareSection, SourceSection
from tunewright.data.storyboards.shots import recognise
from tunewright.errors import Problem, TunewrightError, failure

SAMPLE = "sample:"
HUB = "hub:"
Kind = Literal["manuscript", "storyboard", "rows"]
MANUSCRIPTS = frozenset([".txt", ".text", ".md", ".markdown", ".docx", ".epub"])
STORYBOARDS = frozenset(
    [".json", ".txt", ".text", ".csv", ".tsv", ".md", ".markdown", ".fountain", ".settings"]
)
TABLES = frozenset([".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather"])
PACKED = frozenset([".gz", ".zst"])
BY_KIND: Mapping[Kind, frozenset[str]] = {
    "manuscript": MANUSCRIPTS,
    "storyboard": STORYBOARDS,
    "rows": TABLES,
}
COMPANIONS = re.compile(r"(?i)(readme|licen[cs]e|changelog|dataset_?card)\b")
"""Files that lie beside data and are not data."""
HEAD_BYTES = 65_536


@dataclass(frozen=True)
class SourceFile:
    """A file to read.

    Attributes:
        path: Where it is.
        name: How it is named in rows and messages; unique among all files.
        kind: What it is read as.
        reason: Why, in words.
        entry: Number of its source in `prepare.source`.
    """

    path: Path
    name: str
    kind: Kind
    reason: str
    entry: int


@dataclass(frozen=True)
class Sources:
    """All files of `prepare.source`.

    Attributes:
        files: In the order of the sources; within a folder in natural order (chunk_2 before chunk_10).
        notes: What was left out, and which revision was fetched, in words.
    """

    files: tuple[SourceFile, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fetched:
    """A split of a Hub dataset on this machine.

    Attributes:
        files: Its data files, in the order of the repository.
        revision: The commit they are of.
        reason: How they were chosen, in words.
    """

    files: list[Path]
    revision: str
    reason: str


Fetch = Callable[[SourceSection], Fetched]


def find(options: PrepareSection, fetch: Fetch) -> Sources:
    """Return the files that `prepare.source` names, each with its kind; `fetch` gets Hub datasets.

    Raises:
        TunewrightError: Everything that is wrong at once: E_NOT_FOUND; E_DATA_ROW for every file of a kind
            that is not read; E_UNSAFE_PATH for a link that leaves its folder; E_HUB.
    """
    files: list[SourceFile] = []
    notes: list[str] = []
    problems: list[Problem] = []
    for number, entry in enumerate(options.source):
        try:
            paths, root = _paths(entry, fetch, notes)
        except TunewrightError as error:
            problems.extend(error.problems)
            continue
        wanted = entry.format if entry.format != "auto" else options.format
        chosen: list[SourceFile] = []
        for path in paths:
            try:
                kind, reason = _kind(path, wanted)
            except TunewrightError as error:
                problems.extend(error.problems)
            else:
                name = path.relative_to(root).as_posix() if root else path.name
                chosen.append(SourceFile(path, name, kind, reason, number))
        problems.extend(_mixed(chosen, entry.path) if wanted == "auto" else ())
        files.extend(chosen)
    if problems:
        raise TunewrightError(problems)
    return Sources(tuple(_distinct(files)), tuple(notes))


def digests(files: Sequence[SourceFile]) -> dict[str, str]:
    """Return name and SHA-256 of every file."""
    return {file.name: sha256(file.path) for file in files}


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that takes numbers in a path as numbers."""
    return [
        (int(part), "") if part.isdecimal() else (0, part)
        for part in re.split(r"(\d+)", path.as_posix())
    ]


def suffix_of(path: Path) -> str:
    """Return the suffix that tells what a file holds; that of a compression is passed over."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


def _paths(entry: SourceSection, fetch: Fetch, notes: list[str]) -> tuple[list[Path], Path | None]:
    """Return the files of a source, and the folder that their names are relative to."""
    if entry.path.startswith(HUB):
        fetched = fetch(entry)
        notes.append(f"{entry.path}: commit {fetched.revision[:12]}; {fetched.reason}")
        return fetched.files, None
    path = _local(entry.path)
    if path.is_dir():
        return _in_folder(path, entry.path, notes), path
    if path.is_file():
        return [path], None
    raise failure("E_NOT_FOUND", "There is no such file or folder.", where=entry.path)


def _local(source: str) -> Path:
    if "\0" in source:
        raise failure("E_NAME", "A path cannot hold a NUL byte.", where=repr(source))
    if not source.startswith(SAMPLE):
        return Path(source).expanduser()
    name = source.removeprefix(SAMPLE)
    root = Path(str(resources.files("tunewright.data"))) / "samples"
    names = sorted(
        p.relative_to(root).as_posix()
        for p in [*root.iterdir(), *(root / "agents").iterdir()]
        if p.is_dir() or p.suffix == ".jsonl"
    )
    if name not in names:
        fix = f"Use one of: {', '.join(names)}."
        raise failure("E_NOT_FOUND", f"There is no sample '{name}'.", where=source, fix=fix)
    return root / name


def _in_folder(folder: Path, shown: str, notes: list[str]) -> list[Path]:
    root = folder.resolve()
    known = MANUSCRIPTS | STORYBOARDS | TABLES
    found: list[Path] = []
    left: list[Path] = []
    problems: list[Problem] = []
    for path in sorted(folder.rglob("*"), key=natural):
        parts = path.relative_to(folder).parts
        # what systems hide (`._name`, `.name`) is not the user's text
        if any(part.startswith(".") for part in parts) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(root):
            message = "The link leads out of the folder."
            fix = "Copy the file here, or name it as a source of its own."
            problems.append(Problem("E_UNSAFE_PATH", message, str(path), fix))
        elif suffix_of(path) in known and not COMPANIONS.match(path.name):
            found.append(path)
        else:
            left.append(path)
    if problems:
        raise TunewrightError(problems)
    if not found:
        known_words = ", ".join(sorted(known))
        raise failure("E_NOT_FOUND", f"The folder has no file with {known_words}.", where=shown)
    if left:
        names = ", ".join(path.name for path in left[:3]) + (", ..." if len(left) > 3 else "")
        notes.append(f"{shown}: {len(left)} other files are left out ({names})")
    return found


def _kind(path: Path, wanted: str) -> tuple[Kind, str]:
    suffix = suffix_of(path)
    if wanted != "auto":
        kind: Kind = wanted  # pyright: ignore[reportAssignmentType]
        if suffix not in BY_KIND[kind] and kind != "rows":
            raise _unread(path, f"'{suffix or path.name}' is not read as a {kind}.", BY_KIND[kind])
        return kind, f"prepare.format is {wanted}"
    if path.suffix.lower() in PACKED and suffix in TABLES:
        return "rows", f"{suffix}{path.suffix.lower()}: rows"
    if suffix in STORYBOARDS:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES).decode("utf-8-sig", errors="replace")
        reason = recognise(path.name, head)
        if reason:
            return "storyboard", reason
    if suffix in TABLES:
        return "rows", f"{suffix}: rows"
    if suffix in MANUSCRIPTS:
        return "manuscript", f"{suffix}: a manuscript"
    if suffix == ".fountain":
        return "storyboard", ".fountain: a screenplay"
    message = f"What '{path.name}' holds cannot be told from its name."
    raise _unread(path, message, MANUSCRIPTS | STORYBOARDS | TABLES)


def _unread(path: Path, message: str, suffixes: frozenset[str]) -> TunewrightError:
    fix = f"Give {', '.join(sorted(suffixes))} files, or set prepare.format."
    return failure("E_DATA_ROW", message, where=path, fix=fix)


def _mixed(files: Sequence[SourceFile], shown: str) -> list[Problem]:
    first = {file.kind: file for file in reversed(files)}
    if len(first) < 2:
        return []
    kinds = "; ".join(f"{kind}: {file.name} ({file.reason})" for kind, file in first.items())
    fix = "Name the files as sources of their own, or set prepare.format."
    return [Problem("E_DATA_ROW", f"The folder mixes kinds of data: {kinds}.", shown, fix)]


def _distinct(files: list[SourceFile]) -> list[SourceFile]:
    """Return the files with names that differ: of equal ones each gets the number of its source."""
    counts = Counter(file.name for file in files)
    return [
        replace(file, name=f"{file.entry + 1}:{file.name}") if counts[file.name] > 1 else file
        for file in files
    ]
