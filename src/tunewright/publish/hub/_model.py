"""A model to a repository on the Hugging Face Hub: its files and a card, in one commit."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from tunewright.artifacts import Artifact
from tunewright.errors import failure
from tunewright.events import Listener
from tunewright.publish import Pushed
from tunewright.publish.hub._client import Place, check_name, sizes_of, upload
from tunewright.publish.hub._metadata import CARD
from tunewright.publish.hub.model_card import model_card
from tunewright.publish.hub.model_facts import ModelFacts
from tunewright.publish.hub.repositories import (
    Part,
    ollama_files,
    require_token,
    superseded,
    without_place,
)
from tunewright.publish.private import refuse_secrets

REPORT = "report.html"
MODELFILE = "Modelfile"
SETTINGS = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "training_summary.json",
)
"""Files that may name the base; one that is a folder is named there without its place."""
_TITLES: Mapping[Part, str] = {
    "adapter": "Upload adapter with Tunewright",
    "merged": "Upload merged model with Tunewright",
    "gguf": "Upload GGUF files with Tunewright",
}


def push_model(
    part: Part,
    made: Artifact,
    facts: ModelFacts,
    *,
    base: str,
    report: Artifact | None,
    private: bool,
    revision: str | None,
    dry_run: bool,
    listener: Listener,
) -> Pushed:
    """Body of `publish.push_model`, which says what it does."""
    repo_id = facts.repo_id or ""
    check_name(repo_id)
    if not dry_run:
        require_token(repo_id)
    place = Place(repo_id, "model", private, revision)
    with tempfile.TemporaryDirectory(prefix="tunewright-") as name:
        folder = Path(name)
        try:
            files = _files(part, made, facts, base, folder)
            if report is not None:
                files[REPORT] = _report(report, folder)
            files[CARD] = _written(folder, CARD, model_card(replace(facts, report=bool(report))))
        except OSError as error:
            raise failure("E_IO", f"{error.strerror or error}.", where=folder) from error
        refuse_secrets(files, folder)
        if dry_run:
            return Pushed(place.url, None, sizes_of(files))
        kept = {n: d for n, d in made.files.items() if files.get(n) == made.path / n}
        return upload(
            files,
            place,
            title=_TITLES[part],
            digests=kept,
            superseded=partial(_superseded, part, files, repo_id, listener),
            listener=listener,
        )


def _files(
    part: Part, made: Artifact, facts: ModelFacts, base: str, folder: Path
) -> dict[str, Path]:
    """Return path in the repository to file; what has to differ from the run's is written to the folder."""
    for name in made.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise failure("E_ARTIFACT_INVALID", "A file is outside its folder.", where=name)
    files = {name: made.path / name for name in made.files}
    if part == "gguf":
        return _gguf_files(files, facts, folder)
    for name in set(SETTINGS) & files.keys() if base != facts.base.name else ():
        text = files[name].read_text(encoding="utf-8")
        if (told := without_place(text, base, facts.base.name)) != text:
            files[name] = _written(folder, name, told)
    return files


def _gguf_files(files: Mapping[str, Path], facts: ModelFacts, folder: Path) -> dict[str, Path]:
    """Return the GGUF files of the types that are asked for, and what tells Ollama how to run them."""
    found = {one["file"]: files[one["file"]] for one in facts.ggufs.values()}
    if MODELFILE in files and found:
        text = files[MODELFILE].read_text(encoding="utf-8")
        served = next((n for n in found if f"FROM ./{n}\n" in text), list(found)[-1])
        for name, content in ollama_files(text, served).items():
            found[name] = _written(folder, name, content)
    return found


def _report(report: Artifact, folder: Path) -> Path:
    """Return a copy of the report that does not tell where the run lies on this machine."""
    text = (report.path / REPORT).read_text(encoding="utf-8")
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    run = report.path.parent
    places = {f"{run.resolve().parent}/": "", f"{run.parent}/": "", f"{Path.cwd()}/": ""}
    for place, short in {**places, f"{home}/": "~/"}.items():
        if place.startswith("/") and len(place) > 1:
            text = text.replace(place, short)
    return _written(folder, REPORT, text)


def _written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8", newline="\n")
    return file


def _superseded(
    part: Part, sent: Iterable[str], repo_id: str, listener: Listener, present: Sequence[str]
) -> list[str]:
    names = set(sent)
    for name in present if part == "gguf" else ():
        if name.endswith(".gguf") and name not in names:
            listener.said(f"{repo_id}: {name} was there already, is not of this push, and stays.")
    return superseded(part, names, present, repo_id)
