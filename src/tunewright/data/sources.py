"""Where a dataset comes from: files, folders, Hub datasets and bundled samples, and what each file is."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from tunewright.artifacts import MANIFEST, kind_of, sha256
from tunewright.artifacts import Kind as ArtifactKind
from tunewright.config.paths import fault_of, usable_path
from tunewright.config.schema import PrepareSection, SourceSection
from tunewright.counting import counted
from tunewright.data.formats.hub_layout import split_named
from tunewright.data.storyboards.shots import recognise
from tunewright.errors import CODES, Problem, TunewrightError, failure

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
GONE = frozenset(["E_NOT_FOUND", "E_HUB"])
"""Codes that say that a source is not there, or cannot be reached."""
LISTS = frozenset(["rejected.jsonl", "changes.jsonl", "dropped.jsonl", "cut.jsonl"])
"""What Tunewright writes beside rows; no rows."""
_BESIDE = (
    frozenset(["rows.jsonl", "changes.jsonl", "rejected.jsonl"]),
    frozenset(["train.jsonl", "eval.jsonl", "dropped.jsonl", "rejected.jsonl"]),
)
"""Files that tell a folder which Tunewright has written, where it has no manifest."""


@dataclass(frozen=True)
class SourceFile:
    """A file to read.

    Attributes:
        path: Where it is.
        name: How it is named in rows and messages; unique among all files.
        kind: What it is read as.
        reason: Why, in words.
        entry: Number of its source in `prepare.source`.
        place: Where links on its path led when it was found.
    """

    path: Path
    name: str
    kind: Kind
    reason: str
    entry: int
    place: Path


@dataclass(frozen=True)
class Sources:
    """All files of `prepare.source`.

    Attributes:
        files: In the order of the sources; within a folder in natural order (chunk_2 before chunk_10).
        notes: What was left out, and which revision was fetched, in words.
        gone: Sources that are not there or cannot be reached; only where that is no error.
    """

    files: tuple[SourceFile, ...]
    notes: tuple[str, ...]
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """A split of a Hub dataset on this machine.

    Attributes:
        files: Its data files, in the order of the repository.
        names: Their paths in the repository.
        revision: The commit they are of.
        reason: How they were chosen, in words.
    """

    files: list[Path]
    names: list[str]
    revision: str
    reason: str


Fetch = Callable[[SourceSection], Fetched]


def find(
    options: PrepareSection, fetch: Fetch, *, run_dir: Path | None = None, lenient: bool = False
) -> Sources:
    """Return the files that `prepare.source` names, each with its kind.

    Args:
        options: What names them.
        fetch: Gets Hub datasets.
        run_dir: Folder of the run: left out where it lies in a source.
        lenient: A source that is not there or cannot be reached is `gone`, and no error.

    Raises:
        TunewrightError: Everything that is wrong at once: E_NOT_FOUND; E_NAME; E_DATA_ROW for every file of a
            kind that is not read; E_UNSAFE_PATH for a link that leaves its folder; E_CONFIG_VALUE for Hub
            options of a file; E_HUB.
    """
    files: list[SourceFile] = []
    notes: list[str] = []
    gone: list[str] = []
    problems: list[Problem] = []
    for number, entry in enumerate(options.source):
        wanted = entry.format if entry.format != "auto" else options.format
        try:
            named = _named(entry, fetch, run_dir, notes)
            chosen = _chosen(named, wanted, number)
        except TunewrightError as error:
            if lenient and all(problem.code in GONE for problem in error.problems):
                gone.append(entry.path)
            else:
                problems.extend(error.problems)
            continue
        problems.extend(_mixed(chosen, entry.path) if wanted == "auto" else ())
        notes.extend(_split_anew(chosen, entry.path))
        files.extend(chosen)
    if problems:
        raise TunewrightError(problems)
    return Sources(tuple(_distinct(files)), tuple(notes), tuple(gone))


def require_unmoved(files: Sequence[SourceFile]) -> None:
    """Refuse files in whose place there are links to others by now.

    Raises:
        TunewrightError: E_UNSAFE_PATH for each.
    """
    message, fix = "It was exchanged for a link while it was read.", "Put the file itself there."
    problems = [
        Problem("E_UNSAFE_PATH", message, str(file.path), fix)
        for file in files
        if file.path.resolve() != file.place
    ]
    if problems:
        raise TunewrightError(problems)


def digests(files: Sequence[SourceFile]) -> dict[str, str]:
    """Return name and SHA-256 of every file."""
    return {file.name: sha256(file.path) for file in files}


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that takes numbers in a path as numbers; no two paths have the same."""
    text = path.as_posix()
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], text


def suffix_of(path: Path) -> str:
    """Return the suffix that tells what a file holds; that of a compression is passed over."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


def _named(
    entry: SourceSection, fetch: Fetch, run_dir: Path | None, notes: list[str]
) -> list[tuple[Path, str, Path]]:
    """Return the files of a source, how each is named, and its place."""
    if entry.path.startswith(HUB):
        fetched = fetch(entry)
        notes.append(f"{entry.path}: commit {fetched.revision[:12]}; {fetched.reason}")
        places = [file.resolve() for file in fetched.files]
        return list(zip(fetched.files, fetched.names, places, strict=True))
    for option in ("name", "split", "revision"):
        if getattr(entry, option) is not None:
            message = f"The option `{option}` is for Hub datasets, and this is a path."
            fix = "Leave it out, or write hub:org/name."
            raise failure("E_CONFIG_VALUE", message, where=entry.path, fix=fix)
    path = _local(entry.path)
    if path.is_dir():
        found = _in_folder(path, entry.path, run_dir, notes)
        return [(file, file.relative_to(path).as_posix(), place) for file, place in found.items()]
    if path.is_file():
        return [(path, path.name, path.resolve())]
    raise failure("E_NOT_FOUND", "There is no such file or folder.", where=entry.path)


def _chosen(named: Sequence[tuple[Path, str, Path]], wanted: str, number: int) -> list[SourceFile]:
    """Return the files of a source with their kinds."""
    chosen: list[SourceFile] = []
    problems: list[Problem] = []
    for path, name, place in named:
        try:
            kind, reason = _kind(path, wanted)
        except TunewrightError as error:
            problems.extend(error.problems)
        else:
            chosen.append(SourceFile(path, name, kind, reason, number, place))
    if problems:
        raise TunewrightError(problems)
    return chosen


def _local(source: str) -> Path:
    if not source.startswith(SAMPLE):
        return usable_path(source)
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


def _in_folder(
    folder: Path, shown: str, run_dir: Path | None, notes: list[str]
) -> dict[Path, Path]:
    """Return the files of a folder, each with its place, which is in the folder, too."""
    root = folder.resolve()
    known = MANUSCRIPTS | STORYBOARDS | TABLES
    found: dict[Path, Path] = {}
    left: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    for path in sorted(_walk(folder, run_dir, left, problems), key=natural):
        place = path.resolve()
        if not place.is_relative_to(root):
            message = "The link leads out of the folder."
            fix = "Copy the file here, or name it as a source of its own."
            problems.append(Problem("E_UNSAFE_PATH", message, str(path), fix))
        elif suffix_of(path) in known and not COMPANIONS.match(path.name):
            found[path] = place
        else:
            left.setdefault("other files", []).append(path)
    problems.extend(_badly_named(list(found)))
    if problems:
        raise TunewrightError(problems)
    if not found:
        known_words = ", ".join(sorted(known))
        raise failure("E_NOT_FOUND", f"The folder has no file with {known_words}.", where=shown)
    for what, paths in left.items():
        names = [_printable(path.relative_to(folder)) for path in sorted(paths, key=natural)[:3]]
        more = f" and {len(paths) - 3:,} more" if len(paths) > 3 else ""
        notes.append(f"{shown}: left out: {what}: {', '.join(names)}{more}")
    return found


def _walk(
    folder: Path, run_dir: Path | None, left: dict[str, list[Path]], problems: list[Problem]
) -> Iterator[Path]:
    """Give every file that may be data; what systems hide (`._name`, `.name`) is not the user's text."""

    def refused(error: OSError) -> None:
        place = str(error.filename or folder)
        problems.append(Problem("E_IO", f"{error.strerror}.", place, CODES["E_IO"].fix))

    own = run_dir.resolve() if run_dir else None
    for where, folders, names in os.walk(folder, onerror=refused):
        here = Path(where)
        below = [here / name for name in folders if not name.startswith(".")]
        folders.clear()
        for path in below:
            if path.is_symlink():
                left.setdefault("linked folders", []).append(path)
            elif path.resolve() == own or _is_made(path):
                left.setdefault("folders that Tunewright has made", []).append(path)
            else:
                folders.append(path.name)
        lists = _lists(here, frozenset(names))
        for path in (here / name for name in names if not name.startswith(".")):
            if path.name in lists:
                left.setdefault("lists that Tunewright has written", []).append(path)
            elif path.is_file():
                yield path
            else:
                what = "links to nothing" if path.is_symlink() else "special files"
                left.setdefault(what, []).append(path)


def _is_made(folder: Path) -> bool:
    """Return whether a folder is an artifact or a run."""
    if kind_of(folder):
        return True
    is_run = (folder / "run.yaml").is_file()
    return is_run and any(kind_of(folder / kind) for kind in get_args(ArtifactKind))


def _lists(folder: Path, names: frozenset[str]) -> frozenset[str]:
    """Return which files of a folder Tunewright has written beside the rows."""
    if kind_of(folder):
        return (LISTS | {MANIFEST}) & names
    return LISTS & names if any(files <= names for files in _BESIDE) else frozenset()


def _badly_named(paths: Sequence[Path]) -> list[Problem]:
    wrong = [path for path in paths if fault_of(str(path))]
    if not wrong:
        return []
    many = counted(len(wrong), "file")
    message = f"The names of {many} cannot be used: the path {fault_of(str(wrong[0]))}."
    return [Problem("E_NAME", message, _printable(wrong[0]), "Rename them.")]


def _printable(path: Path) -> str:
    """Return a path as text; bytes that are not UTF-8 as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


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


def _split_anew(files: Sequence[SourceFile], shown: str) -> list[str]:
    """Return a note where one source holds files named after several splits."""
    first: dict[str, str] = {}
    for file in files:
        split = split_named(file.name) if file.kind == "rows" else None
        if split:
            first.setdefault(split, file.name)
    if len(first) < 2:
        return []
    *others, last = first.values()
    names = f"{', '.join(others)} and {last}"
    return [
        f"{shown}: {names} are read together and split anew; name one file to leave the others out"
    ]


def _distinct(files: list[SourceFile]) -> list[SourceFile]:
    """Return the files with names that differ: of equal ones each gets the number of its source.

    Where that is not enough, a number follows the name.
    """
    counts = Counter(file.name for file in files)
    names = [f"{f.entry + 1}:{f.name}" if counts[f.name] > 1 else f.name for f in files]
    again = Counter(names)
    taken = {name for name in names if again[name] == 1}
    distinct: list[SourceFile] = []
    for file, name in zip(files, names, strict=True):
        unique, number = name, 1
        while again[name] > 1 and unique in taken:
            number += 1
            unique = f"{name} ({number})"
        taken.add(unique)
        distinct.append(replace(file, name=unique))
    return distinct
