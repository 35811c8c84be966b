r"""What is written inside a prompt: `--neg`, other flags, weights such as `(word:1.2)`. Pure.

Source: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features (attention, emphasis): round
brackets raise a weight, square brackets lower it, `(words:1.2)` names it, `\(` is a plain bracket.
"""

import re
from collections.abc import Mapping

from tunewright.data.storyboards.shot import Parameter

NEGATIVE_FLAGS = frozenset({"neg", "no", "negative", "negative_prompt"})
_FLAG = re.compile(r"(?:^|\s)--([A-Za-z_]+)(?=\s|=|$)[ \t=]*")
_NUMBERS: Mapping[str, tuple[str, type]] = {
    "seed": ("seed", int),
    "steps": ("steps", int),
    "s": ("steps", int),
    "cfg": ("guidance_scale", float),
    "scale": ("guidance_scale", float),
    "guidance": ("guidance_scale", float),
    "w": ("width", int),
    "width": ("width", int),
    "h": ("height", int),
    "height": ("height", int),
    "fps": ("fps", int),
}
_RATIO_FLAGS = frozenset({"ar", "aspect"})
_WEIGHT = re.compile(r"\s*:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*(?=[)\]])")
_RATIO = re.compile(r"(?<![\d:.])(?:16:9|21:9|9:16|[12]\.\d{1,2}:1)(?=\s*[)\]])")
"""An aspect ratio in brackets, which is no word with a weight."""
MAX_NESTING = 12
"""Brackets inside each other that are taken off; more stay."""
_CLOSING = {")": "(", "]": "[", "}": "{"}
_CLAUSE_END = re.compile(r",\s+|;\s+")


def split_flags(prompt: str) -> tuple[str, str, dict[str, Parameter]]:
    """Return the prompt without its flags, the negative prompt, and the parameters that flags give.

    A negative prompt ends at the next flag. Flags that are not known stay in the prompt.
    """
    marks = list(_FLAG.finditer(prompt))
    if not marks:
        return prompt.strip(), "", {}
    kept = [prompt[: marks[0].start()]]
    negatives: list[str] = []
    parameters: dict[str, Parameter] = {}
    ends = [*(mark.start() for mark in marks[1:]), len(prompt)]
    for mark, end in zip(marks, ends, strict=True):
        name, value = mark[1].lower(), prompt[mark.end() : end].strip()
        if name in NEGATIVE_FLAGS:
            negatives.append(value.strip(" ,"))
        elif not _parameter(name, value, parameters):
            kept.append(prompt[mark.start() : end])
    return "".join(kept).strip(), ", ".join(n for n in negatives if n), parameters


def _parameter(name: str, value: str, parameters: dict[str, Parameter]) -> bool:
    if name in _RATIO_FLAGS and re.fullmatch(r"\d+(?:\.\d+)?:\d+(?:\.\d+)?", value):
        parameters["aspect_ratio"] = value
        return True
    if name not in _NUMBERS:
        return False
    key, kind = _NUMBERS[name]
    if not re.fullmatch(r"\d{1,12}" if kind is int else r"\d{1,6}(?:\.\d{1,6})?", value):
        return False
    parameters[key] = kind(value)
    return True


def unbalanced(text: str) -> str:
    """Return the first bracket that has no partner, "" if all have one."""
    opened: list[str] = []
    for character in _brackets(text):
        if character in "([{":
            opened.append(character)
        elif not opened or opened.pop() != _CLOSING[character]:
            return character
    return opened[-1] if opened else ""


def _brackets(text: str) -> list[str]:
    return [m[0] for m in re.finditer(r"\\.|[()\[\]{}]", text, re.DOTALL) if len(m[0]) == 1]


def weighted(text: str) -> bool:
    """Return whether a weight with a number stands in the text, closed or not."""
    return bool(_WEIGHT.search(text) or re.search(r"[(\[][^()\[\]]*:\s*\d+\.\d", text))


def without_weights(text: str) -> str:
    """Return the text as one would say it: no weights, no emphasis brackets.

    An aside in round brackets, with a space and a word before it and no weight, stays: `Bea (81) waits`.
    """
    plain = _WEIGHT.sub("\0", _RATIO.sub(lambda match: match[0].replace(":", "\1"), text))
    previous = ""
    for _ in range(MAX_NESTING):
        if plain == previous:
            break
        previous = plain
        plain = re.sub(r"\(([^()\[\]]*)\0\)|\[([^()\[\]]*)\0?\]", _inside, plain)
        plain = re.sub(r"\(\(([^()\[\]]*)\)\)", _inside, plain)
        plain = re.sub(r"(?<![\w.!?’'\"]\s)(?<![\w\\])\(([^()\[\]]*)(?<!\\)\)", _inside, plain)
    plain = re.sub(r"\\([()\[\]{}])", r"\1", plain.replace("\0", "").replace("\1", ":"))
    return re.sub(r"\s+", " ", plain).strip()


def _inside(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)


def clauses(text: str) -> list[str]:
    """Return the parts of a prompt between commas or semicolons that are outside of all brackets."""
    depths = _depths(text)
    parts: list[str] = []
    begin = 0
    for match in _CLAUSE_END.finditer(text):
        if depths[match.start()] == 0:
            parts.append(text[begin : match.start()])
            begin = match.end()
    parts.append(text[begin:])
    return [part.strip() for part in parts if part.strip(" ,;")]


def _depths(text: str) -> list[int]:
    depths: list[int] = []
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        depths.append(max(depth, 0))
    return depths
