"""What this machine can do, and what is in the way: each with what to do about it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from tunewright.doctor.findings import Finding, State
from tunewright.errors import first_line

__all__ = ["Finding", "State", "examine"]


def examine(store: Path | None = None, *, hub: bool = True) -> Iterator[Finding]:
    """Give one finding after the other; what fails in looking is a finding as well.

    Args:
        store: Folder of the model store; None: the one that other commands use.
        hub: Ask the Hub whether it can be reached, and whose token HF_TOKEN is.
    """
    from tunewright.doctor.packages import packages

    yield from packages()
    yield from _careful("machine", _of_machine)
    if hub:
        yield from _careful("hub", _of_hub)
    yield from _careful("store", lambda: _of_store(store))


def _of_machine() -> Iterator[Finding]:
    from tunewright.doctor._machine import machine

    yield from machine()


def _of_hub() -> Iterator[Finding]:
    from tunewright.doctor._hub import hub

    yield from hub()


def _of_store(folder: Path | None) -> Iterator[Finding]:
    from tunewright.doctor.stores import store

    yield from store(folder)


def _careful(area: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Give what a look finds; one that ends with an exception has found that something is broken."""
    try:
        yield from look()
    # What a broken library raises as it is imported; the rest is still to be looked at.
    except (ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError) as error:
        name, said = type(error).__name__, first_line(error)
        text = name if said == name else f"{name}: {said}"
        fix = "Make the environment anew: python -m venv, then pip install tunewright."
        yield Finding(area, "libraries", "bad", text, fix)
