"""Nested plain values."""

from collections.abc import Mapping
from typing import Any, cast


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings laid over each other, the last one on top."""
    found: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            before = found.get(key)
            both = isinstance(value, dict) and isinstance(before, dict)
            found[key] = (
                merged(cast("dict[str, Any]", before), cast("dict[str, Any]", value))
                if both
                else value
            )
    return found


def section(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the section of that name; empty where there is none, or something else."""
    found = tree.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
