"""Regular expressions and JSON schemas of a config, held against an answer in bounded time."""

import json
from collections.abc import Iterator
from typing import Any

import regex
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from referencing import Registry

from tunewright.errors import failure

PATTERN_SECONDS = 2.0
"""The longest that one pattern may take on one answer: a usual one takes less than a thousandth of it."""


def search(pattern: str, text: str) -> str | None:
    """Return what a pattern finds first in a text, or None.

    Raises:
        TunewrightError: E_CONFIG_VALUE, it takes longer than PATTERN_SECONDS.
    """
    try:
        match = regex.search(pattern, text, timeout=PATTERN_SECONDS)
    except TimeoutError as error:
        raise failure(
            "E_CONFIG_VALUE",
            f"The pattern {pattern!a} takes more than {PATTERN_SECONDS:g} s on an answer of {len(text):,} "
            "characters.",
            where="compare.rubrics",
            fix="Simplify it: repeat no alternatives that overlap, as in `(a|aa)+`.",
        ) from error
    return None if match is None else match[0]


def json_fault(schema: dict[str, Any], text: str) -> str | None:
    """Return why a text is no JSON that a schema allows, or None.

    Source: JSON Schema draft 2020-12.

    Raises:
        TunewrightError: E_CONFIG_VALUE, a pattern of the schema takes longer than PATTERN_SECONDS.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
        error = best_match(_Validator(schema, registry=Registry()).iter_errors(value))
    except RecursionError:
        return "too deep"
    except ValueError as error:
        return f"no JSON: {error}"
    return None if error is None else f"{error.json_path}: {error.message}"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")


def _pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and search(pattern, value) is None:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator: Any = extend(Draft202012Validator, {"pattern": _pattern})
"""Without it a pattern of a schema would have no limit of time."""
