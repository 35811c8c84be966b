"""The command that looks at this machine."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunewright.cli.options import JSON
from tunewright.errors import Problem, TunewrightError

if TYPE_CHECKING:
    from tunewright.doctor import Finding

MARKS = {"good": "✓", "note": "–", "bad": "✗"}


@click.command()
@click.option("--store", type=click.Path(path_type=Path), help="Folder of the model store.")
@click.option("--offline", is_flag=True, help="Do not ask the Hub.")
@JSON
def doctor(store: Path | None, offline: bool, as_json: bool) -> None:
    """Look at this machine: packages, devices, tools, disks, the Hub, the store; and say what to mend.

    Exit code 1: something has to be mended.

    Example: tunewright doctor
    """
    from tunewright.cli import render
    from tunewright.doctor import examine

    with render.progress() as listener:
        listener.said("Looking at this machine.")
        findings = list(examine(store, hub=not offline))
    problems = [Problem("E_MACHINE", f.text, f.name, f.fix) for f in findings if f.state == "bad"]
    details = {"findings": [asdict(f) for f in findings]}
    if not as_json:
        _show(findings)
    if problems:
        raise TunewrightError(problems, details)
    if as_json:
        render.facts(details, as_json=True)


def _show(findings: Sequence["Finding"]) -> None:
    """Print a line for each finding, with what to do below it, and a verdict."""
    from rich.console import Console

    from tunewright.cli.lines import print_line, print_prose

    console = Console()
    width = max(len(f.name) for f in findings)
    area = ""
    for f in findings:
        if f.area != area:
            area = f.area
            print_line(console, area)
        print_line(console, f"  {MARKS[f.state]} {f.name:<{width}}  {f.text}")
        if f.fix and f.state != "bad":
            print_line(console, f"    {'':<{width}}  {f.fix}")
    bad = sum(f.state == "bad" for f in findings)
    if not bad:
        text = "This machine is ready. What has a dash is only needed for what stands beside it."
        print_prose(console, text)
