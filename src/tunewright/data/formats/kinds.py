"""What a file is, by its name and its first bytes, and why. Pure."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunewright.data.formats.csvrows import DELIMITERS, sniffed
from tunewright.data.formats.documents import WRAPPERS
from tunewright.data.formats.lines import marked
from tunewright.data.formats.records import refused

Reader = Literal["lines", "document", "wrapped", "csv", "parquet", "arrow"]
PACKED = frozenset([".gz", ".zst"])
TEXTS = frozenset([".jsonl", ".ndjson", ".json", ".csv", ".tsv"])
TABLES = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
ROW_SUFFIXES = TEXTS | frozenset(TABLES)
"""Suffixes of files that are read as rows; those of TEXTS also with one of PACKED behind them."""
UNSAFE = frozenset(
    [".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz", ".msgpack"]
)
HEAD_BYTES = 2**18

_UNSAFE_FIX = "Write the data as JSON lines or Parquet where it was made, and give that file."
_MAGIC = (
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"ARROW1\0\0", "an Arrow file", ".arrow"),
    (b"\xff\xff\xff\xff", "an Arrow stream", ".arrow"),
    (b"FEA1", "a Feather file of version 1", ""),
    (b"\x1f\x8b", "gzip data", ".gz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", ".zst"),
    (b"PK\x03\x04", "a ZIP file (or .xlsx, .docx)", ""),
    (b"PK\x05\x06", "an empty ZIP file", ""),
    (b"BZh", "bzip2 data", ""),
    (b"\xfd7zXZ\0", "xz data", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", ""),
    (b"\x89PNG", "a PNG picture", ""),
    (b"\xff\xd8\xff", "a JPEG picture", ""),
    (b"GIF8", "a GIF picture", ""),
    (b"%PDF", "a PDF document", ""),
    (b"\xd0\xcf\x11\xe0", "an old Office document", ""),
    (b"\x89HDF", "an HDF5 file", ""),
    (b"SQLite format 3", "an SQLite database", ""),
    (b"GGUF", "a GGUF model", ""),
    (b"\x7fELF", "a program", ""),
    (b"version https://git-lfs", "a Git LFS pointer in place of the file; run `git lfs pull`", ""),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05][\x00-\xff]")
_MARKUP = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
_WRAPPED = re.compile(rf'"({"|".join(WRAPPERS)})"\s*:\s*\[\s*\{{')
_WRAPPED_FIRST = re.compile(rf"\s*\{{\s*{_WRAPPED.pattern}")


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Attributes:
        reader: How it is read.
        reason: What it is and how that was told, in words.
        encoding: Of text.
        delimiter: Of CSV.
    """

    reader: Reader
    reason: str
    encoding: str = "utf-8"
    delimiter: str = ""


def suffix_of(path: Path) -> str:
    """Return the suffix that says what the file is, without the one of its compression."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


def decide(path: Path, head: bytes, *, whole: bool) -> Kind:
    """Return what a file is.

    Args:
        path: Its name.
        head: Its first bytes, decompressed.
        whole: They are all there is.

    Raises:
        TunewrightError: E_UNSAFE_FORMAT or E_DATA_ROW, files of this kind are not read.
    """
    suffix = suffix_of(path)
    _check_safe(path, suffix, head)
    if suffix not in ROW_SUFFIXES:
        raise refused(
            path,
            f"Files named '{suffix or path.name}' are not read as rows.",
            f"Give one of {', '.join(sorted(ROW_SUFFIXES))}; text ones also as .gz or .zst.",
        )
    if suffix in TABLES:
        return _table(path, suffix, head)
    _check_named(path, suffix, head)
    encoding, skip = marked(head)
    text = head[skip:].decode(encoding, errors="replace")
    if suffix in {".csv", ".tsv"}:
        return _csv(path, suffix, text, encoding)
    return _json(suffix, text, encoding, whole=whole)


def _check_safe(path: Path, suffix: str, head: bytes) -> None:
    pickled = _PICKLE.match(head) is not None
    torch = head.startswith(b"PK\x03\x04") and b"/data.pkl" in head[:4096]
    if suffix in UNSAFE or pickled or torch or head.startswith(b"\x93NUMPY"):
        what = "a pickle" if pickled or torch else f"a '{suffix}' file"
        text = f"This is {what}, which can run code when it is loaded; it is not opened."
        raise refused(path, text, _UNSAFE_FIX, code="E_UNSAFE_FORMAT")


def _check_named(path: Path, suffix: str, head: bytes) -> None:
    for magic, what, right in _MAGIC:
        if head.startswith(magic):
            packed = right in PACKED
            better = path.name + right if packed else path.name.removesuffix(path.suffix) + right
            fix = f"Rename it to {better}." if right else "Give the rows as JSON lines or CSV."
            raise refused(path, f"The name says '{suffix}', but this is {what}.", fix)
    if _MARKUP.match(head):
        text = f"The name says '{suffix}', but this is a web page or XML."
        raise refused(path, text, "Download the file itself, not the page that shows it.")


def _table(path: Path, suffix: str, head: bytes) -> Kind:
    if path.suffix.lower() in PACKED:
        fix = "Decompress it first; these formats compress within."
        raise refused(path, f"A compressed '{suffix}' file is not read.", fix)
    if suffix == ".parquet" and head.startswith(b"PAR1"):
        return Kind("parquet", "Parquet: the name says so, and it begins with PAR1")
    if suffix != ".parquet" and head.startswith(b"ARROW1\0\0"):
        return Kind("arrow", "Arrow file: the name says so, and it begins with ARROW1")
    if suffix != ".parquet" and head.startswith(b"\xff\xff\xff\xff"):
        return Kind("arrow", "Arrow stream: the name says so, and it begins with a message")
    _check_named(path, suffix, head)
    what = "empty" if not head else "of another kind or damaged"
    raise refused(path, f"The name says '{suffix}', but the file is {what}.", "Write it again.")


def _csv(path: Path, suffix: str, text: str, encoding: str) -> Kind:
    begin = text.lstrip()[:1]
    first = text.lstrip().split("\n", 1)[0]
    if begin in {"{", "["} and _value(first) is not None:
        fix = f"Rename it to {path.name.replace(path.suffix, '.jsonl')}."
        raise refused(path, f"The name says '{suffix}', but this is JSON.", fix)
    if suffix == ".tsv":
        return Kind("csv", "TSV: the name says so", encoding, "\t")
    mark = sniffed(text)
    reason = f"CSV: the name says so; its first lines are divided by a {DELIMITERS[mark]}"
    return Kind("csv", reason, encoding, mark)


def _json(suffix: str, text: str, encoding: str, *, whole: bool) -> Kind:
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    first, second = [*lines, "", ""][:2]
    alone = len(lines) < 2
    value = _value(first)
    if first.startswith("[") and _is_list(value, alone=alone):
        return Kind("document", "JSON: it begins with [, a list of rows", encoding)
    if first.startswith("{"):
        spread = first.endswith(("{", "[", ",")) and second[:1] in {'"', "}"}
        if _wrapper(value, text, alone=alone, spread=spread or (alone and not whole)):
            return Kind("wrapped", "JSON: one object that holds a list of rows", encoding)
        if value is None and spread:
            return Kind("document", "JSON: objects over several lines", encoding)
        return Kind("lines", "JSON lines: the first line is an object of its own", encoding)
    return Kind("lines", f"JSON lines: the name says '{suffix}'", encoding)


def _is_list(value: Any, *, alone: bool) -> bool:
    """Tell a list of rows from JSON lines of which the first is a list by mistake."""
    return alone or not isinstance(value, list) or _rows(value)


def _rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _wrapper(value: Any, text: str, *, alone: bool, spread: bool) -> bool:
    """Tell an object that holds a list of rows from a row."""
    if isinstance(value, dict):
        return alone and any(_rows(value.get(key)) for key in WRAPPERS)
    begins = _WRAPPED_FIRST.match(text) is not None
    return value is None and (begins or (spread and _WRAPPED.search(text) is not None))


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
