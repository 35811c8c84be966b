"""What the terminal shows of how runs stand."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from tunewright.cli import render
from tunewright.cli.lines import print_line, print_prose
from tunewright.cli.text import visible
from tunewright.pipeline import because
from tunewright.pipeline.status import RunStatus, StageStatus, Tried
from tunewright.pipeline.status import as_json as values
from tunewright.train.history import clock

NONE = "–"
COLOURS = {
    "done": "green",
    "running": "cyan",
    "outdated": "yellow",
    "interrupted": "yellow",
    "refused": "red",
}
SAID = {"skip": "skip (nothing changed)", "do": "do", "again": "do again"}


def shown(found: RunStatus | list[RunStatus], *, as_json: bool) -> None:
    """Print the table of a run's stages, or of several runs a line each."""
    if as_json:
        several = isinstance(found, list)
        json = {"runs": [values(one) for one in found]} if several else values(found)
        render.facts(json, as_json=True)
    elif isinstance(found, list):
        _runs(Console(), found)
    else:
        _run(Console(), found)


def _run(console: Console, found: RunStatus) -> None:
    print_line(console, found.run)
    table = _table("stage", "state", "when", "took", "size", "gates")
    for one in found.stages:
        gates = f"{one.gates_passed} of {one.gates}" if one.gates else NONE
        table.add_row(one.stage, _state(one.state), _when(one), _took(one), _size(one), gates)
    console.print(table)
    for one in found.stages:
        if one.process:
            by = f"process {one.process.pid} on {one.process.host} since {one.process.since}"
            print_prose(console, f"{one.stage} is running: {by}.")
        elif one.reasons:
            print_prose(console, f"{one.stage} is {one.state}: {because(one.reasons)}.")
    if found.verdict:
        print_line(console, f"Verdict: {found.verdict}.")
    if found.next:
        print_line(console, f"Next: {found.next}")


def _runs(console: Console, found: Sequence[RunStatus]) -> None:
    table = _table("run", "done", "stands", "verdict", "last", "size")
    for one in found:
        if one.fault:
            table.add_row(escape(visible(one.run)), NONE, "[red]unreadable[/]")
            continue
        done = [stage for stage in one.stages if stage.state == "done"]
        last = max((stage.created or "" for stage in one.stages), default="")
        size = decimal(sum(stage.size_bytes for stage in one.stages))
        table.add_row(
            escape(visible(one.run)),
            f"{len(done)} of {len(one.stages)}",
            _stands(one),
            one.verdict or NONE,
            _local(last) if last else NONE,
            size,
        )
    console.print(table)
    for one in found:
        if one.fault:
            print_prose(console, f"{one.run}: {one.fault}")


def tried(found: Mapping[str, Sequence[Tried]], *, as_json: bool) -> None:
    """Print what a run would do, or each of several, by its folder."""
    if as_json:
        runs = [
            {
                "run": run,
                "stages": [
                    {"stage": one.stage, "would": one.would, "because": one.reasons}
                    for one in stages
                ],
            }
            for run, stages in found.items()
        ]
        render.facts(runs[0] if len(runs) == 1 else {"runs": runs}, as_json=True)
        return
    console = Console()
    for run, stages in found.items():
        if len(found) > 1:
            print_line(console, run)
        width = max((len(one.stage) for one in stages), default=0)
        for one in stages:
            since = f", because: {because(one.reasons)}" if one.reasons else ""
            print_prose(console, f"{one.stage:<{width}}  {SAID[one.would]}{since}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        side = "right" if column in ("took", "size") else "left"
        table.add_column(column, justify=side, overflow="fold")
    return table


def _state(state: str) -> str:
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state


def _stands(found: RunStatus) -> str:
    """Return what is told of a run in a word: what runs, else the first stage that is not done."""
    for state in ("running", "interrupted", "outdated", "refused", "missing"):
        for one in found.stages:
            if one.state == state:
                return _state(state) + f": {one.stage}"
    return _state("done")


def _when(one: StageStatus) -> str:
    return _local(one.created) if one.created else NONE


def _local(created: str) -> str:
    moment = datetime.fromisoformat(created).timestamp()
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _took(one: StageStatus) -> str:
    if one.seconds is None:
        return NONE
    return f"{one.seconds:.1f} s" if one.seconds < 60 else clock(one.seconds)


def _size(one: StageStatus) -> str:
    return decimal(one.size_bytes) if one.size_bytes else NONE
