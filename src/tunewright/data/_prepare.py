"""The prepare stage: files to rows, rows to a training and a held-out side."""

import shutil
from array import array
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tunewright.artifacts import Artifact, Draft, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config
from tunewright.counting import counted
from tunewright.data._check import placing, tokenizer_of
from tunewright.data._gather import collect, facts_of, refusals
from tunewright.data._gathered import Gathered, answer_of
from tunewright.data._sides import Sides, find_links
from tunewright.data._sources import find_files, identify
from tunewright.data._split import Split, clusters, hold_out
from tunewright.data._statistics import lengths_of
from tunewright.data.sources import Sources
from tunewright.data.spool import Rows, Spool
from tunewright.errors import TunewrightError, failure
from tunewright.events import Listener
from tunewright.machine import require_space

SIDES: tuple[str, ...] = ("train", "eval")
SAID_FILES = 3
SAID_NOTES = 10
BATCH = 1000
BATCH_CHARACTERS = 500_000
BYTES_NEEDED = 6
"""Disk space for each byte of input: rows, dataset, and what the search for copies takes."""


def prepare(config: Config, listener: Listener) -> Artifact:
    """Make the dataset; see the facade."""
    sources = find_files(config)
    inputs = identify(config, sources)
    run_dir = Path(config.run_dir)
    require_space(run_dir, BYTES_NEEDED * sum(file.path.stat().st_size for file in sources.files))
    tokenizer = tokenizer_of(config)
    settings = {**settings_of(config, "dataset"), "inputs": inputs}
    with writing(run_dir / "dataset", "dataset", settings=settings, parents={}) as draft:
        work = draft.path / "work"
        gathered, _ = collect(config, tokenizer, work, listener, sources=sources)
        facts = facts_of(gathered, sources)
        _require_usable(config, gathered, sources, inputs)
        split, linked = _split(config, gathered, sources, work, listener)
        _write_sides(config, gathered, split, draft, tokenizer, listener)
        for name in ("dropped", "rejected"):
            (work / f"{name}.jsonl").rename(draft.path / f"{name}.jsonl")
        shutil.rmtree(work)
        draft.facts |= facts | {
            "inputs": inputs,
            "notes": [*facts["notes"], *split.notes],
            "near_copies_kept_together": linked,
            "held_out_share": round(
                draft.facts["eval_tokens"]
                / max(1, draft.facts["eval_tokens"] + draft.facts["train_tokens"]),
                4,
            ),
            "sources": len(np.unique(np.asarray(gathered.groups))),
        }
        _say(draft.facts, listener)
    return load_artifact(run_dir / "dataset", "dataset")


def _require_usable(
    config: Config, gathered: Gathered, sources: Sources, inputs: Mapping[str, str]
) -> None:
    """Refuse data with bad rows, without rows, or that has changed while it was read."""
    problems = refusals(gathered, config.prepare)
    if problems:
        raise TunewrightError(problems)
    where = ", ".join(entry.path for entry in config.prepare.source)
    if not len(gathered):
        raise failure("E_DATA_EMPTY", "There is no text in it.", where=where)
    now = identify(config, sources)
    changed = [name for name, digest in inputs.items() if now.get(name) != digest]
    if changed:
        message = f"Files changed while they were read: {', '.join(changed[:5])}."
        raise failure("E_IO", message, where=where, fix="Run the command again.")


def _split(
    config: Config, gathered: Gathered, sources: Sources, work: Path, listener: Listener
) -> tuple[Split, int]:
    """Return what is held out and the number of near copies that are kept together."""
    options = config.prepare
    with Rows(gathered.rows.path) as rows:
        sides = Sides({"": rows}, placing(sources), work)
        found = find_links(sides, work, options.near_duplicate_threshold, listener)
    together = clusters(np.asarray(gathered.groups), found.pairs)
    strata = gathered.strata()
    try:
        split = hold_out(
            together,
            np.asarray(gathered.sizes),
            np.asarray(gathered.digests),
            share=options.eval_split,
            seed=config.seed,
            strata=None if strata is None else [s if s >= 0 else None for s in strata[1]],
        )
    except ValueError as error:
        reason, fix = f"{error}", "Add text or rows of other sources."
        if len(gathered) == 1:
            reason = "there is only one row"
            fix = "Add text or rows; for a manuscript, a lower prepare.max_tokens makes more rows."
        elif len(found.pairs):
            reason += ", since their texts or answers are nearly the same"
        raise failure(
            "E_DATA_EMPTY",
            f"Nothing can be held out: {reason}.",
            where=", ".join(entry.path for entry in options.source),
            fix=fix,
        ) from error
    return split, len(found.pairs)


def _write_sides(
    config: Config,
    gathered: Gathered,
    split: Split,
    draft: Draft,
    tokenizer: PreTrainedTokenizerFast,
    listener: Listener,
) -> None:
    """Write train.jsonl and eval.jsonl, training rows as often as their source's weight says."""
    words, lengths = dict.fromkeys(SIDES, 0), {side: array("l") for side in SIDES}
    copies = _copies(config, gathered, split)
    waiting: list[tuple[str, str]] = []
    characters = 0

    def count_tokens() -> None:
        texts = [text for _, text in waiting]
        found = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for (side, _), tokens in zip(waiting, found, strict=True):
            lengths[side].append(len(tokens))
        waiting.clear()

    listener.started("write", len(gathered), "rows")
    with ExitStack() as opened:
        spools = {
            side: opened.enter_context(closing(Spool(draft.path / f"{side}.jsonl")))
            for side in SIDES
        }
        rows = opened.enter_context(Rows(gathered.rows.path))
        for number, row in enumerate(rows):
            side = "eval" if split.held[number] else "train"
            answer = answer_of(row)
            for copy in range(int(copies[number])):
                spools[side].add({**row, "copy": copy} if copy else row)
                words[side] += len(answer.split())
                waiting.append((side, answer))
                characters += len(answer)
            if len(waiting) >= BATCH or characters >= BATCH_CHARACTERS:
                count_tokens()
                characters = 0
                listener.advanced(number + 1, "")
    if waiting:
        count_tokens()
    if not spools["train"].count:
        message = "No row is left to train on: the weights of the sources leave all of them out."
        raise failure("E_DATA_EMPTY", message, where="prepare.source", fix="Raise the weights.")
    draft.facts["rows_left_out_by_weight"] = int((copies == 0).sum())
    draft.facts["rows_repeated_by_weight"] = int(np.maximum(copies - 1, 0).sum())
    for side, spool in spools.items():
        draft.facts[f"{side}_rows"] = spool.count
        draft.facts[f"{side}_words"] = words[side]
        draft.facts[f"{side}_tokens"] = sum(lengths[side])
    draft.facts["lengths"] = lengths_of(lengths["train"] + lengths["eval"])


def _copies(config: Config, gathered: Gathered, split: Split) -> NDArray[np.int64]:
    """Return how often each row is taken: the weight's whole part, and once more for its fraction of rows.

    Which rows these are depends on their content, not on their order. Held-out rows are not repeated,
    and of a source with a weight under 1 the same share is held out, so that the held-out loss is about
    the mix that is trained on.
    """
    weights = np.array([entry.weight for entry in config.prepare.source])
    wanted = weights[np.asarray(gathered.entries)]
    digests = np.asarray(gathered.digests) ^ np.uint64(config.seed)
    draws = (digests * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)) / 2.0**53
    copies = (np.floor(wanted) + (draws < wanted % 1)).astype(np.int64)
    copies[split.held] = np.minimum(copies[split.held], 1)
    if not copies[split.held].any():
        copies[np.flatnonzero(split.held)[0]] = 1
    return copies


def _say(facts: Mapping[str, Any], listener: Listener) -> None:
    for file in facts["files"][:SAID_FILES]:
        listener.said(f"{file['name']}: {file['reason']}")
    more = len(facts["files"]) - SAID_FILES
    if more > 0:
        listener.said(f"and {counted(more, 'more file')}")
    for note in facts["notes"][:SAID_NOTES]:
        listener.said(note)
    if len(facts["notes"]) > SAID_NOTES:
        listener.said(f"and {len(facts['notes']) - SAID_NOTES:,} more notes, in manifest.json")
    by_weight = {"repeated": "repetitions", "left_out": "rows left out"}
    weights = ", ".join(
        f"{facts[f'rows_{key}_by_weight']:,} {word} by weight"
        for key, word in by_weight.items()
        if facts[f"rows_{key}_by_weight"]
    )
    listener.said(
        f"{facts['train_rows']:,} rows to train on, {facts['eval_rows']:,} held out "
        f"({facts['held_out_share']:.0%} of the tokens)" + (f"; {weights}" if weights else "")
    )
    if facts["near_copies_kept_together"]:
        listener.said(f"{facts['near_copies_kept_together']:,} near copies are kept on one side")
