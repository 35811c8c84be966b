"""Prompt schedules: a text of `frame: prompt` entries, with or without quotes, braces and commas. Pure."""

import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from tunewright.data.storyboards.prompts import split_flags, unbalanced
from tunewright.data.storyboards.schedules import evaluate
from tunewright.data.storyboards.shot import Parameter, Shot, Tell

Length = Callable[[int, int | None], dict[str, Parameter]]

_FRAME = re.compile(
    r"(?P<q>[\"']?)(?P<frame>-?\d+(?:\.\d+)?|max_f[\w +*/.-]{0,40})(?P=q)[ \t]*:(?![/\d])[ \t]*"
)
_BETWEEN = re.compile(
    r"(?:[\s,{}|;]+|[A-Za-z_]\w*[ \t]*=\s*(?=\{)|#[^\n]*|//[^\n]*|/\*.{0,9999}?\*/)+", re.DOTALL
)
_ASSIGNMENT = re.compile(r"^[ \t]*[A-Za-z_]\w*\s*=\s*(?=\{)", re.MULTILINE)
_STRING = {
    '"': re.compile(r'"((?:[^"\\]|\\.|"(?![ \t]*(?:[,|}#\n]|//|\Z)))*)"', re.DOTALL),
    "'": re.compile(r"'((?:[^'\\]|\\.|'(?![ \t]*(?:[,|}#\n]|//|\Z)))*)'", re.DOTALL),
}
_NEXT = re.compile(r"\n[ \t]*[\"']?-?\d+[\"']?[ \t]*:(?![/\d])")
_BARE_END = re.compile(
    r"[ \t]+(?:#|//)[ \t][^\n]*|[ \t]*\|[ \t]*(?=[\"']?\d+[\"']?[ \t]*:(?![/\d]))|\n"
)
_CONTINUED = re.compile(
    r"\n[ \t]+(?![\"']?-?\d+[\"']?[ \t]*:(?![/\d]))(?=[^\s#/}])"
    r"([^\n]*?)(?=[ \t]+(?:#|//)[ \t]|\n|\Z)"
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
MAX_PROMPT = 20000
"""Characters: a quoted prompt that goes on longer has lost its closing quote."""


@dataclass(frozen=True)
class Entry:
    """A frame as written, its prompt as written, and the physical line."""

    frame: str
    prompt: str
    line: int


def is_schedule(head: str) -> bool:
    """Return whether a text is a prompt schedule: entries from frame 0 on, rising, and little else."""
    body = _ASSIGNMENT.sub("", head)
    lines = [line.strip(" \t{},") for line in body.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    marks = [re.match(r"[\"']?(\d{1,7})[\"']?\s*:(?![/\d])\s*(\S.*)", line) for line in lines]
    found = [mark for mark in marks if mark]
    frames = [int(mark[1]) for mark in found]
    if not frames or frames[0] != 0 or frames != sorted(frames):
        return False
    sure = any(mark[2].startswith(('"', "'")) or "--neg" in mark[2] for mark in found)
    return len(found) * 10 >= len(lines) * 6 and (sure or len(found) >= 3)


def read_entries(text: str, first_line: int, tell: Tell) -> list[Entry]:
    """Return the entries of a schedule in the order of the text; what is no entry is reported."""
    breaks = [match.start() for match in re.finditer("\n", text)]
    entries: list[Entry] = []
    at = 0
    while True:
        if between := _BETWEEN.match(text, at):
            at = between.end()
        if at >= len(text):
            return entries
        line = bisect_left(breaks, at) + first_line
        mark = _FRAME.match(text, at)
        if not mark:
            at = _line_end(text, at)
            tell(line, "This line is no entry of the prompt schedule.", 'Write `FRAME: "prompt"`.')
            continue
        prompt, at = _prompt(text, mark.end(), line, tell)
        if prompt is not None:
            entries.append(Entry(mark["frame"].strip(), prompt, line))


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _prompt(text: str, at: int, line: int, tell: Tell) -> tuple[str | None, int]:
    quote = text[at : at + 1]
    if quote in _STRING:
        following = _NEXT.search(text, at)
        stop = min(following.start() if following else len(text), at + MAX_PROMPT)
        match = _STRING[quote].match(text, at, stop)
        if not match:
            tell(line, f"The quote {quote} of this prompt is never closed.", "Close the quote.")
            return None, _line_end(text, at)
        return _ESCAPED.sub(_unescaped, match[1]), match.end()
    end = _BARE_END.search(text, at)
    stop = end.start() if end else len(text)
    prompt = text[at:stop]
    stop = _line_end(text, stop) if end and "|" not in end[0] else stop
    while more := _CONTINUED.match(text, stop):
        prompt += " " + more[1]
        stop = more.end()
    return prompt.strip().rstrip(",").rstrip(), stop


def _unescaped(match: re.Match[str]) -> str:
    # brackets keep their backslash: it says that they are no weight
    return {"n": " ", "t": " "}.get(match[1], match[0] if match[1] in "()[]{}" else match[1])


def shots_of_entries(
    entries: list[Entry], name: str, tell: Tell, length: Length, max_frames: int | None = None
) -> list[Shot]:
    """Return a shot for each usable entry, in the order of frames; of equal frames the last counts.

    Args:
        entries: What the schedule says.
        name: File name, for `source_id`.
        tell: Called for entries that cannot be used: no frame number, nothing in the prompt, brackets
            that do not match, a frame that is given again later.
        length: Called with a frame and the next one, returns parameters of the shot.
        max_frames: Value of `max_f` in frames.
    """
    usable: dict[int, Entry] = {}
    for entry in entries:
        frame = _frame(entry, max_frames, tell)
        if frame is None:
            continue
        if frame in usable:
            tell(
                entry.line,
                f"Frame {frame} is already on line {usable[frame].line}, which is left out.",
                "Give one of the two another frame, or remove it.",
            )
        usable[frame] = entry
    frames = sorted(usable)
    ends: list[int | None] = [*frames[1:], None][: len(frames)]
    shots = [
        _shot(usable[frame], name, frame, length(frame, end), tell)
        for frame, end in zip(frames, ends, strict=True)
    ]
    return [shot for shot in shots if shot]


def _frame(entry: Entry, max_frames: int | None, tell: Tell) -> int | None:
    variables = {} if max_frames is None else {"max_f": float(max_frames)}
    value = evaluate(entry.frame, variables)
    if value is None or value < 0 or value != int(value):
        tell(
            entry.line,
            f"The prompt stands at {entry.frame!r}, which is not a frame.",
            "Write a whole number from 0 before the prompt.",
        )
        return None
    return int(value)


def _shot(
    entry: Entry, name: str, frame: int, more: dict[str, Parameter], tell: Tell
) -> Shot | None:
    text, negative, flags = split_flags(" ".join(entry.prompt.split()))
    if not text.strip(" ,.;"):
        tell(entry.line, f"The prompt of frame {frame} is empty.", "Write a prompt, or remove it.")
        return None
    for part, what in ((text, "prompt"), (negative, "negative prompt")):
        if bracket := unbalanced(part):
            tell(
                entry.line,
                f"The {what} of frame {frame} has a '{bracket}' without a partner.",
                "Close or remove the bracket; write \\( for a plain one.",
            )
            return None
    return Shot(
        f"{name}#{frame}", entry.line, "", text, negative, "", (), {**more, **flags, "frame": frame}
    )
