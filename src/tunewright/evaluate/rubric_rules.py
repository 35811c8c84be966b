"""What is counted and looked up in a structured answer: parts, numbers of words, emphasis, parameters."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from tunewright.config.schema.rubrics import (
    CountSection,
    ParameterSection,
    RubricSection,
    WeightsSection,
)
from tunewright.counting import counted

Found = tuple[bool, str]
"""Whether a rule is kept, and what was found."""
SHOWN = 120
"""Characters of what was found that are shown."""
_HEADING = re.compile(r"#{1,6}\s+\S.*")
_WORD = re.compile(r"[一-鿿]|[^\W_一-鿿]+(?:['’-][^\W_一-鿿]+)*")
"""A Chinese character counts as a word, as prompt guides for Chinese count."""
_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]”’]*(?=\s|$)|[。！？]+")
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n")
_BRACKET = re.compile(r"\\.|[()\[\]{}]", re.DOTALL)
_OPENING = {")": "(", "]": "[", "}": "{"}
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?![\w.:/])")
_NUMERIC = re.compile(r"\s*[+-]?[\d.,]*\d[\d.,]*\s*")
_QUOTES = "\"'`*"


def shown(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[:SHOWN] + "..."


def parts_of(text: str, headings: Sequence[str]) -> list[tuple[str, str]]:
    """Return the parts of an answer, each with its heading; the first one has none.

    A heading begins its line: one of `headings`, or a line of Markdown's. What follows one of `headings`
    on its line belongs to its part.
    """
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        start = line.strip()
        own = max((h for h in headings if _begins(start, h)), key=len, default=None)
        if own is not None:
            parts.append((own, [start.removeprefix(own)]))
        elif _HEADING.fullmatch(start):
            parts.append((start, []))
        else:
            parts[-1][1].append(line)
    return [(heading, "\n".join(lines).strip()) for heading, lines in parts]


def _begins(line: str, heading: str) -> bool:
    inside_word = heading[-1].isalnum() and line[len(heading) :][:1].isalnum()
    return line.startswith(heading) and not inside_word


def sections_found(text: str, sections: Sequence[str]) -> Found:
    """Return whether an answer has the sections: each once, in this order, none of them empty."""
    parts = [(heading, body) for heading, body in parts_of(text, sections) if heading in sections]
    headings = [heading for heading, _ in parts]
    for section in sections:
        if section not in headings:
            return False, f"'{section}' is missing"
        if headings.count(section) > 1:
            return False, f"'{section}' is there {headings.count(section)} times"
    if headings != list(sections):
        return False, f"the order is {', '.join(headings)}"
    empty = next((heading for heading, body in parts if not body), None)
    return (True, "all there") if empty is None else (False, f"'{empty}' is empty")


def counts_of(rubric: RubricSection) -> Iterator[tuple[str, CountSection, Callable[[str], int]]]:
    """Yield what a rubric counts: the unit, the limits, and the function that counts."""
    counted: Mapping[str, tuple[CountSection | None, Callable[[str], int]]] = {
        "word": (rubric.words, lambda text: len(_WORD.findall(text))),
        "sentence": (rubric.sentences, _sentences),
        "paragraph": (rubric.paragraphs, lambda text: _filled(_BLANK_LINES.split(text))),
        "character": (rubric.characters, len),
    }
    for unit, (limits, count) in counted.items():
        if limits is not None:
            yield unit, limits, count


def _sentences(text: str) -> int:
    return _filled(_SENTENCE_END.split(text))


def _filled(pieces: Sequence[str]) -> int:
    return sum(bool(_WORD.search(piece)) for piece in pieces)


def count_found(count: int, unit: str, limits: CountSection) -> Found:
    """Return whether a number keeps to its limits."""
    passed = (limits.min is None or count >= limits.min) and (
        limits.max is None or count <= limits.max
    )
    return passed, counted(count, unit)


def count_rule(unit: str, limits: CountSection) -> str:
    """Return the limits of a number in words."""
    if limits.min is None:
        return f"at most {counted(limits.max or 0, unit)}"
    if limits.max is None:
        return f"at least {counted(limits.min, unit)}"
    if limits.min == limits.max:
        return counted(limits.max, unit)
    return f"{limits.min} to {counted(limits.max, unit)}"


def weights_found(text: str, limits: WeightsSection) -> Found:
    r"""Return whether brackets are balanced and weights in their range.

    `\(` is a plain bracket. Of `(text:number)` the number is the weight, be it meant as one or not: `(16:9)`
    weighs 9.

    Source: ComfyUI's README, and token_weights in its comfy/sd1_clip.py.
    """
    opened: list[tuple[str, int]] = []
    weights = 0
    for match in _BRACKET.finditer(text):
        sign = match[0]
        if len(sign) > 1:
            continue
        if sign not in _OPENING:
            opened.append((sign, match.end()))
            continue
        if not opened or opened[-1][0] != _OPENING[sign]:
            return False, f"'{sign}' closes nothing"
        start = opened.pop()[1]
        inner = text[start : match.start()]
        if sign == ")" and ":" in inner:
            weights += 1
            fault = _weight_fault(inner, limits)
            if fault:
                return False, f"'({shown(inner)})' {fault}"
    if opened:
        return False, f"'{opened[-1][0]}' is not closed"
    return True, f"balanced, {counted(weights, 'weight')}"


def _weight_fault(inner: str, limits: WeightsSection) -> str | None:
    text, _, number = inner.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        return "has no number for a weight" if _NUMERIC.fullmatch(number) else None
    if not text.strip():
        return "has a weight and no text"
    return None if limits.min <= weight <= limits.max else f"has the weight {weight:g}"


def parameter_rule(parameter: ParameterSection) -> str:
    """Return what is asked of a parameter, in words."""
    asked: list[str] = []
    if parameter.multiple_of is not None:
        step, plus = parameter.multiple_of, parameter.plus
        whole = "a whole number" if step == 1 else f"a multiple of {step}"
        asked.append(f"{step}n + {plus}" if plus else whole)
    if parameter.min is not None and parameter.max is not None:
        asked.append(f"{parameter.min:g} to {parameter.max:g}")
    elif parameter.min is not None:
        asked.append(f"at least {parameter.min:g}")
    elif parameter.max is not None:
        asked.append(f"at most {parameter.max:g}")
    if parameter.choices:
        asked.append(" or ".join(parameter.choices))
    if parameter.required:
        asked.append("stated")
    return f"{parameter.name}: {', '.join(asked)}"


def parameter_found(text: str, parameter: ParameterSection) -> Found:
    """Return whether a parameter is stated as often as it must be, and as it should be each time."""
    values = list(_stated(text, parameter))
    if not values:
        return not parameter.required, "not stated"
    wrong = next((value for value in values if not _fits(value, parameter)), None)
    return wrong is None, shown(wrong or values[0]) or "no value"


def _stated(text: str, parameter: ParameterSection) -> Iterator[str]:
    names = "|".join(
        r"[\s_-]*".join(map(re.escape, re.findall(r"[^\s_-]+", name)))
        for name in (parameter.name, *parameter.also)
    )
    pattern = rf"(?<!\w)(?:{names})[{_QUOTES}]*[^\S\n]*[:=]([^,;\n]*)"
    for match in re.finditer(pattern, text, re.IGNORECASE):
        yield match[1].strip(f" \t.{_QUOTES}}})]")


def _fits(value: str, parameter: ParameterSection) -> bool:
    if parameter.choices:
        return _plain(value) in map(_plain, parameter.choices)
    if parameter.min is None and parameter.max is None and parameter.multiple_of is None:
        return bool(value)
    number = _NUMBER.match(value)
    if number is None:
        return False
    amount = float(number[0])
    whole = parameter.multiple_of is None or (amount - parameter.plus) % parameter.multiple_of == 0
    low = parameter.min is None or amount >= parameter.min
    high = parameter.max is None or amount <= parameter.max
    return whole and low and high


def _plain(value: str) -> str:
    return re.sub(r"\s+", "", value).casefold().replace("*", "x").replace("×", "x")
