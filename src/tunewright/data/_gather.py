"""Files of every kind to canonical rows, with everything that is wrong collected."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.config.schema import Config, PrepareSection
from tunewright.counting import counted
from tunewright.data._gathered import MOST_STRATA, STRATA, Gathered
from tunewright.data._row_files import layout_of, preference_problem, read_row_file
from tunewright.data._sources import find_files
from tunewright.data.formats.forms import canonical
from tunewright.data.formats.templates import fields_of
from tunewright.data.manuscripts._read import read as read_manuscript
from tunewright.data.manuscripts.cut import Chunk, chunk, faults, sentences
from tunewright.data.manuscripts.matter import find_matter
from tunewright.data.rejects import too_many
from tunewright.data.sources import SourceFile, Sources, require_unmoved
from tunewright.data.storyboards.rows import rows_of
from tunewright.data.storyboards.shots import Shot, read_shots
from tunewright.errors import CODES, Problem, TunewrightError, failure
from tunewright.events import Listener

FILES_THAT_ARE_SOURCES = 5
"""From this many files on, a file is held out as a whole; with fewer, its chapters or windows are."""
CHUNKS_A_WINDOW = 4
"""Chunks of a chapterless manuscript that stay on one side of the split together."""
NAMED = 3
"""Places of one kind that a note names; the rest is counted."""


def collect(
    config: Config,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    listener: Listener,
    *,
    sources: Sources | None = None,
) -> tuple[Gathered, Sources]:
    """Return the rows of `prepare.source`, on disk in `folder`, with those that cannot be used apart.

    Raises:
        TunewrightError: The sources cannot be found or fetched; E_UNSAFE_PATH, one was exchanged for a link
            while it was read; E_CONFIG_VALUE, prompt_template is not one; bad rows do not raise.
    """
    _require_template(config.prepare.prompt_template)
    sources = sources or find_files(config)
    by = config.prepare.stratify_by
    gathered = Gathered(folder, STRATA if by == "auto" else (by,) if by else ())
    gathered.notes.extend(sources.notes)
    listener.started("read", None, "rows")
    manuscripts = sum(file.kind == "manuscript" for file in sources.files)
    with closing(gathered):
        for (kind, _), group in groupby(sources.files, key=lambda file: (file.kind, file.entry)):
            files = list(group)
            if kind == "manuscript":
                whole = manuscripts >= FILES_THAT_ARE_SOURCES
                _manuscripts(config, files, tokenizer, gathered, listener, whole_files=whole)
            elif kind == "storyboard":
                _storyboards(config, files, gathered, listener)
            else:
                for file in files:
                    read_row_file(config, file, gathered, listener)
    require_unmoved(sources.files)
    gathered.notes.extend(_notes_on_strata(gathered, by))
    return gathered, sources


def _notes_on_strata(gathered: Gathered, by: str | None) -> list[str]:
    """Return why the field that a config names does not stratify.

    Raises:
        TunewrightError: E_CONFIG_VALUE, no row has that field.
    """
    if by in (None, "auto") or not len(gathered):
        return []
    count = gathered.values_of(by)
    if not count:
        message = f"'prepare.stratify_by' is {by}, and no row has that field."
        fix = "Name a field that rows have, or null."
        raise failure("E_CONFIG_VALUE", message, where="prepare.stratify_by", fix=fix)
    if 2 <= count <= MOST_STRATA:
        return []
    few = "only one value" if count == 1 else f"more than {MOST_STRATA} values"
    return [f"the split is not stratified: {by} has {few}"]


def faults_of(gathered: Gathered, options: PrepareSection) -> list[Problem]:
    """Return why the data are refused: files that cannot be read to their end, and bad rows."""
    return [*gathered.broken, *too_many(gathered.rejects, gathered.usable, options)]


def refusals(gathered: Gathered, options: PrepareSection) -> list[Problem]:
    """Return why no dataset can be made of the rows: their faults, and preference pairs."""
    return [*faults_of(gathered, options), *preferences(gathered)]


def preferences(gathered: Gathered) -> list[Problem]:
    """Return a problem for each file of preference pairs."""
    problems: list[Problem] = []
    for file, tally in gathered.forms.items():
        if "preference" in tally.counts:
            count, line = tally.counts["preference"], tally.first["preference"]
            problems.append(
                preference_problem(file, count, line, gathered.preference_fixes.get(file, ""))
            )
    return problems


def facts_of(gathered: Gathered, sources: Sources) -> dict[str, Any]:
    """Return what was read, as JSON values."""
    return {
        "files": [
            {
                "name": file.name,
                "kind": file.kind,
                "reason": gathered.reasons.get(file.name, file.reason),
                "forms": dict(gathered.forms[file.name].counts)
                if file.name in gathered.forms
                else {},
            }
            for file in sources.files
        ],
        "notes": list(gathered.notes),
        "rejected_rows": gathered.rejects.count,
        "rejected_reasons": dict(gathered.rejects.reasons.most_common(10)),
        "dropped_lines": gathered.dropped.count,
        "preference_pairs": sum(
            tally.counts.get("preference", 0) for tally in gathered.forms.values()
        ),
    }


def _require_template(template: str | None) -> None:
    try:
        fields_of(template or "")
    except ValueError as error:
        raise failure("E_CONFIG_VALUE", f"{error}.", where="prepare.prompt_template") from error


def _manuscripts(
    config: Config,
    files: Sequence[SourceFile],
    tokenizer: PreTrainedTokenizerFast,
    gathered: Gathered,
    listener: Listener,
    *,
    whole_files: bool,
) -> None:
    options = config.prepare

    def count(texts: Sequence[str]) -> list[int]:
        fast = tokenizer.backend_tokenizer
        return [len(e) for e in fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    for file in files:
        try:
            manuscript = read_manuscript(file.path)
        except TunewrightError as error:
            gathered.broken.extend(error.problems)
            continue
        gathered.notes.extend(f"{file.name}: {note}" for note in manuscript.notes)
        parts, dropped = sentences(manuscript.text, find_matter(manuscript.text))
        for item in dropped:
            gathered.dropped.add({"source": file.name, **vars(item)})
        cut = chunk(parts, count, min_tokens=options.min_tokens, max_tokens=options.max_tokens)
        gathered.broken.extend(_lost(file, faults(manuscript.text, cut.chunks, dropped)))
        places = _places(cut.chunks, whole_file=whole_files)
        _add_chunks(config, file, cut.chunks, places, gathered)
        gathered.reasons[file.name] = f"{file.reason}; {counted(len(cut.chunks), 'chunk')}"
        gathered.notes.extend(_notes_on(file, cut.chunks, [vars(i) for i in cut.inside], options))
        listener.advanced(len(gathered), file.name)


def _lost(file: SourceFile, found: Sequence[str]) -> list[Problem]:
    """Return a problem for each place where text would be lost or doubled."""
    return [
        Problem("E_COVERAGE", f"{what}.", str(file.path), CODES["E_COVERAGE"].fix) for what in found
    ]


def _notes_on(
    file: SourceFile,
    chunks: Sequence[Chunk],
    inside: Sequence[dict[str, Any]],
    options: PrepareSection,
) -> list[str]:
    if not chunks:
        return [f"{file.name}: no text"]
    notes: list[str] = []
    for how, count in Counter(item["how"] for item in inside).items():
        lines = list(dict.fromkeys(str(item["line"]) for item in inside if item["how"] == how))
        shown = ", ".join(lines[:NAMED]) + (", ..." if len(lines) > NAMED else "")
        notes.append(f"{file.name}: {how} ({counted(count, 'time')}; line {shown})")
    short = [item for item in chunks if item.tokens < options.min_tokens]
    if short:
        lines = ", ".join(str(item.line) for item in short[:NAMED])
        more = ", ..." if len(short) > NAMED else ""
        notes.append(
            f"{file.name}: {counted(len(short), 'chunk')} shorter than prepare.min_tokens "
            f"(line {lines}{more})"
        )
    return notes


def _places(chunks: Sequence[Chunk], *, whole_file: bool) -> list[int]:
    """Return which chunks of a file belong together: all, those of a chapter, or those of a window."""
    if whole_file:
        return [0] * len(chunks)
    if len({piece.section for piece in chunks}) > 1:
        return [piece.section for piece in chunks]
    return [number // CHUNKS_A_WINDOW for number in range(len(chunks))]


def _add_chunks(
    config: Config,
    file: SourceFile,
    chunks: Sequence[Chunk],
    places: Sequence[int],
    gathered: Gathered,
) -> None:
    options = config.prepare
    previous: tuple[int, str] | None = None
    for number, piece in enumerate(chunks):
        before = previous[1] if previous and previous[0] == places[number] else ""
        fields = {
            "instruction": options.instruction,
            "input": before if options.mode == "continuation" else "",
            "output": piece.text,
        }
        row = canonical(fields, "instruction", layout=layout_of(config))
        origin = f"{file.name}#{places[number]}"
        place = {"chunk": number, "start": piece.start, "end": piece.end, "source_id": origin}
        chapter = {"chapter": piece.chapter} if piece.chapter else {}
        row = {**row, "source": file.name, "line": piece.line, **place, **chapter}
        gathered.add(row, entry=file.entry, group=f"source_id {origin}")
        previous = (places[number], piece.text)


def _storyboards(
    config: Config, files: Sequence[SourceFile], gathered: Gathered, listener: Listener
) -> None:
    shots: list[Shot] = []
    file_of: dict[str, str] = {}
    for file in files:
        try:
            # an entity such as &quot; may stand inside of JSON: its text must not change before it is read
            text = read_manuscript(file.path, html=False)
        except TunewrightError as error:
            gathered.broken.extend(error.problems)
            continue
        gathered.notes.extend(f"{file.name}: {note}" for note in text.notes)
        found = read_shots(file.name, text.text, gathered.rejects.report, str(file.path))
        gathered.reasons[file.name] = f"{file.reason}; {counted(len(found), 'shot')}"
        shots += found
        file_of |= {shot.source_id: file.name for shot in found}
        listener.advanced(len(shots), file.name)
    made = rows_of(shots, config.prepare.storyboard, config.seed)
    gathered.notes.extend(made.notes)
    for row in made.rows:
        origin = str(row["source_id"])
        provenance = {"source": file_of[origin], "line": row["line"]}
        fields = {key: value for key, value in row.items() if key != "line"}
        plain = canonical(fields, "style-prompt", layout=layout_of(config))
        gathered.add({**plain, **provenance}, entry=files[0].entry, group=f"source_id {origin}")
        gathered.tally(file_of[origin]).add("style-prompt", int(row["line"]))
    gathered.usable += len(shots) - len(made.rows)
    listener.advanced(len(gathered), "")
