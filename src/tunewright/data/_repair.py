"""Data repaired into a folder of its own: what can be put right without guessing."""

import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tunewright.config.schema import Config
from tunewright.data._check import placing, tokenizer_of
from tunewright.data._gather import collect, preferences
from tunewright.data._sides import Sides, find_links, is_copy
from tunewright.data.near._links import EXACT, NEAR
from tunewright.data.spool import Rows, Spool
from tunewright.errors import TunewrightError, failure
from tunewright.events import Listener
from tunewright.models.chat import messages_of
from tunewright.privacy import secrets_in


def repair(config: Config, out: Path, listener: Listener) -> dict[str, Any]:
    """Write the repaired rows; see the facade."""
    if out.exists():
        raise failure("E_EXISTS", "The folder is there already.", where=out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.parent / f".tmp-{out.name}-{secrets.token_hex(4)}"
    work = draft / "work"
    try:
        work.mkdir(parents=True)
        gathered, sources = collect(config, tokenizer_of(config), work, listener)
        problems = [*gathered.broken, *preferences(gathered)]
        if problems:
            raise TunewrightError(problems)
        if not len(gathered):
            raise failure(
                "E_DATA_EMPTY", "No row can be used.", where=config.prepare.source[0].path
            )
        counts: Counter[str] = Counter()
        with Rows(gathered.rows.path) as rows:
            sides = Sides({"": rows}, placing(sources), out)
            copies = _copies(sides, work, config.prepare.near_duplicate_threshold, listener)
            _write(sides, copies, draft, counts, listener)
        gathered.rejects.path.rename(draft / "rejected.jsonl")
        shutil.rmtree(work)
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {
        "path": str(out),
        "rows_read": len(gathered) + gathered.rejects.count,
        "rows_rejected": gathered.rejects.count,
        "rows_written": counts["written"],
        "exact_copies_left_out": counts["exact"],
        "near_copies_left_out": counts["near"],
        "secrets_blacked_out": counts["secret"],
        "notes": [*gathered.notes, *_applied(config)],
    }


def _applied(config: Config) -> list[str]:
    """Return which options the written rows have in them already."""
    options = config.prepare
    given = {
        "prepare.columns": bool(options.columns) or any(e.columns for e in options.source),
        "prepare.prompt_template": options.prompt_template is not None,
        "model.chat_template=alpaca": config.model.chat_template == "alpaca",
    }
    names = ", ".join(name for name, is_given in given.items() if is_given)
    return [f"applied in rows.jsonl, so leave it out when you use it: {names}"] if names else []


def _copies(
    sides: Sides, work: Path, threshold: float, listener: Listener
) -> dict[int, tuple[str, int]]:
    """Return each row that an earlier one makes needless: its kind, and the earlier row, which stays.

    These are exact copies, and near copies as a whole. Rows that differ in signs only, that answer
    another question in the same words, or that have another system message, stay.
    """
    found = find_links(sides, work, threshold, listener)
    copies: dict[int, tuple[str, int]] = {}
    for (one, other), kind in zip(found.pairs.tolist(), found.kinds.tolist(), strict=True):
        if one in copies or other in copies or kind not in (EXACT, NEAR):
            continue
        if kind == EXACT and is_copy(sides, one, other):
            copies[other] = ("exact", one)
        elif kind == NEAR and _system(sides.row(one)) == _system(sides.row(other)):
            copies[other] = ("near", one)
    return copies


def _system(row: Mapping[str, Any]) -> list[str]:
    return [m["content"] for m in messages_of(row) if m["role"] == "system"]


def _write(
    sides: Sides,
    copies: dict[int, tuple[str, int]],
    draft: Path,
    counts: Counter[str],
    listener: Listener,
) -> None:
    with (
        closing(Spool(draft / "rows.jsonl")) as kept,
        closing(Spool(draft / "changes.jsonl")) as changes,
    ):
        _write_rows(sides, copies, kept, changes, counts, listener)


def _write_rows(
    sides: Sides,
    copies: dict[int, tuple[str, int]],
    kept: Spool,
    changes: Spool,
    counts: Counter[str],
    listener: Listener,
) -> None:
    listener.started("write", len(sides), "rows")
    for number, (where, row) in enumerate(sides):
        own = {key: value for key, value in row.items() if key not in ("source", "line")}
        said: list[str] = []
        clean = _redacted(own, said.append, counts)
        if number in copies:
            kind, first = copies[number]
            counts[kind] += 1
            words = "a copy" if kind == "exact" else "a near copy"
            change = f"left out: {words} of the row at {sides.place(first)}"
            changes.add({"where": where, "change": change, "row": clean})
            continue
        for kind in said:
            changes.add({"where": where, "change": f"blacked out: {kind}"})
        kept.add({**clean, "origin": where})
        counts["written"] += 1
        listener.advanced(number + 1, "")


def _redacted(value: Any, changed: Callable[[str], None], counts: Counter[str]) -> Any:
    """Return the value with every secret in its texts replaced by its kind in brackets."""
    if isinstance(value, dict):
        return {key: _redacted(item, changed, counts) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, changed, counts) for item in value]
    if not isinstance(value, str):
        return value
    for secret in reversed(secrets_in(value)):
        value = f"{value[: secret.start]}[{secret.kind}]{value[secret.end :]}"
        changed(secret.kind)
        counts["secret"] += 1
    return value
