"""Texts that are safe in a terminal."""

import json
import re

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, what turns the direction of text round, and bytes that are not UTF-8."""


def visible(text: object, *, keep: str = "") -> str:
    """Return a text with everything that a terminal would obey as an escape, save what is in `keep`."""

    def shown(match: re.Match[str]) -> str:
        character = match[0]
        return character if character in keep else ascii(character)[1:-1]

    return _UNSEEN.sub(shown, str(text))


def visible_json(values: object) -> str:
    """Return values as JSON that holds no character a terminal would obey."""
    text = json.dumps(values, indent=2, ensure_ascii=False, default=str)
    return _UNSEEN.sub(lambda m: m[0] if m[0] == "\n" else f"\\u{ord(m[0]):04x}", text)
