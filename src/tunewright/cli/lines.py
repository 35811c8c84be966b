"""Lines of text on a terminal: as they are, or broken between words."""

import textwrap

from rich.console import Console

from tunewright.cli.text import visible


def print_line(console: Console, text: str) -> None:
    """Print a line as it is; what a terminal would obey is shown as an escape."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def print_prose(console: Console, text: str) -> None:
    """Print sentences; a terminal breaks them between words, and never inside a path."""
    for line in visible(text, keep="\n").split("\n"):
        parts = textwrap.wrap(line, console.width, break_long_words=False, break_on_hyphens=False)
        for part in parts if console.is_terminal and parts else [line]:
            print_line(console, part)
