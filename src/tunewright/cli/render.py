"""What the terminal shows: progress on stderr, results on stdout. The only user of rich."""

import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from tunewright.artifacts import Artifact
from tunewright.cli.text import visible, visible_json
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener
from tunewright.machine import process_rank
from tunewright.pipeline import Outcome
from tunewright.publish import Pushed
from tunewright.publish.store import Version

ROOMY = 110
"""Columns of a terminal that has room for wide bars."""


@contextmanager
def progress() -> Generator[Listener]:
    """Give a listener: bars in a terminal, a line a stage otherwise; of several processes the first tells."""
    if process_rank():
        yield SILENT
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24 if console.width >= ROOMY else 8),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        # It takes what the others leave, and loses its end where that is too little.
        TextColumn(
            "{task.fields[detail]}",
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            markup=False,
            style="dim",
        ),
    )
    with Progress(*columns, console=console, expand=True) as bars:
        listener = Bars(bars)
        yield listener
        listener.finish()


class Lines:
    """Listener for logs: what is said, and when a stretch begins."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """Print a line."""
        size = f" ({total} {unit})" if total else ""
        self._console.print(
            f"{time.strftime('%H:%M:%S')} {stage}{size}", highlight=False, markup=False
        )

    def advanced(self, done: int, detail: str) -> None:
        """Stay quiet: a log has no use for every step."""

    def said(self, text: str) -> None:
        """Print it."""
        _line(self._console, f"         {text}")


class Bars:
    """Listener for a terminal: one bar a stretch."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """Open a bar, the one before is done."""
        self.finish()
        self._task = self._bars.add_task(stage, total=total, unit=unit, detail="")

    def advanced(self, done: int, detail: str) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, detail=visible(detail))

    def said(self, text: str) -> None:
        """Print above the bars."""
        self._bars.console.print(f"  [dim]{escape(visible(text))}", highlight=False)

    def finish(self) -> None:
        """Fill the current bar: early stopping and unknown totals end before it is full."""
        if self._task is None:
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        total = task.completed or task.total or 1
        self._bars.update(self._task, total=total, completed=total)
        self._task = None


def artifact(made: Artifact, *, as_json: bool) -> None:
    """Print what a stage has made."""
    if as_json:
        facts({"path": str(made.path), "kind": made.kind, "facts": made.facts}, as_json=True)
        return
    console = Console()
    if made.kind == "dataset":
        _dataset(console, made.facts)
    if made.kind == "plan":
        _plan(console, made.facts)
    if made.facts.get("gates"):
        console.print(_gates([(made.kind, gate) for gate in made.facts["gates"]]))
    for name in ("sentence", "advice"):
        if made.facts.get(name):
            console.print(visible(made.facts[name], keep="\n"), markup=False, highlight=False)
    _line(console, f"{made.kind}: {made.path}")


def _dataset(console: Console, found: Mapping[str, Any]) -> None:
    """Print sizes of both sides, and how long the answers are."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "rows", "words", "tokens"):
        table.add_column(column, justify="right" if column else "left")
    for side, name in (("train", "train"), ("eval", "held out")):
        table.add_row(
            name, *(f"{found[f'{side}_{unit}']:,}" for unit in ("rows", "words", "tokens"))
        )
    console.print(table)
    lengths = found["lengths"]
    line = (
        f"tokens an answer: {lengths['min']:,} to {lengths['max']:,}, mean {lengths['mean']:,}, "
        f"median {lengths['median']:,.0f}   {sparkline(lengths['counts'])}"
    )
    console.print(line, markup=False, highlight=False)
    for count, what in (
        (found["dropped_lines"], "lines in no row: dropped.jsonl"),
        (found["rejected_rows"], "rows that cannot be used: rejected.jsonl"),
    ):
        if count:
            console.print(f"{count:,} {what}", markup=False, highlight=False)


def _plan(console: Console, found: Mapping[str, Any]) -> None:
    """Print rows as they are trained on, memory by part, choices with reasons, and what it all takes."""
    for row in found["samples"]:
        _row(console, row)
    console.print()
    table = Table(box=None, pad_edge=False)
    table.add_column("memory")
    table.add_column("MB", justify="right")
    for part, size in found["memory_bytes"].items():
        table.add_row(part, f"{size / 1e6:,.0f}")
    console.print(table)
    for choice in found["choices"]:
        _line(console, f"{choice['name']}: {choice['value']}, since {choice['reason']}")
    shown = (
        f"{found['rows']:,} rows, {found['trained_tokens_an_epoch']:,} of {found['tokens_an_epoch']:,} tokens "
        f"to be learned; {found['rows_cut']:,} rows cut, {found['rows_dropped']:,} left out, "
        f"{found['tokens_lost']:,} tokens lost",
        f"{found['trainable_parameters']:,} of {found['base_parameters']:,} parameters are trained",
        f"{found['steps']:,} steps, evaluated every {found['eval_steps']:,}, saved every {found['save_steps']:,}",
        f"about {found['seconds']:,.0f} s, from {found['seconds_from']}",
        f"RAM: merge {found['ram_bytes']['merge'] / 1e6:,.0f} MB, export "
        f"{found['ram_bytes']['export'] / 1e6:,.0f} MB; {found['ram_free_bytes'] / 1e6:,.0f} MB are free",
    )
    for text in shown:
        _line(console, text)
    if found["largest_micro_batch"]:
        _line(console, f"rows that would fit at once: {found['largest_micro_batch']:,}")
    if found["expect"]:
        _line(console, found["expect"])


def checked(found: Mapping[str, Any], *, show: int) -> None:
    """Print what a check found: files, figures, gates, warnings, and rows with the mask visible."""
    console = Console()
    for file in found.get("files", ()):
        forms = "; ".join(f"{name}: {count:,} rows" for name, count in file["forms"].items())
        line = f"{file['name']}: {file['reason']}{'; ' if forms else ''}{forms}"
        _line(console, line)
    for note in found.get("notes", ()):
        _line(console, f"note: {note}")
    if found.get("rejected_rows"):
        _rejected(console, found)
    if "rows_written" in found:
        facts({key: value for key, value in found.items() if key != "notes"}, as_json=False)
    if "lengths" in found:
        _figures(console, found)
    if found.get("gates"):
        console.print(_gates([("check", gate) for gate in found["gates"]]))
    for kind in found.get("warnings", ()):
        _warning(console, kind)
    for row in found.get("rendered", ())[:show]:
        _row(console, row)
    if "path" in found and "gates" in found:
        _line(console, f"check: {found['path']}")


def _rejected(console: Console, found: Mapping[str, Any]) -> None:
    """Print how many rows cannot be used, and why."""
    reasons: Mapping[str, int] = found.get("rejected_reasons", {})
    _line(console, f"rows that cannot be used: {found['rejected_rows']:,}")
    for reason, count in reasons.items():
        _line(console, f"  {count:,}: {reason}")


def _line(console: Console, text: str) -> None:
    """Print a line as it is; what a terminal would obey is shown as an escape."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def _figures(console: Console, found: Mapping[str, Any]) -> None:
    lengths = found["lengths"]
    shares = {name: f"{share:.0%}" for name, share in found["languages"].items()}
    languages = ", ".join(f"{name} {share}" for name, share in shares.items() if share != "0%")
    limited = bool(found["rows_cut"])
    kept = f" ({found['rows_kept']:,} within the length limit)" if limited else ""
    lines = (
        f"{found['rows']:,} rows{kept}, {found['tokens']:,} tokens, "
        f"{found['trained_tokens']:,} to be learned"
        + (f"; language: {languages}" if languages else ""),
        f"tokens a row{' before the limit' if limited else ''}: {lengths['min']:,} to {lengths['max']:,}, mean {lengths['mean']:,}, "
        f"median {lengths['median']:,.0f}   {sparkline(lengths['counts'])}",
        f"copies: {found['exact_duplicates']:,} exact, {found['near_duplicates']:,} near; "
        f"the end is learned in {found['rows_with_end']:,} of {found['rows']:,} rows",
    )
    for line in lines:
        _line(console, line)


def sparkline(counts: Sequence[int]) -> str:
    """Return a histogram in one line of text; a bin that is not empty has at least the lowest bar."""
    top = max(counts, default=0) or 1
    return "".join(" ▁▂▃▄▅▆▇█"[max(round(8 * c / top), min(c, 1))] for c in counts)


def _warning(console: Console, kind: Mapping[str, Any]) -> None:
    first = kind["first"][0]
    label = f"WARNING {kind['code']}"
    console.print(f"[yellow]{label}[/]: {escape(visible(first['message']))}", highlight=False)
    more = f" and {kind['count'] - 1:,} more" if kind["count"] > 1 else ""
    lines = (f"where: {first['where']}{more}", f"fix: {first['fix']}")
    for line in lines:
        _line(console, line)


def _row(console: Console, row: Mapping[str, Any]) -> None:
    """Print a row; what is learned is green, or in double brackets where there is no colour."""
    text = Text()
    for run in row["runs"]:
        learned, shown = run["learned"], visible(run["text"], keep="\n\t")
        plain = not console.is_terminal or console.no_color
        mark = f"[[{shown}]]" if learned and plain else shown
        text.append(mark, style="bold green" if learned else "dim")
    console.print()
    lost = f" ({row['tokens_lost']:,} tokens are lost)" if row["tokens_lost"] else ""
    _line(console, row["where"] + lost)
    console.print(text, soft_wrap=True)


def pushed(made: Pushed, *, as_json: bool) -> None:
    """Print what was uploaded, or would be."""
    if as_json:
        facts({"url": made.url, "commit": made.commit, "files": dict(made.files)}, as_json=True)
        return
    console = Console()
    for name, size in made.files.items():
        _line(console, f"{size:>12,} bytes  {name}")
    done = f"commit {made.commit}" if made.commit else "nothing is uploaded: a dry run"
    _line(console, f"{made.url}: {done}")


def line(text: str) -> None:
    """Print a line of the result."""
    _line(Console(), text)


def facts(values: Mapping[str, Any], *, as_json: bool) -> None:
    """Print names and values."""
    if as_json:
        sys.stdout.write(visible_json(values) + "\n")
        return
    for name, value in values.items():
        sys.stdout.write(f"{name.replace('_', ' ')}: {visible(value)}\n")


def outcomes(config: Config, done: Sequence[Outcome], *, as_json: bool) -> None:
    """Print what a run has proven, its verdict, and what to type next."""
    if as_json:
        rows = [
            {
                "stage": o.stage,
                "skipped": o.skipped,
                "seconds": round(o.seconds, 2),
                "path": str(o.artifact.path),
                "gates": o.artifact.facts.get("gates", []),
            }
            for o in done
        ]
        facts({"run": config.run_dir, "stages": rows}, as_json=True)
        return
    console = Console()
    console.print(_gates([(o.stage, g) for o in done for g in o.artifact.facts.get("gates", [])]))
    skipped = [o.stage for o in done if o.skipped]
    if skipped:
        console.print(f"Finished before, skipped: {', '.join(skipped)}.", highlight=False)
    made = {o.artifact.kind: o.artifact for o in done}
    if "evaluation" in made:
        found = made["evaluation"].facts
        console.print(f"\n{found['sentence']}\n{found['advice']}", markup=False, highlight=False)
    if "report" in made:
        console.print(
            f"\nReport: {made['report'].path / 'report.html'}", highlight=False, soft_wrap=True
        )
    if "exported" in made:
        console.print(f"Next:   tunewright chat {config.run_dir}", highlight=False, soft_wrap=True)


def versions(found: Sequence[Version], *, as_json: bool) -> None:
    """Print the versions of a store."""
    if as_json:
        facts({"versions": [vars(v) for v in found]}, as_json=True)
        return
    table = Table("agent", "adapter", "version", "verdict", "size", "base", box=None)
    for v in found:
        mark = " (current)" if v.current else ""
        size = f"{v.size_bytes / 1e6:,.1f} MB"
        cells = (v.agent, v.adapter, v.version + mark, v.verdict, size, v.base)
        table.add_row(*(escape(visible(cell)) for cell in cells))
    Console().print(table if found else "The store is empty.")


def ask() -> str | None:
    """Return the user's line, or None at the end."""
    try:
        line = Console(stderr=True).input("[bold]you> [/]").strip()
    except EOFError:
        return None
    return line or None


def say(piece: str) -> None:
    """Show a piece of an answer at once."""
    sys.stdout.write(visible(piece, keep="\n\t"))
    sys.stdout.flush()


def _gates(gates: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "stage", "proven", "value", "limit"):
        table.add_column(column, overflow="fold")
    for stage, gate in gates:
        mark = "[green]✓[/]" if gate["passed"] else "[red]✗[/]"
        cells = (escape(visible(gate[key])) for key in ("gate", "value", "limit"))
        table.add_row(mark, stage, *cells)
    return table
