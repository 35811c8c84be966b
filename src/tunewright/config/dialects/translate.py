"""Whose keys a config has, and the config in ours."""

from collections.abc import Mapping
from typing import Any

from tunewright.config.dialects import Translated
from tunewright.config.dialects.axolotl import AXOLOTL
from tunewright.config.dialects.flat import FLAT
from tunewright.config.dialects.reading import Dialect
from tunewright.config.text import Place

DIALECTS: tuple[Dialect, ...] = (AXOLOTL, FLAT)


def translate(tree: Mapping[str, Any], lines: Mapping[Place, int], where: str) -> Translated | None:
    """Return a config in our keys, or None where its keys tell no other dialect."""
    dialect = dialect_of(tree)
    if dialect is None:
        return None
    reading = dialect.read(tree, lines, where)
    told = ", ".join(sorted(dialect.marks & set(map(str, tree)))[:3])
    name = f"{dialect.name}, since it has {told}"
    return Translated(reading.tree, reading.places, name, reading.notes(), tuple(reading.problems))


def dialect_of(tree: Mapping[str, Any]) -> Dialect | None:
    """Return whose keys a config has; one with marks of both is of the one that knows more of its keys."""
    keys = set(map(str, tree))
    marked = [dialect for dialect in DIALECTS if keys & dialect.marks]
    return max(marked, key=lambda dialect: len(keys & dialect.known()), default=None)
