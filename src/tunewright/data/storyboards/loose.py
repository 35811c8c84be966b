"""JSON as people write it: comments, trailing commas, single quotes, Python's words. With line numbers. Pure."""

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 100
Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[\s\ufeff]+|//[^\n]*|#[^\n]*|/\*.*?\*/)+", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_$][\w$.-]*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_PLAIN = {'"': re.compile(r'[^"\\]+'), "'": re.compile(r"[^'\\]+")}
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_HIGH = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "\n": ""}
_WORDS: Mapping[str, Any] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
    "undefined": None,
    "NaN": float("nan"),
    "nan": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}


class LooseError(ValueError):
    """The text is not JSON, however loosely read.

    Attributes:
        message: What is wrong.
        line: Physical line from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(f"line {line}: {message}")
        self.message = message
        self.line = line


@dataclass(frozen=True)
class Loose:
    """A value and where its parts stand.

    Attributes:
        value: As `json.loads` returns it; of equal keys the last counts.
        lines: Physical line, from 1, of each member and element, by its path.
        repeated: Path, line and line of the first, for every key that its object has already.
    """

    value: Any
    lines: Mapping[Path, int]
    repeated: tuple[tuple[Path, int, int], ...]


def read(text: str) -> Loose:
    """Return the value of a JSON text; any strict JSON of up to 100 levels reads as with `json.loads`.

    Also read: `//`, `#` and `/* */` comments, trailing commas, commas left out at the end of a line,
    single quotes, line breaks in strings, unquoted keys, True, False and None.

    Raises:
        LooseError: The text cannot be read.

    Source: RFC 8259; the additions are those of https://spec.json5.org and of Python's literals.
    """
    reader = _Reader(text)
    value = reader.value((), 0)
    reader.skip()
    if reader.at < len(text):
        raise reader.error(f"{_shown(text[reader.at])} after the end of the value")
    return Loose(value, reader.lines, tuple(reader.repeated))


def _shown(character: str) -> str:
    return f"'{character}'" if character.isprintable() else f"U+{ord(character):04X}"


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.repeated: list[tuple[Path, int, int]] = []
        self._breaks = [m.start() for m in re.finditer("\n", text)]

    def line(self, at: int) -> int:
        return bisect_left(self._breaks, at) + 1

    def error(self, message: str, at: int | None = None) -> LooseError:
        return LooseError(message, self.line(self.at if at is None else at))

    def skip(self) -> str:
        """Pass over blanks and comments and return the next character, "" at the end."""
        if match := _BLANK.match(self.text, self.at):
            self.at = match.end()
        return self.text[self.at : self.at + 1]

    def value(self, path: Path, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} levels inside each other")
        first = self.skip()
        if first == "{":
            return self._object(path, depth)
        if first == "[":
            return self._array(path, depth)
        if first in ("'", '"') and first:
            return self._string()
        return self._scalar()

    def _object(self, path: Path, depth: int) -> dict[str, Any]:
        begin = self.at
        self.at += 1
        found: dict[str, Any] = {}
        while (following := self.skip()) != "}":
            if not following:
                raise self.error("'{' is never closed", begin)
            key_at = self.at
            key = self._key()
            if self.skip() != ":":
                raise self.error(f"':' is missing after the key {key!r}", key_at)
            self.at += 1
            member = (*path, key)
            if key in found:
                self.repeated.append((member, self.line(key_at), self.lines[member]))
            self.lines[member] = self.line(key_at)
            found[key] = self.value(member, depth + 1)
            self._comma("}", begin)
        self.at += 1
        return found

    def _array(self, path: Path, depth: int) -> list[Any]:
        begin = self.at
        self.at += 1
        found: list[Any] = []
        while (following := self.skip()) != "]":
            if not following:
                raise self.error("'[' is never closed", begin)
            member = (*path, len(found))
            self.lines[member] = self.line(self.at)
            found.append(self.value(member, depth + 1))
            self._comma("]", begin)
        self.at += 1
        return found

    def _comma(self, closing: str, begin: int) -> None:
        """Pass over the comma, which may be left out before the closing bracket or at a line's end."""
        end = self.at
        following = self.skip()
        if following == ",":
            self.at += 1
        elif following != closing and self.line(end) == self.line(self.at):
            if not following:
                raise self.error(f"'{self.text[begin]}' is never closed", begin)
            raise self.error(f"',' or '{closing}' is missing before {_shown(following)}")

    def _key(self) -> str:
        if self.text[self.at] in "\"'":
            return self._string()
        match = _NUMBER.match(self.text, self.at) or _WORD.match(self.text, self.at)
        if not match:
            raise self.error(f"a key is missing before {_shown(self.text[self.at])}")
        self.at = match.end()
        return match[0]

    def _scalar(self) -> Any:
        begin = self.at
        for word in ("-Infinity", "+Infinity"):
            if self.text.startswith(word, begin):
                self.at += len(word)
                return _WORDS[word.removeprefix("+")]
        if match := _NUMBER.match(self.text, begin):
            self.at = match.end()
            return self._number(match[0], begin)
        if match := _WORD.match(self.text, begin):
            if match[0] not in _WORDS:
                raise self.error(f"{match[0]!r} is not a value; text needs quotes")
            self.at = match.end()
            return _WORDS[match[0]]
        if begin == len(self.text):
            raise self.error("the text ends where a value should be")
        raise self.error(f"{_shown(self.text[begin])} where a value should be")

    def _number(self, digits: str, begin: int) -> int | float:
        try:
            return float(digits) if any(c in digits for c in ".eE") else int(digits)
        except ValueError as cause:
            raise self.error("a number with too many digits", begin) from cause

    def _string(self) -> str:
        begin = self.at
        quote = self.text[begin]
        self.at += 1
        parts: list[str] = []
        while (character := self.text[self.at : self.at + 1]) != quote:
            if not character:
                raise self.error(f"the quote {quote} is never closed", begin)
            if match := _PLAIN[quote].match(self.text, self.at):
                parts.append(match[0])
                self.at = match.end()
            else:
                parts.append(self._escape(begin))
        self.at += 1
        return "".join(parts)

    def _escape(self, begin: int) -> str:
        if pair := _HIGH.match(self.text, self.at):
            self.at = pair.end()
            high, low = int(pair[1], 16) - 0xD800, int(pair[2], 16) - 0xDC00
            return chr(0x10000 + (high << 10) + low)
        letter = self.text[self.at + 1 : self.at + 2]
        if not letter:
            raise self.error("the text ends inside a string", begin)
        self.at += 2
        if letter != "u":
            return _ESCAPES.get(letter, letter)
        digits = _HEX.match(self.text, self.at)
        if not digits:
            raise self.error("\\u needs four hexadecimal digits")
        self.at = digits.end()
        return chr(int(digits[0], 16))
