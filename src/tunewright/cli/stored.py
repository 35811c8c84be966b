"""How a store and its versions look in the terminal."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table

from tunewright.cli import render
from tunewright.cli.lines import print_line, print_prose
from tunewright.cli.text import visible, visible_json
from tunewright.counting import counted
from tunewright.publish.versions.cleaning import Removed
from tunewright.publish.versions.difference import Difference
from tunewright.publish.versions.layout import Key
from tunewright.publish.versions.store import Version

NONE = "–"
HASH = 12
"""Characters of a hash that tell it from others."""
_HASHED = re.compile(r"([0-9a-f]{12})[0-9a-f]{28,52}((?:-dirty)?)")
LONG = 64
"""Characters after which a value is cut in a table that has two of them."""


def founded(root: Path, info: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a store says of itself."""
    if as_json:
        _json({"path": str(root), **info})
        return
    ways = {
        "hardlink": "equal files of several versions lie on the disk once",
        "copy": "each version has copies of its own, since there are no hard links, or by choice",
    }
    print_line(Console(), f"store: {root}")
    print_prose(
        Console(), f"Format {info['format']}; {ways.get(str(info['files']), info['files'])}."
    )


def folder(path: Path, *, as_json: bool) -> None:
    """Print a folder, and nothing else."""
    _json({"path": str(path)}) if as_json else _write(visible(path))


def versions(found: Sequence[Version], *, as_json: bool) -> None:
    """Print the versions of a store."""
    if as_json:
        _json({"versions": [vars(v) for v in found]})
        return
    table = Table("agent", "adapter", "version", "aliases", "verdict", "size", "base", box=None)
    table.columns[2].no_wrap = True
    table.columns[-1].overflow = "fold"
    for v in found:
        names = ", ".join([*(["current"] if v.current else []), *v.aliases])
        verdict = v.verdict + ("" if v.forced is None else " (forced)")
        size = f"{v.size_bytes / 1e6:,.1f} MB"
        cells = (v.agent, v.adapter, v.version, names, verdict, size, v.base)
        table.add_row(*(escape(visible(cell)) for cell in cells))
    console = Console()
    console.print(table if found else "The store is empty.")
    for v in found:
        if v.forced is not None:
            reason = v.forced or "no reason was given"
            print_prose(console, f"{v.agent}/{v.adapter}/{v.version} was forced: {reason}")


def version(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a version is."""
    if as_json:
        _json(found)
        return
    console = Console()
    place, base = found["store"], found["base"]
    data: Mapping[str, Any] = found["dataset"] or {}
    names = ", ".join([*(["current"] if place["current"] else []), *place["aliases"]])
    print_line(console, f"{found['agent']}/{found['adapter']}/{found['version']}")
    if found["forced"] is not None:
        _forced(console, found["forced"])
    revision = f" at {base.get('revision')}" if base.get("revision") else ""
    lines = {
        "created": found["created"],
        "aliases": names or "none",
        "base": f"{base.get('name')}{revision}, files hashed: {len(base.get('files') or {})}",
        "data": f"{_sides(data)}, hash {str(data.get('digest', NONE))[:HASH]}",
        "template": str(found["chat_template_sha256"] or NONE)[:HASH],
        "commit": found["commit"] or NONE,
        "size": f"{place['bytes'] / 1e6:,.1f} MB in {counted(len(found['files']), 'file')}",
        "folder": place["path"],
        "made with": ", ".join(
            f"{name} {found['libraries'][name]}"
            for name in ("tunewright", "torch", "transformers", "peft")
            if name in found["libraries"]
        ),
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in (lines | _metrics(found["metrics"])).items():
        table.add_row(name, escape(visible(value)))
    console.print(table)
    print_prose(console, f"Verdict: {found['verdict'] or NONE}. {found['sentence'] or ''}".strip())
    render.gates(console, [(s, gate) for s, gates in found["gates"].items() for gate in gates])


def _forced(console: Console, forced: Mapping[str, Any]) -> None:
    print_prose(console, f"FORCED: {forced.get('reason') or 'no reason was given'}")
    for message in forced.get("refused", ()):
        print_prose(console, f"- {message}")


def _sides(data: Mapping[str, Any]) -> str:
    """Return rows and tokens of both sides in words."""
    sides: Mapping[str, Mapping[str, Any]] = data.get("sides") or {}
    words = [
        f"{_count(sides[side].get('rows'))} rows and {_count(sides[side].get('tokens'))} tokens {what}"
        for side, what in (("train", "to learn from"), ("eval", "held out"))
        if side in sides
    ]
    return ", ".join(words) or "counts are not known"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else NONE


def _metrics(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures that a reader looks for first; `--json` has all."""
    found: dict[str, str] = {}
    loss, step = _at(metrics, "adapter", "best_eval_loss"), _at(metrics, "adapter", "best_step")
    if _is_number(loss):
        found["held-out loss"] = f"{loss:.3f} at step {step}"
    transfer = [_at(metrics, "evaluation", "transfer_score", n) for n in ("score", "low", "high")]
    if _is_number(transfer[0]):
        known = all(_is_number(end) for end in transfer[1:])
        interval = f" ({transfer[1]:.0f} to {transfer[2]:.0f})" if known else ""
        found["transfer score"] = f"{transfer[0]:.0f} %{interval}"
    heldout = ("evaluation", "perplexity", "heldout")
    base, tuned = (_at(metrics, *heldout, side, "value") for side in ("base", "tuned"))
    if _is_number(base) and _is_number(tuned):
        found["perplexity"] = f"{base:,.1f} of the base, {tuned:,.1f} tuned, on held-out text"
    copied = _at(metrics, "evaluation", "memorisation", "longest_words")
    if _is_number(copied):
        found["longest copy"] = f"{copied} words"
    return found


def _at(values: Any, *path: str) -> Any:
    """Return what is at the end of a path of keys; None where it ends before."""
    for key in path:
        values = cast("dict[str, Any]", values).get(key) if isinstance(values, dict) else None
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def difference(one: Key, other: Key, found: Sequence[Difference], *, as_json: bool) -> None:
    """Print what differs between two versions, side by side."""
    if as_json:
        rows = [vars(d) for d in found]
        _json({"one": str(one), "other": str(other), "differences": rows})
        return
    console = Console()
    if not found:
        print_line(console, f"{one} and {other}: no difference.")
        return
    titles = [str(one), str(other)]
    if (one.agent, one.adapter) == (other.agent, other.adapter):
        titles = [one.version, other.version]
        print_line(console, f"{one.agent}/{one.adapter}")
    for section in dict.fromkeys(d.section for d in found):
        console.print(Rule(section, align="left", style="dim"))
        table = Table(box=None, pad_edge=False)
        for column in ("", *titles):
            table.add_column(column, overflow="fold")
        for d in found:
            if d.section == section:
                cells = (d.name, _value(d.one), _value(d.other))
                table.add_row(*(escape(visible(cell)) for cell in cells))
        console.print(table)


def _value(value: object) -> str:
    if value is None:
        return NONE
    if hashed := _HASHED.fullmatch(str(value)):
        return hashed[1] + hashed[2]
    if isinstance(value, list):
        return "; ".join(str(item) for item in cast("list[object]", value))
    text = f"{value:,.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def verified(found: Sequence[Version], *, as_json: bool) -> None:
    """Print that all is whole."""
    if as_json:
        _json({"whole": True, "versions": len(found)})
        return
    print_line(
        Console(),
        f"{counted(len(found), 'version is as it was', 'versions are as they were')} published.",
    )


def aliased(agent: str, name: str, key: Key | None, *, as_json: bool) -> None:
    """Print what an alias stands for now."""
    if as_json:
        _json({"agent": agent, "alias": name, "version": None if key is None else vars(key)})
        return
    print_line(Console(), f"{agent}@{name} is {'gone' if key is None else key}")


def going(keys: Sequence[Key]) -> None:
    """Print the versions that are about to go."""
    for key in keys:
        print_line(Console(), f"version {key}")


def removed(found: Removed, *, dry_run: bool, as_json: bool) -> None:
    """Print what has gone, or would go."""
    if as_json:
        _json({**vars(found), "versions": [vars(k) for k in found.versions], "dry_run": dry_run})
        return
    done = "would be removed" if dry_run else "removed"
    counts = (
        (found.versions, "version", ""),
        (found.drafts, "rest", " of publishers that died"),
        (found.blobs, "file", " of no version"),
    )
    words = [f"{counted(len(t), what)}{rest}" for t, what, rest in counts]
    text = ", ".join(words)
    print_prose(Console(), f"{text} {done}: {found.freed_bytes / 1e6:,.1f} MB.")


def _json(values: Mapping[str, Any]) -> None:
    _write(visible_json(values))


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
