"""How an evaluation looks in the terminal: tables of markers, answers, rubrics and checkpoints."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tunewright.artifacts import Artifact
from tunewright.cli.lines import print_line, print_prose
from tunewright.cli.text import visible

NONE = "–"
SIDES = ("base", "tuned", "author")
SHOWN, SHOWN_CHARACTERS = 2, 300
"""Answers that are printed, and how much of each."""


def shown(console: Console, made: Artifact) -> None:
    """Print some answers side by side, and every table that an evaluation has figures for."""
    facts = made.facts
    if facts.get("compared"):
        print_prose(console, "{tuned}, compared with {base}".format(**facts["compared"]))
    _samples(console, made.path / "samples.jsonl")
    for show, key in (
        (_markers, "markers"),
        (_answers, "answers"),
        (_rubrics, "rubrics"),
        (_checkpoints, "checkpoints"),
        (_judge, "judge"),
        (_spans, "memorisation"),
    ):
        if facts.get(key):
            show(console, facts[key])


def verdict(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the verdict, its reasons and the advice."""
    if "verdict" in facts:
        print_line(console, str(facts["verdict"]).upper())
    for text in (facts.get("meaning"), *(f"- {reason}" for reason in facts.get("reasons", ()))):
        if text:
            print_prose(console, text)
    if facts.get("advice"):
        print_prose(console, facts["advice"])


def _samples(console: Console, file: Path) -> None:
    """Print the first answers, those to the user's own prompts before others."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in sorted(rows, key=lambda row: row["scored"])[:SHOWN]:
        for name in ("prompt", "base", "tuned"):
            text = " ".join(str(row[name]).split())
            print_prose(console, f"{name + ':':<8}{_short(text)}")
        console.print()
    print_line(console, f"All {len(rows):,} answers: {file}")
    console.print()


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS].rstrip()} ..."


def _table(*columns: str) -> Table:
    """Return a table whose first column is text, the others numbers."""
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _markers(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    table = _table("style marker", *SIDES, "")
    for row in rows:
        name = f"{row['marker']}, {row['unit']}" if row["unit"] else row["marker"]
        values = [_number(row[side]) for side in SIDES]
        table.add_row(escape(visible(name)), *values, _arrow(row))
    console.print(table)
    print_prose(console, "→ closer to the author than the base is, ← further away")


def _arrow(row: Mapping[str, Any]) -> str:
    """Return whether tuned went towards the author."""
    if row["towards"] is None or row["tuned"] == row["base"]:
        return "="
    return "[green]→[/]" if row["towards"] else "[red]←[/]"


def _answers(console: Console, found: Mapping[str, Any]) -> None:
    table = _table("an answer", "base", "tuned", "tuned less base")
    change = found["difference"]
    for name, key, scale in (
        ("words", "words", 1),
        ("ends by itself, %", "ended", 100),
        ("distinct 3-grams, %", "distinct_3", 100),
    ):
        table.add_row(
            name,
            *(_interval(side.get(key), scale) for side in (found["base"], found["tuned"], change)),
        )
    console.print(table)


def _rubrics(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    table = _table("answers that pass, %", *SIDES)
    for row in rows:
        table.add_row(escape(visible(row["name"])), *(_interval(row[side], 100) for side in SIDES))
        for rule in row["rules"]:
            values = (_number(None if rule[s] is None else 100 * rule[s], 0) for s in SIDES)
            table.add_row(f"  {escape(visible(rule['rule']))}", *values)
    console.print(table)


def _checkpoints(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    table = _table(
        "step", "held-out loss", "transfer score", "longest copy, words", "copied 8-grams, %"
    )
    for row in rows:
        score = row["score"]
        interval = score and {"value": score["score"], "low": score["low"], "high": score["high"]}
        table.add_row(
            f"{row['step']:,}",
            _number(row["eval_loss"], 3),
            _interval(interval if score["score"] is not None else None, 1),
            f"{row['longest_words']:,}",
            _number(100 * row["copied_share"], 1),
        )
    console.print(table)


def _judge(console: Console, found: Mapping[str, Any]) -> None:
    if found["rate"] is None:
        text = (
            f"The judge '{found['model']}': none of its {found['unread']:,} answers names a side."
        )
    else:
        text = (
            f"The judge '{found['model']}' prefers tuned in {found['wins']:,} of {found['asked']:,} pairs and base in "
            f"{found['losses']:,}; ties {found['ties']:,}, unread {found['unread']:,}. Wins and half the ties: "
            f"{_interval(found['rate'], 100)} %."
        )
    print_prose(console, text)


def _spans(console: Console, found: Mapping[str, Any]) -> None:
    """Print the longest copy where it is longer than it may be."""
    if found["longest_words"] > found["limit_words"]:
        text = f"Copied, {found['longest_words']:,} words of {found['longest_source']}: {found['longest_text']}"
        print_prose(console, text)


def _interval(found: Mapping[str, float] | None, scale: float) -> str:
    if found is None:
        return NONE
    # Adding 0 makes a negative zero a plain one.
    value, low, high = (f"{round(scale * found[key]) + 0:,}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"
