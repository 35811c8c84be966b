"""Questions at a terminal, and what answers them elsewhere."""

import os
import sys

import click

from tunewright.cli.progress import aside
from tunewright.cli.text import visible
from tunewright.events import Listener
from tunewright.machine import process_count
from tunewright.pipeline import SAFE, Answer, Decider, Question


def decider(listener: Listener, *, silent: bool) -> Decider:
    """Return who decides: the user at a terminal; where nobody sits or `silent`, what is safe."""
    sits = sys.stdin.isatty() and sys.stderr.isatty() and not os.environ.get("CI")
    return Asking(listener) if sits and not silent and process_count() == 1 else SAFE


class Asking:
    """Asks on stderr; what was answered before is not asked again."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def decide(self, question: Question) -> Answer:
        """Return the user's answer; Enter alone is the safe one."""
        if question.earlier is not None:
            return Answer(question.earlier, "earlier")
        with aside(self._listener):
            click.echo("", err=True)
            for line in question.text.split("\n"):
                click.echo(visible(line), err=True)
            for choice, meaning in question.choices.items():
                click.echo(f"  {choice}: {visible(meaning)}", err=True)
            kinds = click.Choice(list(question.choices))
            choice = click.prompt("?", type=kinds, default=question.safe, err=True)
        return Answer(choice, "user")
