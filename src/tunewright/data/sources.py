"""Where a dataset comes from: files, folders and bundled samples, found and read as text."""

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tunewright.artifacts import sha256
from tunewright.errors import Problem, TunewrightError, failure

SAMPLE = "sample:"
TEXT_SUFFIXES = frozenset([".txt", ".md", ".markdown", ".text"])
ROW_SUFFIXES = frozenset([".jsonl"])


@dataclass(frozen=True)
class Source:
    """The files that were named.

    Attributes:
        files: In natural order (chunk_2 before chunk_10).
        rows: True for rows, False for manuscripts.
        reason: Why, in words.
    """

    files: tuple[Path, ...]
    rows: bool
    reason: str


def find(source: str, form: str) -> Source:
    """Return the files of `prepare.source`, read as `prepare.format` says.

    Raises:
        TunewrightError: E_NOT_FOUND, or E_DATA_ROW for every file of a kind that is not read.
    """
    path = _path(source)
    if path.is_dir():
        known = TEXT_SUFFIXES | ROW_SUFFIXES
        files = sorted((p for p in path.iterdir() if _is_text(p, known)), key=natural)
        if not files:
            raise failure("E_NOT_FOUND", "The folder has no .txt, .md or .jsonl file.", where=path)
    elif path.is_file():
        files = [path]
    else:
        raise failure("E_NOT_FOUND", "There is no such file or folder.", where=source)
    return _decide(files, form)


def _is_text(path: Path, suffixes: frozenset[str]) -> bool:
    """Tell files of a kind; what systems hide (`._name`, `.name`) is not the user's text."""
    return path.is_file() and path.suffix.lower() in suffixes and not path.name.startswith(".")


def digests(source: Source) -> dict[str, str]:
    """Return name and SHA-256 of every file."""
    return {file.name: sha256(file) for file in source.files}


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that takes numbers in a name as numbers."""
    return [
        (int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)
    ]


def _path(source: str) -> Path:
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
        raise failure(
            "E_NOT_FOUND",
            f"There is no sample '{name}'.",
            where=source,
            fix=f"Use one of: {', '.join(names)}.",
        )
    return root / name


def _decide(files: list[Path], form: str) -> Source:
    suffixes = {p.suffix.lower() for p in files}
    if form == "auto":
        rows = suffixes <= ROW_SUFFIXES
        reason = f"{', '.join(sorted(suffixes))}: {'rows' if rows else 'a manuscript'}"
    else:
        rows = form == "rows"
        reason = f"prepare.format is {form}"
    wanted = ROW_SUFFIXES if rows else TEXT_SUFFIXES
    wrong = [p for p in files if p.suffix.lower() not in wanted]
    if wrong:
        kind = "rows" if rows else "a manuscript"
        raise TunewrightError(
            Problem(
                "E_DATA_ROW",
                f"'{p.suffix or 'no suffix'}' is not read as {kind}.",
                str(p),
                f"Give {', '.join(sorted(wanted))} files, or set prepare.format.",
            )
            for p in wrong
        )
    return Source(tuple(files), rows, reason)
