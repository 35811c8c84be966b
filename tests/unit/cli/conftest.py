"""A terminal for commands that ask."""

import io
import sys
from collections.abc import Callable

import pytest


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch) -> Callable[..., Terminal]:
    """Return a function that puts a terminal in place, at which these lines are typed."""
    screen = Terminal()

    def sit(*lines: str) -> Terminal:
        monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{line}\n" for line in lines)))
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return sit
