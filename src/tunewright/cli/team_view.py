"""What the terminal shows of several agents: a line each, how they compare, how they are started."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tunewright.cli.lines import print_line, print_prose
from tunewright.cli.text import visible
from tunewright.evaluate.cross import BASE, sentence

COLUMNS = (
    "agent",
    "rows + held out",
    "loss",
    "transfer score",
    "ppl/base",
    "verdict",
    "gates",
    "version",
)
COLOURS = {"specialised": "green", "misplaced": "red", "shared": "yellow", "unknown": "dim"}


def summary(found: Mapping[str, Any]) -> None:
    """Print the table of agents and metrics, the cross matrix, what it says, and start lines."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column in ("agent", "verdict", "version"))
    for agent, of in found["agents"].items():
        table.add_row(*(escape(visible(cell)) for cell in cells(agent, of)))
    console.print(table)
    if "cross" in found:
        _cross(console, found["cross"])
    if found["start"]:
        console.print()
        for line in found["start"]:
            print_line(console, line if line.startswith("#") else f"Start: {line}")


def cells(agent: str, of: Mapping[str, Any]) -> Sequence[str]:
    """Return an agent's line of the table; what is not known is a dash."""
    score, ratio = of["transfer_score"], of["perplexity_ratio"]
    loss = of["best_eval_loss"]
    return (
        agent,
        "-" if of["rows"] is None else f"{of['rows']:,} + {of['heldout_rows']:,}",
        "-" if loss is None else f"{loss:.3f}",
        f"{score['score']:.0f} % ({score['low']:.0f} to {score['high']:.0f})" if score else "-",
        f"{ratio['value']:.2f}" if ratio else "-",
        "failed" if of["failed"] else of["verdict"] or "-",
        f"{of['gates_passed']}/{of['gates']}" if of["gates"] else "-",
        of["version"] or "-",
    )


def _cross(console: Console, found: Mapping[str, Any]) -> None:
    """Print the perplexity of each adapter on each agent's data; the own one stands in brackets."""
    agents: Sequence[str] = found["agents"]
    console.print()
    table = Table(box=None, pad_edge=False)
    for column in ("perplexity on the data of", *(f"adapter {agent}" for agent in agents), BASE):
        table.add_column(escape(visible(column)), overflow="fold", justify="right")
    for whose in agents:
        colour = COLOURS[found["specialisation"][whose]["finding"]]
        row = [escape(visible(whose))]
        for model in (*agents, BASE):
            value = f"{found['perplexity'][whose][model]:,.1f}"
            row.append(f"[{colour}]\\[{value}][/]" if model == whose else value)
        table.add_row(*row)
    console.print(table)
    for whose, one in found["specialisation"].items():
        print_prose(console, sentence(whose, one))
