"""Motion schedules such as `0:(0), 50:(1.02)` or `0:(2*sin(t/64))`: reading them, and values at a frame. Pure.

Source: https://github.com/deforum-art/deforum-for-automatic1111-webui/wiki/Animation-Settings and
`DeformAnimKeys` there: numbers run linearly from key to key; an expression holds until the next key.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_TOKEN = re.compile(r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+|[A-Za-z_]\w*|\*\*|[-+*/%(),])")
NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
_FUNCTIONS: Mapping[str, tuple[int, Callable[..., float]]] = {
    "sin": (1, math.sin),
    "cos": (1, math.cos),
    "tan": (1, math.tan),
    "asin": (1, math.asin),
    "acos": (1, math.acos),
    "atan": (1, math.atan),
    "arcsin": (1, math.asin),
    "arccos": (1, math.acos),
    "arctan": (1, math.atan),
    "tanh": (1, math.tanh),
    "sqrt": (1, math.sqrt),
    "exp": (1, math.exp),
    "log": (1, math.log),
    "abs": (1, math.fabs),
    "floor": (1, math.floor),
    "ceil": (1, math.ceil),
    "min": (2, min),
    "max": (2, max),
}
_BINARY: Mapping[str, tuple[int, Callable[[float, float], float]]] = {
    "+": (1, lambda a, b: a + b),
    "-": (1, lambda a, b: a - b),
    "*": (2, lambda a, b: a * b),
    "/": (2, lambda a, b: a / b),
    "%": (2, math.fmod),
    "**": (4, math.pow),
}
MAX_EXPRESSION = 500
MAX_DEPTH = 40


@dataclass(frozen=True)
class Key:
    """A frame of a schedule and what is written for it."""

    frame: int
    expression: str


class _NoValueError(ValueError):
    pass


def evaluate(expression: str, variables: Mapping[str, float]) -> float | None:
    """Return the value of an arithmetic expression, None if it has none that is a finite number.

    Known are `+ - * / % **`, brackets, pi, the usual functions of one number, min and max.
    """
    try:
        value = _Expression(expression, variables).result()
    except (_NoValueError, ArithmeticError, ValueError):
        return None
    return value if math.isfinite(value) else None


class _Expression:
    def __init__(self, text: str, variables: Mapping[str, float]) -> None:
        self.variables = {"pi": math.pi, **variables}
        self.tokens: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if not match or len(text) > MAX_EXPRESSION:
                raise _NoValueError
            self.tokens.append(match[1])
            at = match.end()
        self.at = 0

    def result(self) -> float:
        value = self._sum(0, 0)
        if self.at < len(self.tokens):
            raise _NoValueError
        return value

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self, wanted: str = "") -> str:
        token = self._next()
        if not token or (wanted and token != wanted):
            raise _NoValueError
        self.at += 1
        return token

    def _sum(self, least: int, depth: int) -> float:
        if depth > MAX_DEPTH:
            raise _NoValueError
        value = self._term(depth)
        while (known := _BINARY.get(self._next())) and known[0] > least:
            self.at += 1
            # ** groups to the right
            strength = known[0] - (known[0] == 4)
            value = known[1](value, self._sum(strength, depth + 1))
        return value

    def _term(self, depth: int) -> float:
        token = self._take()
        if token in "+-":
            value = self._sum(3, depth + 1)
            return -value if token == "-" else value
        if token == "(":
            value = self._sum(0, depth + 1)
            self._take(")")
            return value
        if token in _FUNCTIONS and self._next() == "(":
            return self._call(*_FUNCTIONS[token], depth)
        if token in self.variables:
            return self.variables[token]
        return float(token)

    def _call(self, count: int, function: Callable[..., float], depth: int) -> float:
        self._take("(")
        given = [self._sum(0, depth + 1)]
        for _ in range(count - 1):
            self._take(",")
            given.append(self._sum(0, depth + 1))
        self._take(")")
        return function(*given)


def read_schedule(text: str, max_frames: int | None = None) -> tuple[list[Key], list[str]]:
    """Return the keys of a schedule by frame, and its parts that cannot be read.

    Brackets around a value may be missing. Expressions are kept as written. A frame that is given twice
    has the last value.
    """
    variables = {} if max_frames is None else {"max_f": float(max_frames)}
    keys: dict[int, Key] = {}
    unread: list[str] = []
    for part in _parts(text):
        name, colon, value = part.partition(":")
        frame = evaluate(name.strip().strip("\"'"), variables)
        inner = _unbracketed(value.strip())
        if not colon or frame is None or frame < 0 or not inner:
            unread.append(part)
        else:
            keys[int(frame)] = Key(int(frame), inner)
    return [keys[frame] for frame in sorted(keys)], unread


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    depth = begin = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[begin:at])
            begin = at + 1
    parts.append(text[begin:])
    return [part.strip() for part in parts if part.strip()]


def _unbracketed(text: str) -> str:
    """Return what is inside one pair of brackets around the whole text; "" if they do not match."""
    depth = 0
    whole = text[:1] == "("
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return ""
        whole = whole and (depth > 0 or at == len(text) - 1)
    if depth:
        return ""
    return text[1:-1].strip() if whole else text


def value_at(keys: list[Key], frame: int, variables: Mapping[str, float]) -> float | None:
    """Return the value at a frame; None where the schedule has no number there."""
    before = [key for key in keys if key.frame <= frame]
    after = [key for key in keys if key.frame > frame]
    if not before:
        return _key_value(after[0], after[0].frame, variables) if after else None
    last = before[-1]
    value = _key_value(last, frame, variables)
    if value is None or not after or not NUMBER.fullmatch(last.expression):
        return value
    coming = _key_value(after[0], after[0].frame, variables)
    if coming is None:
        return value
    share = (frame - last.frame) / (after[0].frame - last.frame)
    return value + share * (coming - value)


def _key_value(key: Key, frame: int, variables: Mapping[str, float]) -> float | None:
    return evaluate(key.expression, {**variables, "t": float(frame)})
