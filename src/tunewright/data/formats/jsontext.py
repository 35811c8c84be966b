"""One JSON text to plain Python, strictly: what RFC 8259 leaves open or Python accepts beyond it is refused. Pure.

Source: RFC 8259, and I-JSON (RFC 7493) for duplicate keys and surrogates.
"""

import json
import math
import re
from typing import Any, cast

from tunewright.data.formats.records import MAX_DEPTH, MisplacedError

_SURROGATE = re.compile(r"\\u[dD][89abAB]|\\u[dD][c-fC-F]")
_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
}
_SAID = (
    ("Expecting value", "a value is missing"),
    ("Expecting property name", 'a key in double quotes is missing: `"key"`'),
    ("Illegal trailing comma", "there is a comma before the closing bracket"),
    ("Expecting ',' delimiter", "a comma or a closing bracket is missing"),
    ("Expecting ':' delimiter", "a colon is missing"),
    ("Extra data", "there is more text after the end of the row"),
    ("Unterminated string", "the text that begins here is never closed"),
    (
        "Invalid control character",
        "text holds a tab, line end or control character; write `\\t`, `\\n`",
    ),
    ("Invalid \\\\escape", "a backslash stands before a character that needs none"),
    ("Invalid \\escape", "a backslash stands before a character that needs none"),
    ("Invalid \\\\uXXXX", "`\\u` needs four hexadecimal digits"),
    ("Invalid \\uXXXX", "`\\u` needs four hexadecimal digits"),
)


class RefusedError(ValueError):
    """JSON that Python would take, and that does not mean one thing."""


def parse(text: str) -> dict[str, Any]:
    """Return the object that a text is.

    Raises:
        ValueError: It is not JSON, or not an object, or does not mean one thing; says what and where, as
            MisplacedError where one place is at fault.
    """
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        text = f"not JSON at column {error.colno}: {explained(error)}"
        raise MisplacedError(text, error.colno) from error
    except RecursionError as error:
        raise ValueError(too_deep()) from error
    except RefusedError:
        raise
    except ValueError as error:
        raise ValueError(too_long_number()) from error
    return as_row(value, text)


def as_row(value: Any, text: str) -> dict[str, Any]:
    """Return the value that was read from a text, if it can be a row.

    Raises:
        ValueError: It is no object, is nested too deeply, or has half of a surrogate pair.
    """
    if not isinstance(value, dict):
        raise ValueError(f'a row is an object `{{"key": "value"}}`, not {kind(value)}')
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(too_deep())
    if "\\u" in text and _SURROGATE.search(text) and _has_half(value):
        raise ValueError(
            "`\\ud800` to `\\udfff` alone is half of a surrogate pair, which is not text"
        )
    return cast("dict[str, Any]", value)


def explained(error: json.JSONDecodeError) -> str:
    """Return what is wrong, in words."""
    rest = error.doc[error.pos : error.pos + 2]
    if not rest.strip(" \t\r\n") and not error.msg.startswith("Unterminated"):
        return "it ends before it is complete"
    if rest[0] == "'":
        return "text needs double quotes, not single ones"
    if rest[0] in "}]" and error.doc[: error.pos].rstrip(" \t\r\n").endswith(","):
        return "there is a comma before the closing bracket"
    return next((said for start, said in _SAID if error.msg.startswith(start)), error.msg)


def kind(value: Any) -> str:
    """Return what a JSON value is, in words."""
    return _KINDS.get(type(value), "a list" if isinstance(value, list) else "an object")


def too_deep() -> str:
    """Return the words for nesting beyond the limit."""
    return f"objects and lists are nested more than {MAX_DEPTH} deep"


def too_long_number() -> str:
    """Return the words for a number beyond Python's limit of digits."""
    return "a number has too many digits"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise RefusedError(f"the key '{twice[:60]}' is given twice")
    return row


def _constant(name: str) -> None:
    raise RefusedError(f"{name} is not JSON; write null, or leave the key out")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise RefusedError(f"the number {digits[:40]} is too large")
    return number


def _depth(value: Any) -> int:
    deepest = 0
    open_: list[tuple[Any, int]] = [(value, 1)]
    while open_:
        item, depth = open_.pop()
        deepest = max(deepest, depth)
        inner = item.values() if isinstance(item, dict) else item
        open_.extend((part, depth + 1) for part in inner if isinstance(part, dict | list))
    return deepest


def _has_half(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float)
LENIENT = json.JSONDecoder()
"""Finds the end of a value that the strict decoder refuses."""
