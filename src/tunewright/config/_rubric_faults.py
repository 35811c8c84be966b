"""What is wrong with the regular expressions and JSON schemas of a config."""

from collections.abc import Iterator
from typing import Any, cast

import regex
from jsonschema import Draft202012Validator, SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

_TRIED: tuple[Any, ...] = (None, True, 0, "", [], {})
"""One value of each kind in JSON."""


def pattern_fault(pattern: str) -> str | None:
    """Return why a text is no regular expression, or None."""
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        return str(error)
    return None


def schema_fault(schema: dict[str, Any]) -> str | None:
    """Return why values are no JSON schema that can be used here, or None.

    A schema refers to nothing outside itself: nothing is fetched. `patternProperties` would be searched
    without a limit of time.

    Source: JSON Schema draft 2020-12, Core and Validation.
    """
    try:
        Draft202012Validator.check_schema(schema)
        fault = next((f for item in _nested(schema) for f in _faults(item, schema)), None)
        if fault is None:
            validator: Any = Draft202012Validator(schema, registry=Registry())
            for value in _TRIED:
                validator.is_valid(value)
    except SchemaError as error:
        return f"{error.json_path}: {error.message}"
    except RecursionError:
        return "it refers to itself without end, or is too deep"
    return fault


def _nested(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield cast("dict[str, Any]", value)
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _nested(item)


def _faults(item: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    if isinstance(item.get("patternProperties"), dict):
        yield "patternProperties is not used here: use propertyNames with a pattern"
    if isinstance(item.get("pattern"), str):
        fault = pattern_fault(item["pattern"])
        if fault is not None:
            yield f"pattern {item['pattern']!a}: {fault}"
    for key in ("$ref", "$dynamicRef"):
        if isinstance(item.get(key), str) and not _leads_somewhere(item[key], schema):
            yield f"{key} {item[key]!a} leads nowhere in this schema"


def _leads_somewhere(reference: str, schema: dict[str, Any]) -> bool:
    if not reference.startswith("#"):
        return False
    untyped: Any = Registry
    registry = untyped().with_resource("", DRAFT202012.create_resource(schema))
    try:
        registry.resolver("").lookup(reference)
    except Unresolvable:
        return False
    return True
