"""How a stage tells what it is doing, without printing."""

from collections.abc import Callable, Mapping
from typing import Protocol


class Listener(Protocol):
    """Receives a stage's progress. Every method returns at once and never raises."""

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """A stretch of work begins: `total` units of `unit`, or None if not known."""
        ...

    def advanced(self, done: int, detail: str) -> None:
        """`done` units of the current stretch are finished."""
        ...

    def said(self, text: str) -> None:
        """A fact worth a line."""
        ...


class Silent:
    """The listener of those who want none."""

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """Ignore it."""

    def advanced(self, done: int, detail: str) -> None:
        """Ignore it."""

    def said(self, text: str) -> None:
        """Ignore it."""


SILENT: Listener = Silent()


class Noting:
    """A listener that passes everything on, and keeps a note of every fact."""

    def __init__(self, listener: Listener, note: Callable[[str], None]) -> None:
        self._listener = listener
        self._note = note

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """Pass it on."""
        self._listener.started(stage, total, unit)

    def advanced(self, done: int, detail: str) -> None:
        """Pass it on."""
        self._listener.advanced(done, detail)

    def said(self, text: str) -> None:
        """Note it, and pass it on."""
        self._note(text)
        self._listener.said(text)


class Named:
    """A listener that says whose work it is."""

    def __init__(self, listener: Listener, name: str) -> None:
        self._listener, self._name = listener, name

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """A stretch of somebody's work begins."""
        self._listener.started(f"{self._name}: {stage}", total, unit)

    def advanced(self, done: int, detail: str) -> None:
        """Pass it on."""
        self._listener.advanced(done, detail)

    def said(self, text: str) -> None:
        """A fact of somebody worth a line."""
        self._listener.said(f"{self._name}: {text}")


def in_words(choice: Mapping[str, str]) -> str:
    """Return an automatic choice (name, value, reason) as it is said."""
    since = "" if choice["reason"].startswith(("as asked", "asked")) else "since "
    return f"{choice['name']}: {choice['value']}, {since}{choice['reason']}"
