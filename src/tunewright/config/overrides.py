"""Options that are given beside the config: `section.key=value`, and flags that stand for one."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import yaml

from tunewright.config.text import MAX_DEPTH, SHOWN, Place, require_plain
from tunewright.errors import failure

T = TypeVar("T")


class Flag(str):
    """An override that a flag of its own stands for: messages name the flag.

    Attributes:
        flag: The flag, as it was typed.
    """

    flag: str

    def __new__(cls, override: str, flag: str) -> "Flag":
        """Return the override with its flag."""
        self = super().__new__(cls, override)
        self.flag = flag
        return self


def origin(override: str) -> str:
    """Return how an override was given."""
    return override.flag if isinstance(override, Flag) else f"--set {override[:SHOWN]}"


def apply(tree: dict[str, Any], override: str) -> Place:
    """Set a value in the tree and return its place; a number in the key is that of a list's entry.

    Raises:
        TunewrightError: E_USAGE, it is not section.key=value, or leads to nowhere.
    """
    key, separator, value = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts) or len(parts) > MAX_DEPTH:
        raise failure(
            "E_USAGE",
            "An override is section.key=value.",
            where=origin(override),
            fix="For example --set train.learning_rate=1e-4",
        )
    node: Any = tree
    path: list[str | int] = []
    for number, part in enumerate(parts):
        try:
            node, step = _entered(node, part, parts[:number])
            if number == len(parts) - 1:
                node[step] = _given(value)
            else:
                there = node[step] if isinstance(step, int) else node.get(step)
                node[step] = _opened(there, parts[: number + 1], parts[number + 1])
        except ValueError as error:
            raise failure("E_USAGE", f"{error}.", where=origin(override)) from error
        path.append(step)
        node = node[step]
    return tuple(path)


def without(places: Mapping[Place, T], path: Place) -> dict[Place, T]:
    """Return places but those at or below a path: what was given there is replaced."""
    return {place: given for place, given in places.items() if place[: len(path)] != path}


def _given(value: str) -> object:
    try:
        require_plain(value)
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None)
        detail = f": {problem}" if problem else ""
        raise ValueError(f"The value is not valid YAML{detail}") from error


def _entered(node: object, part: str, before: Sequence[str]) -> tuple[Any, str | int]:
    """Return the section or list that a part of a key is in, and its key or number there."""
    shown = ".".join(before)
    if isinstance(node, list):
        entries = cast("list[Any]", node)
        last = len(entries) - 1
        if not part.isascii() or not part.isdigit() or int(part[:9]) > last:
            there = f"{shown}.0" + (f" to {shown}.{last}" if last > 0 else "")
            raise ValueError(f"'{shown}' is a list: name one of its entries, {there}")
        return entries, int(part)
    if isinstance(node, dict):
        return cast("dict[str, Any]", node), part
    raise ValueError(f"'{shown}' is a value, not a section")


def _opened(there: Any, place: Sequence[str], following: str) -> Any:
    """Return what is at a place, ready to be entered: a path that may be a mapping becomes one."""
    if there is None:
        return {}
    if place == ["prepare", "source"] and following.isdigit() and isinstance(there, str | dict):
        return [there]
    is_source = place[:2] == ["prepare", "source"] and len(place) < 4
    if isinstance(there, str) and (is_source or place == ["check", "against"]):
        return {"path": there}
    return there
