"""How a chat looks in the terminal."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tunewright.cli.text import visible

NARROW = 60
"""Columns under which two answers do not fit side by side."""
SIDES = ("base", "tuned")
KEPT = "\n\t"
"""Characters of an answer that a terminal may obey."""


def ask() -> str | None:
    """Return the user's line, or None at the end."""
    try:
        line = Console(stderr=True).input("[bold]you> [/]").strip()
    except EOFError:
        return None
    return line or None


def say(piece: str) -> None:
    """Show a piece of an answer at once."""
    sys.stdout.write(visible(piece, keep=KEPT))
    sys.stdout.flush()


@contextmanager
def columns(console: Console | None = None) -> Generator[Callable[[str, str], None]]:
    """Give a function that shows whose answer it is told, and a piece of it; an empty piece ends the answer.

    In a terminal both are side by side, elsewhere one after the other.
    """
    console = console or Console()
    if not console.is_terminal or console.width < NARROW:
        yield _one_after_the_other()
        return
    shown = _Columns(console)
    try:
        yield shown
    finally:
        shown.end()


def _one_after_the_other() -> Callable[[str, str], None]:
    begun: list[str] = []

    def tell(side: str, piece: str) -> None:
        if side not in begun:
            begun.append(side)
            say(f"{side}> ")
        if not piece:
            begun.remove(side)
        say(piece or "\n")

    return tell


class _Columns:
    """Two answers that grow in two columns."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._texts: dict[str, str] = {}
        self._live: Live | None = None

    def __call__(self, side: str, piece: str) -> None:
        """Show a piece of an answer; the last side's end is the end of both."""
        if self._live is None:
            self._texts = dict.fromkeys(SIDES, "")
            # What is above the screen's height is seen again when both are complete.
            self._live = Live(console=self._console, refresh_per_second=12, transient=False)
            self._live.start()
        self._texts[side] += visible(piece, keep=KEPT)
        self._live.update(self._table())
        if not piece and side == SIDES[-1]:
            self.end()

    def end(self) -> None:
        """Leave what is shown on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, expand=True, padding=(0, 2, 1, 0))
        for side in SIDES:
            table.add_column(side, ratio=1, overflow="fold")
        table.add_row(*(escape(self._texts[side]) for side in SIDES))
        return table
