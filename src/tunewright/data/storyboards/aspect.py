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
    for match in _RATIO.finditer(text):
        name = f"{match[1]}:{match[2]}"
        if name in _NAMED or name == "2.35:1":
            return name
    return ""
