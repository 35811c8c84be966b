"""From plain values to a Config: everything that is wrong, each with its place."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tunewright.config.schema import Config
from tunewright.config.text import Place, dotted, shown
from tunewright.config.wording import expected, first_required, option_of, suggestion, way_out
from tunewright.errors import Problem, TunewrightError

_OWN_PLACE = ("extra_forbidden", "missing")
"""Errors whose place is the key itself."""


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
        errors = error.errors(include_url=False)
        raise TunewrightError(_problems(errors, where, places)) from error


def _nearest(loc: Place, places: Mapping[Place, Given]) -> Given | None:
    """Return how a value was given; a section is where the first value in it was given."""
    if loc not in places:
        below = next((given for place, given in places.items() if place[: len(loc)] == loc), None)
        if below:
            return below
    return next((places[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in places), None)


def _problems(
    errors: Iterable[ErrorDetails], where: str, places: Mapping[Place, Given]
) -> Iterator[Problem]:
    """Yield one problem for each option; of several kinds of value one has to fit, so they are named together."""
    found: dict[Place, list[ErrorDetails]] = {}
    for item in errors:
        loc = tuple(item["loc"])
        place = loc if item["type"] in _OWN_PLACE else option_of(loc)
        # What cannot be used does not count as an entry; the entry's own fault is what has to be said.
        if item["type"] == "too_short" and any(other[:-1] == place for other in found):
            continue
        found.setdefault(place, []).append(item)
    for place, items in found.items():
        yield _problem(place, items, _nearest(place, places) or Given(where))


def _problem(place: Place, items: Sequence[ErrorDetails], given: Given) -> Problem:
    kind, value = items[0]["type"], items[0].get("input")
    if kind == "missing":
        place = first_required(place)
    key = f"'{given.key}' ({dotted(place)})" if given.key else f"'{dotted(place)}'"
    if kind == "extra_forbidden":
        return Problem("E_CONFIG_KEY", f"{key} is not an option.", given.where, suggestion(place))
    if kind == "missing":
        fix = f"Add it, or --set {dotted(place)}=..."
        return Problem("E_CONFIG_VALUE", f"{key} is missing.", given.where, fix)
    wanted = " or ".join(dict.fromkeys(map(expected, items))).replace(" or be ", " or ")
    got = f", not {shown(value)}" if isinstance(value, str | int | float) else ""
    nothing = ", and nothing is given" if value is None else ""
    message = f"{key}: should {wanted}{got}{nothing}."
    return Problem("E_CONFIG_VALUE", message, given.where, way_out(place))
