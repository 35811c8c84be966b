"""How a config in another dialect is read: key by key, each put where it belongs, noted, or refused."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from tunewright.config.text import Place, shown
from tunewright.config.validate import Given
from tunewright.errors import Problem

TYPO = 0.86
"""Likeness from which an unknown key counts as a known one misspelt: one letter in eight."""
EMPTY = "given without a value, so the default holds"
_OFF: tuple[Any, ...] = (False, "none", "no", [], {})
OFF = "has no counterpart, and is switched off in the file anyway"


class Reading:
    """A config in another dialect while it is being read.

    Attributes:
        keys: Its top-level keys and values, those without a value left out.
        tree: What has been understood, in our keys.
        places: How each of these values was given.
        problems: What is wrong.
    """

    def __init__(self, tree: Mapping[str, Any], lines: Mapping[Place, int], where: str) -> None:
        self.keys = {str(key): value for key, value in tree.items() if value not in (None, "")}
        self.tree: dict[str, Any] = {}
        self.places: dict[Place, Given] = {}
        self.problems: list[Problem] = []
        self._lines = lines
        self._where = where
        self._notes: dict[str, list[str]] = {}

    def given(self, *place: str | int) -> Given:
        """Return how a value of the file was given."""
        line = next(
            (self._lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self._lines),
            None,
        )
        name = str(place[0]) + "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in place[1:]
        )
        shown_name = name if name.isprintable() else ascii(name)[1:-1]
        return Given(self._where + (f":{line}" if line else ""), shown_name[:80])

    def put(self, native: str, value: Any, *place: str | int) -> None:
        """Set one of our options to what stands at a place of the file."""
        path = tuple(native.split("."))
        given = self.given(*place)
        node = self.tree
        for part in path[:-1]:
            node = cast("dict[str, Any]", node.setdefault(part, {}))
        before = self.places.get(path)
        if before is not None and node[path[-1]] != value:
            message = f"'{given.key}' and '{before.key}' both set {native}, to different values."
            self.problems.append(
                Problem("E_CONFIG_VALUE", message, given.where, f"Delete one: {before.where}.")
            )
            return
        node[path[-1]] = value
        self.places[path] = given

    def note(self, text: str, *place: str | int) -> None:
        """Say something about what stands at a place; places with the same text share a line."""
        given = self.given(*place)
        line = given.where.removeprefix(self._where).removeprefix(":")
        self._notes.setdefault(text, []).append(
            f"{given.key} (line {line})" if line else str(given.key)
        )

    def refuse(
        self, message: str, fix: str, *place: str | int, code: str = "E_CONFIG_VALUE"
    ) -> None:
        """Name what stands at a place as wrong."""
        given = self.given(*place)
        self.problems.append(Problem(code, f"'{given.key}' {message}.", given.where, fix))

    def flag(self, key: str) -> bool | None:
        """Return a value that is true or false; None where it is not given or neither, which is refused."""
        value = self.keys.get(key)
        if value is None or isinstance(value, bool):
            return value
        self.refuse(f"should be true or false, not {shown(value)}", "Write true or false.", key)
        return None

    def notes(self) -> tuple[str, ...]:
        """Return what was said, a line each."""
        return tuple(
            f"{self._where}: {', '.join(names)}: {text}." for text, names in self._notes.items()
        )


Handler = Callable[[Reading, str, Any], None]


@dataclass(frozen=True)
class Dialect:
    """The keys of another tool's configs.

    Attributes:
        name: What it is called.
        marks: Keys that only it has: one of them in a file tells it.
        same: Keys that are one of our options under another name.
        handlers: Keys whose value has to be understood.
        together: Keys that `finish` reads.
        finish: Reads what several keys say together.
        unused: Why keys do nothing here, to those keys, separated by blanks.
        source: The key that names the data.
    """

    name: str
    marks: frozenset[str]
    same: Mapping[str, str]
    handlers: Mapping[str, Handler]
    together: frozenset[str]
    finish: Callable[[Reading], None]
    unused: Mapping[str, str]
    source: str

    def reasons(self) -> dict[str, str]:
        """Return the keys that do nothing here, each with the reason."""
        return {key: reason for reason, keys in self.unused.items() for key in keys.split()}

    def known(self) -> set[str]:
        """Return all its keys."""
        return {*self.same, *self.handlers, *self.together, *self.reasons()}

    def read(self, tree: Mapping[str, Any], lines: Mapping[Place, int], where: str) -> Reading:
        """Return what a file says."""
        reading = Reading(tree, lines, where)
        known = self.known()
        for key in map(str, tree):
            if key not in known:
                self._unknown(reading, key, known)
            elif key not in reading.keys:
                reading.note(EMPTY, key)
            else:
                self._known(reading, key)
        self.finish(reading)
        reading.places.setdefault(("prepare", "source"), Given(where, self.source))
        refused: dict[str, Any] = {"source": "-"} if reading.problems else {}
        reading.tree["prepare"] = {**refused, **reading.tree.get("prepare", {})}
        return reading

    def _known(self, reading: Reading, key: str) -> None:
        value = reading.keys[key]
        if key in self.same:
            reading.put(self.same[key], value, key)
        elif key in self.handlers:
            self.handlers[key](reading, key, value)
        elif key not in self.together:
            reading.note(OFF if value in _OFF else self.reasons()[key], key)

    def _unknown(self, reading: Reading, key: str, known: set[str]) -> None:
        close = difflib.get_close_matches(key, known, n=1, cutoff=TYPO)
        if close:
            reading.refuse(
                f"is not a key of {self.name}",
                f"Did you mean '{close[0]}'?",
                key,
                code="E_CONFIG_KEY",
            )
        else:
            reading.note("no key that we know, so it does nothing", key)
