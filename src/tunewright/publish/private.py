"""Secrets in files that are about to be passed on: into the store, or to the Hub."""

import html
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tunewright.errors import CODES, Problem, TunewrightError
from tunewright.models.gguf_file import GgufError, read_layout
from tunewright.privacy import Found, keys_in, secrets_in, texts_in

BINARY = (".parquet", ".arrow", ".bin", ".png", ".jpg")
"""Ends of names of files in which there is no text; rows are searched before they become Parquet."""
PIECE = 2**18
OVERLAP = 2**13
"""Characters: a file is searched in pieces, each with the end of the one before."""
HEADER_BYTES = 2**24
MAX_NAMED = 20


def refuse_secrets(files: Mapping[str, Path], made_in: Path | None = None) -> None:
    """Refuse files of which one holds what looks like a secret, or the value of one of KEYS.

    Text is searched as it stands; of weights the metadata are.

    Args:
        files: Name under which a file is passed on to the file.
        made_in: Folder of files that were made only to be passed on: they are shown by their name.

    Raises:
        TunewrightError: E_SECRET_IN_ARTIFACT for each, with file and line; the secret itself is not shown.
    """
    problems = [
        _problem(found, f"{name if made_in in file.parents else file}:{line}")
        for name, file in files.items()
        for line, found in _secrets_of(name, file)
    ]
    if len(problems) > MAX_NAMED:
        message = f"{len(problems) - MAX_NAMED:,} more like these."
        last = Problem("E_SECRET_IN_ARTIFACT", message, problems[-1].where, problems[-1].fix)
        problems = [*problems[:MAX_NAMED], last]
    if problems:
        raise TunewrightError(problems)


def refuse_secrets_in(values: object, where: str) -> None:
    """Refuse JSON values of which a text holds what looks like a secret.

    Raises:
        TunewrightError: E_SECRET_IN_ARTIFACT for each; the secret itself is not shown.
    """
    problems = [_problem(found, where) for found in found_in("\n".join(texts_in(values)))]
    if problems:
        raise TunewrightError(problems[:MAX_NAMED])


def _problem(found: Found, where: str) -> Problem:
    message = f"What looks like a secret ({found.kind}) is in the file: {found.shown}."
    return Problem("E_SECRET_IN_ARTIFACT", message, where, CODES["E_SECRET_IN_ARTIFACT"].fix)


def _secrets_of(name: str, file: Path) -> Iterator[tuple[int, Found]]:
    """Yield line and secret of everything found in a file."""
    seen: set[int] = set()
    for line, start, text in _pieces(name, file):
        for found in found_in(text):
            if start + found.start not in seen:
                seen.add(start + found.start)
                yield line + text.count("\n", 0, found.start), found


def found_in(text: str) -> list[Found]:
    """Return what in a text looks like a secret, or is the value of one of KEYS."""
    return keys_in(text) or secrets_in(text)


def _pieces(name: str, file: Path) -> Iterator[tuple[int, int, str]]:
    """Yield the text of a file in pieces, each with its first line and how many characters are before it."""
    if name.endswith(".safetensors"):
        yield 1, 0, _safetensors_header(file)
    elif name.endswith(".gguf"):
        yield 1, 0, _gguf_metadata(file)
    elif not name.endswith(BINARY):
        clean = _CLEANED.get(Path(name).suffix, _without_escapes)
        yield from _text_pieces(file, clean)


def _text_pieces(file: Path, clean: Callable[[str], str]) -> Iterator[tuple[int, int, str]]:
    line, start, kept = 1, 0, ""
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        while piece := stream.read(PIECE):
            piece += stream.read(1) if piece.endswith("\\") else ""
            text = kept + clean(piece)
            yield line, start, text
            kept = text[-OVERLAP:]
            gone = len(text) - len(kept)
            line, start = line + text.count("\n", 0, gone), start + gone


def _without_escapes(text: str) -> str:
    """Return a text without backslashes of JSON that would hide a password from the search."""
    return text.replace('\\"', '"').replace("\\/", "/")


_CLEANED: Mapping[str, Callable[[str], str]] = {
    ".md": lambda text: text.replace("\\", ""),
    ".html": html.unescape,
}
"""What takes away the escapes of a kind of file that would hide a password from the search."""


def _safetensors_header(file: Path) -> str:
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return _without_escapes(stream.read(min(size, HEADER_BYTES)).decode(errors="replace"))


def _gguf_metadata(file: Path) -> str:
    """Return the texts of the metadata; of a file whose header cannot be read, its first bytes."""
    with file.open("rb") as stream:
        try:
            texts = list(texts_in(dict(read_layout(stream).metadata)))
        except GgufError:
            stream.seek(0)
            return stream.read(HEADER_BYTES).decode("latin-1")
    return "\n".join(texts)
