"""Screenplays in Fountain to shots: action and shot lines under scene headings. Pure.

Source: https://fountain.io/syntax
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunewright.data.storyboards.prompts import split_flags
from tunewright.data.storyboards.shot import Parameter, Shot, Tell
from tunewright.data.storyboards.spans import without_spans

SUFFIXES = (".fountain", ".spmd")
_HEADING = re.compile(
    r"(?P<place>INT\.?/EXT|EXT\.?/INT|I/E|INT|EXT|EST)(?:\.\s*|\s+)(?P<rest>\S.*)", re.IGNORECASE
)
_NUMBER = re.compile(r"\s*#(?P<number>[\w.-]+)#\s*$")
_TITLE = re.compile(r"[A-Za-z][A-Za-z ]{1,24}:.*")
_TIMES = re.compile(
    r"day|night|dawn|dusk|morning|afternoon|evening|noon|midday|midnight|sunset|sunrise|twilight|"
    r"golden hour|magic hour|blue hour",
    re.IGNORECASE,
)
_SHOT_LINE = re.compile(
    r"(?:CLOSE|CLOSER|CLOSE-UP|CLOSEUP|CU|ECU|EXTREME|MEDIUM|MS|WIDE|WIDER|WS|LONG SHOT|ANGLE|NEW ANGLE|INSERT|"
    r"POV|AERIAL|OVERHEAD|TRACKING|DOLLY|PAN|TILT|CRANE|ESTABLISHING|TWO[- ]SHOT|OVER THE SHOULDER|OTS|"
    r"REVERSE|[A-Z' ]+['’]S POV)\b.*"
)
_TRANSITION = re.compile(
    r"(?:[A-Z][A-Z .'-]*TO:|FADE (?:IN|OUT)[.:]?|(?:SMASH |MATCH )?CUT[.:]?|THE END\.?|END CREDITS\.?)"
)
_CONTEXT = frozenset({"continuous", "later", "moments later", "same", "same time"})
_PLACES = {"int": "interior", "ext": "exterior", "est": "exterior"}


@dataclass(frozen=True)
class _Scene:
    heading: str = ""
    number: str = ""
    setting: str = ""
    time: str = ""


@dataclass(frozen=True)
class _Paragraph:
    """Lines between blank lines, the first with its line number."""

    line: int
    lines: tuple[str, ...]


def is_fountain(name: str, head: str) -> bool:
    """Return whether a text is a screenplay: by its suffix, or by two scene headings in capitals."""
    if name.lower().endswith(SUFFIXES):
        return True
    found = 0
    before = ""
    for line in head.splitlines():
        text = line.strip()
        if not before and _HEADING.fullmatch(text) and text == text.upper() and text[:3].isalpha():
            found += 1
        before = text
    return found >= 2


def read_fountain(name: str, text: str, tell: Tell) -> list[Shot]:
    """Return a shot for each paragraph of action and each shot line.

    Left out are the title page, dialogue, transitions, centred text, lyrics, sections, synopses, notes
    and what is commented out, as none of them is a picture.
    """
    scene = _Scene()
    scenes = 0
    count = 0
    shots: list[Shot] = []
    for paragraph in _paragraphs(_stripped(text)):
        heading = _heading(paragraph.lines[0]) if len(paragraph.lines) == 1 else None
        if heading:
            scene, scenes, count = heading, scenes + 1, 0
            continue
        action = _action(paragraph)
        if not action:
            continue
        count += 1
        label = f"{scene.number or scenes}-{count}"
        if shot := _shot(f"{name}#{label}", paragraph.line, action, scene):
            shots.append(shot)
        else:
            tell(paragraph.line, "This action has no words.", "Describe the picture, or remove it.")
    if not shots:
        tell(1, "No action is found in this screenplay.", "Write action under scene headings.")
    return _distinct(shots)


def _distinct(shots: list[Shot]) -> list[Shot]:
    """Return the shots with the line in the id of those whose scene number is there twice."""
    seen: set[str] = set()
    result: list[Shot] = []
    for shot in shots:
        repeated = shot.source_id in seen
        seen.add(shot.source_id)
        name = f"{shot.source_id}-line{shot.line}"
        result.append(replace(shot, source_id=name) if repeated else shot)
    return result


def _stripped(text: str) -> str:
    """Return the text without title page, boneyard and notes; lines keep their numbers."""
    text = without_spans(without_spans(text, "/*", "*/"), "[[", "]]")
    first = text.lstrip("\n")
    if _TITLE.match(first) and not _HEADING.match(first) and not _TRANSITION.match(first):
        lead = len(text) - len(first)
        end = text.find("\n\n", lead)
        end = len(text) if end < 0 else end
        text = "\n" * text[:end].count("\n") + text[end:]
    return text


def _paragraphs(text: str) -> Iterator[_Paragraph]:
    collected: list[str] = []
    begin = 0
    for number, raw in enumerate([*text.split("\n"), ""], start=1):
        line = raw.strip()
        if not line or _alone(line, collected):
            if collected:
                yield _Paragraph(begin, tuple(collected))
            collected = []
            if line:
                yield _Paragraph(number, (line,))
        else:
            begin = begin if collected else number
            collected.append(line)


def _alone(line: str, before: list[str]) -> bool:
    """Return whether a scene heading without a blank line after it begins here."""
    return not before and _heading(line) is not None


def _heading(line: str) -> _Scene | None:
    number = _NUMBER.search(line)
    bare = line[: number.start()] if number else line
    label = number["number"] if number else ""
    forced = bare.startswith(".") and not bare.startswith("..")
    match = _HEADING.fullmatch(bare.removeprefix(".") if forced else bare)
    if not match and not forced:
        return None
    heading = bare.removeprefix(".").strip() if forced else bare.strip()
    place, rest = (match["place"].lower(), match["rest"]) if match else ("", heading)
    parts = [part.strip() for part in re.split(r"\s+[-–—]+\s+|\s*[–—]\s*", rest) if part.strip()]
    time = next((part.lower() for part in reversed(parts[1:]) if _TIMES.search(part)), "")
    kept = [p.lower() for p in parts if p.lower() != time and p.lower() not in _CONTEXT]
    setting = ", ".join([_PLACES.get(place, "") if place else "", *kept]).strip(", ")
    return _Scene(heading, label, setting, time)


def _action(paragraph: _Paragraph) -> str:
    """Return the words of a paragraph of action, "" if it is something else."""
    lines = paragraph.lines
    if _is_dialogue(lines) or _is_mark(lines[0]):
        return ""
    kept = [line.removeprefix("!") for line in lines if not _is_mark(line)]
    words = re.sub(r"(?<!\\)[*_]+", "", " ".join(kept))
    return re.sub(r"\s+(?=[.,;!?])", "", words).strip()


def _is_dialogue(lines: tuple[str, ...]) -> bool:
    first = lines[0]
    if len(lines) < 2 or first.startswith("!"):
        return False
    cue = re.sub(r"\([^)]*\)|\^", "", first).strip()
    if first.startswith("@"):
        return True
    return cue == cue.upper() and any(c.isalpha() for c in cue) and not _SHOT_LINE.fullmatch(cue)


def _is_mark(line: str) -> bool:
    """Return whether a line is a transition, centred, lyrics, a section, a synopsis or a page break."""
    return line.startswith((">", "~", "#", "=")) or bool(_TRANSITION.fullmatch(line))


def _shot(source_id: str, line: int, action: str, scene: _Scene) -> Shot | None:
    text, negative, flags = split_flags(action)
    if not any(character.isalnum() for character in text):
        return None
    if text == text.upper():
        text = text.capitalize()
    parameters: dict[str, Parameter] = dict(flags)
    if scene.setting:
        parameters["setting"] = scene.setting
    if scene.time:
        parameters["time_of_day"] = scene.time
    return Shot(source_id, line, scene.heading, text, negative, "", (), parameters)
