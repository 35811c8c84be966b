"""What the schema says of an option, in words: its meaning, what it takes, and which one was meant."""

import difflib
import json
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tunewright.config.schema import Config, TeamConfig
from tunewright.config.text import Place, dotted

CLOSE, VERY_CLOSE = 0.5, 0.75
"""How alike a key and an option of its section, or of another one, must be to suggest the option."""
_KINDS: Mapping[Any, str] = {int: "a whole number", float: "a number", str: "text"}
_EXPECTED: Mapping[str, str] = {
    "float": "be a number",
    "int": "be a whole number",
    "bool": "be true or false",
    "string": "be text",
    "tuple": "be a list",
    "list": "be a list",
    "dict": "be a mapping (key: value)",
    "model": "be a mapping (key: value)",
}
"""Beginnings of pydantic's names for a wrong type."""
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_PROPER = ("Hub", "Jaccard", "Ollama", "Trackio", "Hugging")
"""First words of meanings that keep their capital inside a sentence."""


def section_at(place: Place) -> type[BaseModel] | None:
    """Return the schema of a section."""
    section: type[BaseModel] = TeamConfig
    for part in place:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        found = _model(field.annotation) if field else None
        if found is None:
            return None
        section = found
    return section


def _model(annotation: Any) -> type[BaseModel] | None:
    kinds = (
        get_args(annotation)[:1]
        if get_origin(annotation) is tuple
        else (annotation, *get_args(annotation))
    )
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def field_at(place: Place) -> FieldInfo | None:
    """Return the schema of an option."""
    section = section_at(place[:-1]) if place else None
    return section.model_fields.get(str(place[-1])) if section else None


def option_of(loc: Place) -> Place:
    """Return the option that an error is about: pydantic adds the kinds of value that it has tried."""
    ends = range(len(loc), 0, -1)
    end = next((n for n in ends if isinstance(loc[n - 1], str) and field_at(loc[:n])), len(loc))
    return (
        loc[: end + 1] if any(isinstance(part, int) for part in loc[end : end + 1]) else loc[:end]
    )


def meaning(place: Place) -> str:
    """Return what an option means."""
    field = field_at(place)
    return (field.description if field else None) or "See `tunewright config schema`."


def expected(item: ErrorDetails) -> str:
    """Return what a value should do, to stand after "should"."""
    kind, message, limits = item["type"], item["msg"], item.get("ctx", {})
    ours = message.removeprefix("Value error, ")
    if ours != message:
        return ours if ours.startswith(("use ", "have ")) else f"be {ours}"
    for name, words in _LIMITS.items():
        if name in limits:
            return f"be {words} {_number(limits[name])}"
    if kind == "string_pattern_mismatch":
        return "be one of the names that it takes"
    if kind.endswith(("_type", "_parsing", "_from_float")):
        return _EXPECTED.get(kind.partition("_")[0], f"be as described: {message}")
    wanted = message.partition(" should ")[2].partition(" after validation")[0]
    return wanted or f"be {message}"


def _number(limit: float) -> str:
    return str(int(limit) if limit == int(limit) else limit)


def way_out(place: Place) -> str:
    """Return what to give for an option: the kind of value, an example, and what it means."""
    field = field_at(place if isinstance(place[-1], str) else place[:-1])
    if field is None or not field.description:
        return meaning(place)
    kind = _kind(field)
    default = field.default
    shown = isinstance(default, int | float | str | tuple) and default != ()
    example = f", for example {json.dumps(default).strip(chr(34))}" if shown else ""
    if kind.startswith(("one of", "true or")):
        example = ""
    return f"Give {kind}{example}: {_inside(field.description)}"


def _inside(text: str) -> str:
    first = text.split(maxsplit=1)[0]
    keep = first.startswith(_PROPER) or first[1:] != first[1:].lower()
    return text if keep else text[0].lower() + text[1:]


def _kind(field: FieldInfo) -> str:
    """Return the kind of value that an option takes, with its limits."""
    annotation: Any = field.annotation
    kinds = [k for k in get_args(annotation) if k is not NoneType]
    if NoneType in get_args(annotation) and len(kinds) == 1:
        annotation = kinds[0]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    if annotation is bool:
        return "true or false"
    if get_origin(annotation) is tuple:
        return "a list"
    limits = [
        f"{words} {_number(getattr(limit, name))}"
        for limit in field.metadata
        for name, words in _LIMITS.items()
        if hasattr(limit, name)
    ]
    kind = _KINDS.get(annotation, "another value")
    return f"{kind}, {' and '.join(limits)}" if limits else kind


def known_keys(place: Place) -> list[str]:
    """Return the options of a section."""
    section = section_at(place)
    return sorted(section.model_fields) if section else []


def suggestion(place: Place) -> str:
    """Return what to do about a key that is no option: the one that was meant, or those there are."""
    known, name = known_keys(place[:-1]), str(place[-1])
    everywhere: dict[str, str] = {}
    for option in options_below(Config, ()):
        everywhere.setdefault(str(option[-1]), dotted(option))
    close = difflib.get_close_matches(name, known, n=1, cutoff=CLOSE)
    if name not in everywhere and close:
        return f"Did you mean '{close[0]}'?"
    elsewhere = difflib.get_close_matches(name, everywhere, n=1, cutoff=VERY_CLOSE)
    if elsewhere:
        return f"Did you mean '{everywhere[elsewhere[0]]}'?"
    return f"Known here: {', '.join(known)}."


def options_below(section: type[BaseModel], place: Place) -> Iterator[Place]:
    """Yield every section and option below a section, the nearest ones first."""
    yield from ((*place, name) for name in section.model_fields)
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from options_below(kind, (*place, name))


def first_required(place: Place) -> Place:
    """Return the option to give where a section or option is missing: `prepare.source` for `prepare`."""
    section = section_at(place)
    names = [n for n, f in section.model_fields.items() if f.is_required()] if section else []
    return first_required((*place, names[0])) if names and not _is_list(place) else place


def _is_list(place: Place) -> bool:
    field = field_at(place)
    return field is not None and get_origin(field.annotation) is tuple
