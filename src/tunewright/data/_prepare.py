"""The prepare stage: files to rows, rows to a training and a held-out side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ftfy
from charset_normalizer import from_bytes
from transformers import PreTrainedTokenizerFast

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, PrepareSection
from tunewright.data._near import histogram, near_copies
from tunewright.data.manuscript import Chunk, Dropped, chunk, sentences
from tunewright.data.rows import answer_of, read_rows, text_of, write_rows
from tunewright.data.sources import Source, digests, find
from tunewright.data.split import clusters, hold_out
from tunewright.errors import failure
from tunewright.events import Listener
from tunewright.machine import require_space
from tunewright.models._load import load_tokenizer, resolve_model

FILES_THAT_ARE_SOURCES = 5
"""From this many files on, a file is held out as a whole; with fewer, its chapters or windows are."""
CHUNKS_A_WINDOW = 4
"""Chunks of a chapterless manuscript that stay on one side of the split together."""


@dataclass(frozen=True)
class Gathered:
    """Rows before the split.

    Attributes:
        rows: As they will be written.
        groups: What each row comes from; rows of one group stay together.
        notes: What was done to the text, in words.
        dropped: Lines that are in no row.
    """

    rows: list[dict[str, Any]]
    groups: list[str]
    notes: list[str]
    dropped: list[dict[str, Any]]


def prepare(config: Config, listener: Listener) -> Artifact:
    """Make the dataset; see the facade."""
    options = config.prepare
    source = find(options.source, options.format)
    inputs = digests(source)
    run_dir = Path(config.run_dir)
    require_space(run_dir, 3 * sum(file.stat().st_size for file in source.files))
    base = resolve_model(config.model.model_name_or_path, config.model.revision, weights=False)
    tokenizer = load_tokenizer(base)
    settings = {**settings_of(config, "dataset"), "inputs": inputs}
    with writing(run_dir / "dataset", "dataset", settings=settings, parents={}) as draft:
        listener.started("prepare", len(source.files), "files")
        gathered = (
            _gather_rows(source, listener)
            if source.rows
            else _gather_chunks(source, options, tokenizer, listener)
        )
        listener.said(f"{source.reason}; {len(gathered.rows)} rows from {len(source.files)} files")
        held, linked = _split(gathered, options, config.seed)
        sides = {
            "train": [row for n, row in enumerate(gathered.rows) if n not in held],
            "eval": [row for n, row in enumerate(gathered.rows) if n in held],
        }
        for side, rows in sides.items():
            write_rows(draft.path / f"{side}.jsonl", rows)
        write_rows(draft.path / "dropped.jsonl", gathered.dropped)
        draft.facts |= _statistics(sides, tokenizer)
        draft.facts |= {
            "inputs": inputs,
            "reason": source.reason,
            "notes": gathered.notes,
            "near_copies_kept_together": linked,
            "dropped_lines": len(gathered.dropped),
            "sources": len(set(gathered.groups)),
        }
    return load_artifact(run_dir / "dataset", "dataset")


def _gather_rows(source: Source, listener: Listener) -> Gathered:
    rows: list[dict[str, Any]] = []
    groups: list[str] = []
    for done, file in enumerate(source.files, 1):
        for row in read_rows(file):
            origin = row.data.get("source_id")
            rows.append({**row.data, "source": file.name, "line": row.line})
            groups.append(f"{file.name}:{origin if origin is not None else row.line}")
        listener.advanced(done, file.name)
    return Gathered(rows, groups, [], [])


def _gather_chunks(
    source: Source, options: PrepareSection, tokenizer: PreTrainedTokenizerFast, listener: Listener
) -> Gathered:
    gathered = Gathered([], [], [], [])

    def count(texts: Any) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    for done, file in enumerate(source.files, 1):
        text = read_text(file, gathered.notes)
        parts, dropped = sentences(text)
        chunks = chunk(parts, count, min_tokens=options.min_tokens, max_tokens=options.max_tokens)
        if not chunks:
            gathered.notes.append(f"{file.name}: no text")
        whole = len(source.files) >= FILES_THAT_ARE_SOURCES
        _add_chunks(gathered, file.name, chunks, _places(chunks, whole_file=whole), options)
        gathered.dropped.extend(_dropped(file.name, dropped))
        listener.advanced(done, file.name)
    return gathered


def _dropped(name: str, dropped: list[Dropped]) -> list[dict[str, Any]]:
    return [{"source": name, "line": d.line, "text": d.text} for d in dropped]


def _places(chunks: list[Chunk], *, whole_file: bool) -> list[int]:
    """Return which chunks of a file belong together: all, those of a chapter, or those of a window."""
    if whole_file:
        return [0] * len(chunks)
    if len({piece.section for piece in chunks}) > 1:
        return [piece.section for piece in chunks]
    return [number // CHUNKS_A_WINDOW for number in range(len(chunks))]


def _add_chunks(
    gathered: Gathered, name: str, chunks: list[Chunk], places: list[int], options: PrepareSection
) -> None:
    previous: tuple[str, str] | None = None
    for number, piece in enumerate(chunks):
        group = f"{name}#{places[number]}"
        before = previous[1] if previous and previous[0] == group else ""
        gathered.rows.append(
            {
                "instruction": options.instruction,
                "input": before if options.mode == "continuation" else "",
                "output": piece.text,
                "source": name,
                "chunk": number,
                "start": piece.start,
                "end": piece.end,
            }
        )
        gathered.groups.append(group)
        previous = (group, piece.text)
        if not options.min_tokens <= piece.tokens <= options.max_tokens:
            gathered.notes.append(
                f"{name} chunk {number}: {piece.tokens} tokens, outside the window"
            )


def read_text(file: Path, notes: list[str]) -> str:
    """Return a text file's content with LF line ends; what was changed is added to `notes`.

    Raises:
        TunewrightError: E_DATA_ROW, the encoding cannot be told.
    """
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        best = from_bytes(data).best()
        if best is None or b"\0" in data:
            raise failure(
                "E_DATA_ROW",
                f"Byte {error.start} is not UTF-8 and no other encoding fits.",
                where=file,
                fix="Save the file as UTF-8 text.",
            ) from error
        text = str(best)
        notes.append(f"{file.name}: read as {best.encoding}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    repaired = ftfy.fix_text(
        text, uncurl_quotes=False, fix_character_width=False, normalization=None
    )
    if repaired != text:
        notes.append(f"{file.name}: mojibake or control characters repaired")
    return repaired


def _split(gathered: Gathered, options: PrepareSection, seed: int) -> tuple[set[int], int]:
    """Return the rows to hold out and the number of near copies that were kept together."""
    if not gathered.rows:
        raise failure("E_DATA_EMPTY", "There is no text in it.", where=options.source)
    texts = [text_of(row) for row in gathered.rows]
    answers = [answer_of(row) for row in gathered.rows]
    linked = near_copies(texts, answers, options.near_duplicate_threshold)
    try:
        held = hold_out(clusters(gathered.groups, linked), texts, options.eval_split, seed)
    except ValueError as error:
        raise failure(
            "E_DATA_EMPTY",
            f"Nothing can be held out: {error}.",
            where=options.source,
            fix="Add text or rows of other sources; for a manuscript, a lower prepare.max_tokens helps.",
        ) from error
    share = sum(len(texts[row]) for row in held) / sum(map(len, texts))
    if not options.eval_split / 1.5 <= share <= options.eval_split * 1.5:
        gathered.notes.append(
            f"{share:.0%} of the text are held out: what belongs together is large"
        )
    return held, len(linked)


def _statistics(
    sides: dict[str, list[dict[str, Any]]], tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    lengths: list[int] = []
    for side, rows in sides.items():
        answers = [answer_of(row) for row in rows]
        tokens = [len(i) for i in tokenizer(answers, add_special_tokens=False)["input_ids"]]
        facts[f"{side}_rows"] = len(rows)
        facts[f"{side}_words"] = sum(len(a.split()) for a in answers)
        facts[f"{side}_tokens"] = sum(tokens)
        lengths += tokens
    return facts | {"lengths": lengths, "tokens_a_row": histogram(lengths)}
