"""Prompt templates with named fields: `Write about {topic}.` Pure.

A field is replaced by the row's column of exactly this name; `{{` and `}}` stand for braces. There is no
attribute access, no index, no conversion and no format specification.
"""

import string
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tunewright.data.formats.columns import listed
from tunewright.data.formats.jsontext import kind


@lru_cache(maxsize=16)
def pieces_of(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return literal text and the field after it, in order; None where no field follows.

    Raises:
        ValueError: Braces are unbalanced, or a field is more than a name.
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"the prompt template has unbalanced braces ({error}); write {{{{ for a brace"
        ) from error
    for _, field, spec, conversion in parsed:
        if field is not None and ("." in field or "[" in field):
            raise ValueError(
                f"the prompt template has '{{{field}}}': the name of a column stands alone, without . and ["
            )
        if field is not None and (not field.strip() or spec or conversion):
            raise ValueError(
                f"the prompt template has '{{{field}}}' with more or less than a column's name"
            )
    return tuple((literal, field) for literal, field, _, _ in parsed)


def fields_of(template: str) -> frozenset[str]:
    """Return the columns that a template needs.

    Raises:
        ValueError: As `pieces_of`.
    """
    return frozenset(field for _, field in pieces_of(template) if field is not None)


def fill(template: str, data: Mapping[str, Any]) -> str:
    """Return the template with every field replaced.

    Raises:
        ValueError: As `pieces_of`, or the row lacks a column, or its value is no text or number.
    """
    out: list[str] = []
    for literal, field in pieces_of(template):
        out.append(literal)
        if field is None:
            continue
        if field not in data:
            raise ValueError(f"the prompt template needs '{field}'; the columns are {listed(data)}")
        value = data[field]
        if value is None or isinstance(value, dict | list):
            raise ValueError(f"{field} is {kind(value)}, which cannot stand in the prompt template")
        out.append(value if isinstance(value, str) else str(value))
    return "".join(out)
