"""Width and height to an aspect ratio as it is called. Pure."""

import re
from collections.abc import Mapping
from math import gcd

_NAMED: Mapping[str, float] = {
    "1:1": 1.0,
    "5:4": 5 / 4,
    "4:3": 4 / 3,
    "3:2": 3 / 2,
    "16:10": 16 / 10,
    "16:9": 16 / 9,
    "1.85:1": 1.85,
    "2:1": 2.0,
    "21:9": 21 / 9,
    "2.39:1": 2.39,
    "4:5": 4 / 5,
    "3:4": 3 / 4,
    "2:3": 2 / 3,
    "10:16": 10 / 16,
    "9:16": 9 / 16,
    "1:2": 1 / 2,
    "9:21": 9 / 21,
}
_TOLERANCE = 0.02
_RATIO = re.compile(r"(?<![\d:.])(\d{1,2}(?:\.\d{1,3})?)\s?[:x×]\s?(\d{1,2})(?![\d:.]\d)")
_CINEMA = re.compile(r"[12]\.\d{1,2}:1")
"""2.35:1, 2.40:1 and the like, which are written with a decimal point and nothing else is."""
_SURE = frozenset({"16:9", "21:9"})
_FORMS = r"aspect|ratio|format|frame|framing|crop|picture|screen|image|video|composition"
_FORM_BEFORE = re.compile(rf"\b(?:{_FORMS})\b(?: (?:of|is|in|at))?[\s:=(]*$", re.IGNORECASE)
_FORM_AFTER = re.compile(
    rf"[\s)-]*(?:vertical|portrait|landscape|horizontal|square|wide-?screen|letterbox\w*|{_FORMS})\b",
    re.IGNORECASE,
)


def aspect_ratio(width: int, height: int) -> str:
    """Return the usual ratio within 2 %, such as 16:9 for 896 by 512, else the reduced fraction.

    Sizes are rounded to what a model takes, so the exact fraction is seldom what was meant.
    """
    ratio = width / height
    name, value = min(_NAMED.items(), key=lambda pair: abs(pair[1] / ratio - 1))
    if abs(value / ratio - 1) <= _TOLERANCE:
        return name
    divisor = gcd(width, height)
    return f"{width // divisor}:{height // divisor}"


def ratio_in(text: str) -> str:
    """Return the first aspect ratio with a usual name in a text, "" if there is none."""
    return next((_name(match) for match in _RATIO.finditer(text) if _usual(match)), "")


def ratio_of_prompt(text: str) -> str:
    """Return the aspect ratio that the words of a prompt ask for, "" if they ask for none.

    A prompt may also hold a score, a time or a proportion. Pairs that can be one of these count only as
    a clause of their own, or beside a word for the picture's form: `a wall clock at 9:16` is a time.
    """
    for match in _RATIO.finditer(text):
        if _usual(match) and (_name(match) in _SURE or "." in match[1] or _beside(text, match)):
            return _name(match)
    return ""


def _name(match: re.Match[str]) -> str:
    return f"{match[1]}:{match[2]}"


def _usual(match: re.Match[str]) -> bool:
    return _name(match) in _NAMED or bool(_CINEMA.fullmatch(_name(match)))


def _beside(text: str, match: re.Match[str]) -> bool:
    before, after = text[: match.start()], text[match.end() :]
    alone = re.search(r"(?:^|[,.;(\[])\s*$", before) and re.match(r"\s*(?:$|[,.;)\]])", after)
    return bool(alone or _FORM_BEFORE.search(before[-40:]) or _FORM_AFTER.match(after))
