"""From plain values to a Config: everything that is wrong, each with its place."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tunewright.config.schema import Config
from tunewright.config.text import Place, dotted, shown
from tunewright.errors import Problem, TunewrightError


@dataclass(frozen=True)
class Given:
    """How a value was given.

    Attributes:
        where: File and line, or the flag.
        key: What it is called there, where that is another name than ours.
    """

    where: str
    key: str | None = None


def validated(tree: Mapping[str, Any], where: str, places: Mapping[Place, Given]) -> Config:
    """Return the config of plain values.

    Args:
        tree: The values.
        where: What to name for a value without a place.
        places: How values were given.

    Raises:
        TunewrightError: Every E_CONFIG_KEY and E_CONFIG_VALUE there is.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise TunewrightError(
            _problem(item, _nearest(tuple(item["loc"]), places) or Given(where))
            for item in error.errors(include_url=False)
        ) from error


def _nearest(loc: Place, places: Mapping[Place, Given]) -> Given | None:
    return next((places[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in places), None)


def _problem(item: ErrorDetails, given: Given) -> Problem:
    loc, kind, message, value = tuple(item["loc"]), item["type"], item["msg"], item.get("input")
    key = f"'{given.key}' ({dotted(loc)})" if given.key else f"'{dotted(loc)}'"
    if kind == "extra_forbidden":
        known = _known_keys(loc[:-1])
        close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        fix = f"Did you mean '{close[0]}'?" if close else f"Known here: {', '.join(known)}."
        return Problem("E_CONFIG_KEY", f"{key} is not an option.", given.where, fix)
    if kind == "missing":
        fix = f"Add it, or --set {dotted(loc)}=..."
        return Problem("E_CONFIG_VALUE", f"{key} is missing.", given.where, fix)
    ours = message.removeprefix("Value error, ")
    wanted = (
        f"be {ours}" if ours != message else message.partition(" should ")[2] or f"be {message}"
    )
    got = f", not {shown(value)}" if isinstance(value, str | int | float | bool | None) else ""
    return Problem("E_CONFIG_VALUE", f"{key}: should {wanted}{got}.", given.where, meaning(loc))


def _section(path: Place) -> type[BaseModel] | None:
    section: type[BaseModel] = Config
    for part in path:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        kind: Any = field.annotation if field else None
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        section = kind
    return section


def _known_keys(path: Place) -> list[str]:
    section = _section(path)
    return sorted(section.model_fields) if section else []


def meaning(loc: Place) -> str:
    """Return what an option means."""
    section = _section(loc[:-1]) if loc else None
    field = section.model_fields.get(str(loc[-1])) if section else None
    return (field.description if field else None) or "See `tunewright config schema`."
