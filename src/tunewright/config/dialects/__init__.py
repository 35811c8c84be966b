"""Configs of other tools: told by their keys, and rewritten into ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.config.schema import Config
from tunewright.config.text import Place
from tunewright.config.validate import Given
from tunewright.errors import Problem

SHARED = frozenset(["name", "output_dir", "seed"])
"""Keys of ours that other dialects have at the top level as well."""


@dataclass(frozen=True)
class Translated:
    """A config of another dialect in our keys.

    Attributes:
        tree: The values.
        places: How each was given.
        dialect: The dialect, and what told it.
        notes: Keys that do nothing here, and what was understood in another way, a line each.
        problems: What is wrong with it.
    """

    tree: dict[str, Any]
    places: Mapping[Place, Given]
    dialect: str
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]


def translated(
    tree: Mapping[str, Any], lines: Mapping[Place, int], where: str
) -> Translated | None:
    """Return a config in our keys, or None where it has them already: a section of ours settles it."""
    if set(map(str, tree)) & (Config.model_fields.keys() - SHARED):
        return None
    from tunewright.config.dialects.translate import translate

    return translate(tree, lines, where)
