"""What the terminal shows of work that goes on, on stderr."""

import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from tunewright.cli.lines import print_line
from tunewright.cli.text import visible
from tunewright.events import SILENT, Listener
from tunewright.machine import process_rank

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
        Count(),
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


@contextmanager
def aside(listener: Listener) -> Generator[None]:
    """Leave the terminal to something else while the block runs."""
    with listener.aside() if isinstance(listener, Bars) else nullcontext():
        yield


class Count(ProgressColumn):
    """How much is done, in the unit of the work; bytes as people say them."""

    def render(self, task: Task) -> Text:
        """Return `3/10 rows`, or `1.2/3.0 GB`."""
        unit, done, total = str(task.fields["unit"]), int(task.completed), task.total
        if unit != "bytes":
            return Text(f"{done}/{'?' if total is None else int(total)} {unit}")
        return Text(f"{decimal(done)}/{'?' if total is None else decimal(int(total))}")


class Lines:
    """Listener for logs: what is said, and when a stretch begins."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """Print a line."""
        amount = f"{total:,} {unit if total != 1 else unit.removesuffix('s')}" if total else ""
        if total and unit == "bytes":
            amount = decimal(total)
        size = f" ({amount})" if amount else ""
        self._console.print(
            f"{time.strftime('%H:%M:%S')} {stage}{size}", highlight=False, markup=False
        )

    def advanced(self, done: int, detail: str) -> None:
        """Stay quiet: a log has no use for every step."""

    def said(self, text: str) -> None:
        """Print it."""
        print_line(self._console, f"         {text}")


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

    @contextmanager
    def aside(self) -> Generator[None]:
        """Leave the terminal to something else while the block runs; what was drawn stays above it."""
        self.finish()
        self._bars.stop()
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        try:
            yield
        finally:
            self._bars.start()

    def finish(self) -> None:
        """Fill the current bar: early stopping and unknown totals end before it is full."""
        if self._task is None:
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        total = task.completed or task.total or 1
        self._bars.update(self._task, total=total, completed=total)
        self._task = None
