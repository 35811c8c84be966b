"""What the terminal shows of results, on stdout."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tunewright.artifacts import MAKERS, Artifact, Kind
from tunewright.cli import evaluation
from tunewright.cli.lines import print_line, print_prose
from tunewright.cli.progress import progress as progress
from tunewright.cli.text import visible, visible_json
from tunewright.config.schema import Config
from tunewright.counting import counted
from tunewright.events import in_words
from tunewright.pipeline import Outcome
from tunewright.publish import Pushed
from tunewright.publish.versions.manifest import BAD_VERDICTS

NARROW = 60
"""Columns under which a table of gates cannot be read."""
NEXT: Mapping[Kind, str] = {
    "dataset": "check",
    "check": "train",
    "plan": "train",
    "adapter": "compare",
    "evaluation": "merge",
    "merged": "export",
    "exported": "chat",
    "published": "report",
}
"""The command that follows an artifact, when stages are run one at a time."""


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
    if made.kind == "evaluation":
        evaluation.shown(console, made)
    if made.facts.get("gates"):
        gates(console, [(_stage(made.kind), gate) for gate in made.facts["gates"]])
    if made.kind == "evaluation":
        evaluation.verdict(console, made.facts)
    print_line(console, f"{made.kind}: {made.path}")
    # What is compared beside the adapter lies elsewhere, and nothing follows it.
    if made.facts.get("verdict", "") not in BAD_VERDICTS and made.path.name == made.kind:
        _next(console, made.kind, made.path.parent, made.facts.get("gates", ()))


def _stage(kind: Kind) -> str:
    """Return the stage that makes an artifact, as its command is named."""
    return MAKERS[kind].removeprefix("tunewright ")


def _next(console: Console, kind: Kind, run: Path, gates: Sequence[Mapping[str, Any]]) -> None:
    """Print what to type next, where nothing has failed."""
    if kind in NEXT and all(gate["passed"] for gate in gates):
        print_line(console, f"Next: tunewright {NEXT[kind]} {shlex.quote(str(run))}")


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
    _rows(console, found["samples"])
    console.print()
    table = Table(box=None, pad_edge=False)
    table.add_column("memory")
    table.add_column("MB", justify="right")
    for part, size in found["memory_bytes"].items():
        table.add_row(part, f"{size / 1e6:,.0f}")
    console.print(table)
    for choice in found["choices"]:
        print_prose(console, in_words(choice))
    shown = (
        f"{counted(found['rows'], 'row')}, {found['trained_tokens_an_epoch']:,} of {found['tokens_an_epoch']:,} tokens "
        f"to be learned; {counted(found['rows_cut'], 'row')} cut, {found['rows_dropped']:,} left out, "
        f"{counted(found['tokens_lost'], 'token')} lost",
        f"{found['trainable_parameters']:,} of {found['base_parameters']:,} parameters are trained",
        f"{counted(found['steps'], 'step')}, evaluated every {found['eval_steps']:,}, saved every {found['save_steps']:,}",
        f"about {found['seconds']:,.0f} s, from {found['seconds_from']}",
        f"RAM: merge {found['ram_bytes']['merge'] / 1e6:,.0f} MB, export "
        f"{found['ram_bytes']['export'] / 1e6:,.0f} MB; {found['ram_free_bytes'] / 1e6:,.0f} MB are free",
    )
    for text in shown:
        print_prose(console, text)
    if found["largest_micro_batch"]:
        text = f"of the rows of a step {found['largest_micro_batch']:,} would fit at a time"
        print_line(console, text)
    if found["expect"]:
        print_prose(console, found["expect"])


def checked(found: Mapping[str, Any], *, show: int) -> None:
    """Print what a check found: files, figures, gates, warnings, and rows with the mask visible."""
    console = Console()
    for file in found.get("files", ()):
        forms = "; ".join(
            f"{name}: {counted(count, 'row')}" for name, count in file["forms"].items()
        )
        line = f"{file['name']}: {file['reason']}{'; ' if forms else ''}{forms}"
        print_line(console, line)
    for note in found.get("notes", ()):
        print_prose(console, f"note: {note}")
    if found.get("rejected_rows"):
        _rejected(console, found)
    if "rows_written" in found:
        facts({key: value for key, value in found.items() if key != "notes"}, as_json=False)
    if "lengths" in found:
        _figures(console, found)
    if found.get("gates"):
        gates(console, [("check", gate) for gate in found["gates"]])
    for kind in found.get("warnings", ()):
        _warning(console, kind)
    _rows(console, found.get("rendered", ())[:show])
    if "path" in found and "gates" in found:
        print_line(console, f"check: {found['path']}")
        _next(console, "check", Path(found["path"]).parent, found["gates"])


def _rejected(console: Console, found: Mapping[str, Any]) -> None:
    """Print how many rows cannot be used, and why."""
    reasons: Mapping[str, int] = found.get("rejected_reasons", {})
    print_line(console, f"rows that cannot be used: {found['rejected_rows']:,}")
    for reason, count in reasons.items():
        print_line(console, f"  {count:,}: {reason}")


def _figures(console: Console, found: Mapping[str, Any]) -> None:
    lengths = found["lengths"]
    shares = {name: f"{share:.0%}" for name, share in found["languages"].items()}
    languages = ", ".join(f"{name} {share}" for name, share in shares.items() if share != "0%")
    limited = bool(found["rows_cut"])
    kept = f" ({found['rows_kept']:,} within the length limit)" if limited else ""
    lines = (
        f"{counted(found['rows'], 'row')}{kept}, {counted(found['tokens'], 'token')}, "
        f"{found['trained_tokens']:,} to be learned"
        + (f"; language: {languages}" if languages else ""),
        f"tokens a row{' before the limit' if limited else ''}: {lengths['min']:,} to {lengths['max']:,}, mean {lengths['mean']:,}, "
        f"median {lengths['median']:,.0f}   {sparkline(lengths['counts'])}",
        f"copies: {found['exact_duplicates']:,} exact, {found['near_duplicates']:,} near; "
        f"the end is learned in {found['rows_with_end']:,} of {found['rows']:,} rows",
    )
    for line in lines:
        print_prose(console, line)


def sparkline(counts: Sequence[int]) -> str:
    """Return a histogram in one line of text; a bin that is not empty has at least the lowest bar."""
    top = max(counts, default=0) or 1
    return "".join(" ▁▂▃▄▅▆▇█"[max(round(8 * c / top), min(c, 1))] for c in counts)


def _warning(console: Console, kind: Mapping[str, Any]) -> None:
    first = kind["first"][0]
    label = f"WARNING {kind['code']}"
    console.print(f"[yellow]{label}[/]: {escape(visible(first['message']))}", highlight=False)
    more = f" and {kind['count'] - 1:,} more" if kind["count"] > 1 else ""
    print_line(console, f"where: {first['where']}{more}")
    print_prose(console, f"fix: {first['fix']}")


def _rows(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows; what is learned is green, or in double brackets where there is no colour."""
    plain = not console.is_terminal or console.no_color
    if rows:
        console.print()
        print_prose(
            console,
            "Rows as the model reads them; what it learns "
            + ("stands in [[double brackets]]." if plain else "is green."),
        )
    for row in rows:
        _row(console, row, plain=plain)


def _row(console: Console, row: Mapping[str, Any], *, plain: bool) -> None:
    text = Text()
    for run in row["runs"]:
        learned, shown = run["learned"], visible(run["text"], keep="\n\t")
        mark = f"[[{shown}]]" if learned and plain else shown
        text.append(mark, style="bold green" if learned else "dim")
    console.print()
    lost = (
        f" ({counted(row['tokens_lost'], 'token is', 'tokens are')} lost)"
        if row["tokens_lost"]
        else ""
    )
    print_line(console, row["where"] + lost)
    console.print(text, soft_wrap=True)


def pushed(made: Sequence[Pushed], *, as_json: bool) -> None:
    """Print what was uploaded, or would be."""
    if as_json:
        rows = [{"url": m.url, "commit": m.commit, "files": dict(m.files)} for m in made]
        facts({"pushed": rows}, as_json=True)
        return
    console = Console()
    for one in made:
        for name, size in one.files.items():
            print_line(console, f"{size:>14,} bytes  {name}")
        total = f"{counted(len(one.files), 'file')}, {sum(one.files.values()):,} bytes"
        done = f"commit {one.commit}" if one.commit else "nothing is uploaded: a dry run"
        print_line(console, f"{one.url}: {total}; {done}")


def line(text: str) -> None:
    """Print a line of the result."""
    print_line(Console(), text)


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
                "because": list(o.reasons),
                "seconds": round(o.seconds, 2),
                "path": str(o.artifact.path),
                "gates": o.artifact.facts.get("gates", []),
            }
            for o in done
        ]
        facts({"run": config.run_dir, "stages": rows}, as_json=True)
        return
    console = Console()
    gates(console, [(o.stage, g) for o in done for g in o.artifact.facts.get("gates", [])])
    made = {o.artifact.kind: o.artifact for o in done}
    if "evaluation" in made:
        console.print()
        evaluation.verdict(console, made["evaluation"].facts)
    if "report" in made:
        console.print(
            f"\nReport: {made['report'].path / 'report.html'}", highlight=False, soft_wrap=True
        )
    if "exported" in made:
        console.print(
            f"Next:   tunewright chat {shlex.quote(config.run_dir)}",
            highlight=False,
            soft_wrap=True,
        )


def gates(console: Console, found: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Print what was proven as a table, or as a list where the terminal is narrow."""
    if console.width < NARROW:
        for stage, gate in found:
            mark = "✓" if gate["passed"] else "✗"
            print_prose(
                console, f"{mark} {stage}: {gate['gate']}: {gate['value']}, limit {gate['limit']}"
            )
        return
    table = Table(box=None, pad_edge=False)
    for column in ("", "stage", "proven", "value", "limit"):
        table.add_column(column, overflow="fold")
    for stage, gate in found:
        mark = "[green]✓[/]" if gate["passed"] else "[red]✗[/]"
        cells = (escape(visible(gate[key])) for key in ("gate", "value", "limit"))
        table.add_row(mark, stage, *cells)
    console.print(table)
