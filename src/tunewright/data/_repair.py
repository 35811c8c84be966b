"""Data repaired into a folder of its own: what can be put right without guessing."""

import secrets
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.config.schema import Config
from tunewright.data._check import place_in_source, tokenizer_of
from tunewright.data._gather import collect
from tunewright.data._sides import Sides, find_links
from tunewright.data.near._links import EXACT, WORDS
from tunewright.data.spool import Rows, Spool
from tunewright.errors import TunewrightError, failure
from tunewright.events import Listener
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
        gathered, _ = collect(config, tokenizer_of(config), work, listener)
        if gathered.broken:
            raise TunewrightError(gathered.broken)
        if not len(gathered):
            raise failure(
                "E_DATA_EMPTY", "No row can be used.", where=config.prepare.source[0].path
            )
        counts: Counter[str] = Counter()
        with Rows(gathered.rows.path) as rows:
            sides = Sides({"": rows}, place_in_source, out)
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
        "notes": gathered.notes,
    }


def _copies(
    sides: Sides, work: Path, threshold: float, listener: Listener
) -> dict[int, tuple[str, int]]:
    """Return each row that is a copy of an earlier one that stays: its kind, and the earlier row."""
    found = find_links(sides, work, threshold, listener)
    copies: dict[int, tuple[str, int]] = {}
    for (one, other), kind in zip(found.pairs.tolist(), found.kinds.tolist(), strict=True):
        if one not in copies:
            copies.setdefault(other, ("exact" if kind in (EXACT, WORDS) else "near", one))
    return copies


def _write(
    sides: Sides,
    copies: dict[int, tuple[str, int]],
    draft: Path,
    counts: Counter[str],
    listener: Listener,
) -> None:
    kept, changes = Spool(draft / "rows.jsonl"), Spool(draft / "changes.jsonl")

    def changed(where: str, what: str) -> None:
        changes.add({"where": where, "change": what})

    listener.started("write", len(sides), "rows")
    for number, (where, row) in enumerate(sides):
        if number in copies:
            kind, first = copies[number]
            counts[kind] += 1
            words = "a copy" if kind == "exact" else "a near copy"
            changed(where, f"left out: {words} of the row at {sides.place(first)}")
            continue
        own = {key: value for key, value in row.items() if key not in ("source", "line")}
        clean = _redacted(own, lambda kind, at=where: changed(at, f"blacked out: {kind}"), counts)
        kept.add({**clean, "origin": where})
        counts["written"] += 1
        listener.advanced(number + 1, "")
    kept.close()
    changes.close()


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
