"""Storyboards of all forms to shots: which form a text has, and what it says. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from tunewright.data.storyboards.deforum import read_settings, settings_key
from tunewright.data.storyboards.fountain import is_fountain, read_fountain
from tunewright.data.storyboards.key_frames import is_schedule, read_entries, shots_of_entries
from tunewright.data.storyboards.outlines import is_outline, read_outline
from tunewright.data.storyboards.shot import Parameter, Shot, Tell, teller
from tunewright.data.storyboards.tables import is_shot_list, read_table
from tunewright.data.storyboards.wording import given_ratio
from tunewright.errors import Problem

__all__ = ["Shot", "read_shots", "recognise"]

HEAD_CHARACTERS = 65536
"""As much of a text is looked at to find its form."""
_TABLES = (".csv", ".tsv", ".tab")
_NOT_TEXT = (".jsonl", ".ndjson", ".py", ".yaml", ".yml", ".srt", ".vtt")
_SURROGATE = re.compile("[\ud800-\udfff]")


def recognise(name: str, head: str) -> str | None:
    """Return in words why a text is a storyboard, such as "Deforum settings: the key 'prompts'", or None.

    Args:
        name: File name.
        head: The text, or its first 64 KB.
    """
    form = _form(name, head)
    return form[1] if form else None


def read_shots(name: str, text: str, report: Callable[[Problem], None], where: str) -> list[Shot]:
    """Return the shots of a storyboard in the order of the file, or of their frames.

    Everything that cannot be used is left out and reported as E_DATA_ROW with `{where}:{line}`, in the
    order of lines: empty prompts, frames that are no numbers, a frame given twice (the last counts),
    weights whose brackets do not match. A text of no form that is known is reported as a whole.

    Args:
        name: File name; becomes part of `source_id`.
        text: The whole text.
        report: Called for each problem.
        where: How problems name the file.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    problems: list[Problem] = []
    tell = teller(problems.append, where)
    shots = _shots(name, text, tell)
    for problem in sorted(problems, key=lambda one: int(one.where.rpartition(":")[2])):
        report(problem)
    return shots


def _shots(name: str, text: str, tell: Tell) -> list[Shot]:
    form = _form(name, text[:HEAD_CHARACTERS]) or _by_suffix(name, text)
    if not form:
        tell(
            1,
            "This is none of the storyboards that are known.",
            "Give Deforum settings, a prompt schedule, a shot list, an outline or a screenplay.",
        )
        return []
    shots = _READERS[form[0]](name, text, tell)
    return [_with_ratio(shot) for shot in shots if _encodable(shot, tell)]


def _with_ratio(shot: Shot) -> Shot:
    """Return the shot with the aspect ratio that its words ask for: they stay in every row of it."""
    ratio = given_ratio(", ".join((shot.text, *shot.tags, shot.style)))
    return replace(shot, parameters={**shot.parameters, "aspect_ratio": ratio}) if ratio else shot


def _form(name: str, head: str) -> tuple[str, str] | None:
    lowered = name.lower()
    head = head.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if lowered.endswith(_NOT_TEXT) or not head.strip():
        return None
    if key := settings_key(head):
        return "settings", f"Deforum settings: the key '{key}'"
    if lowered.endswith(_TABLES):
        return ("table", "shot list: columns that only filming has") if is_shot_list(head) else None
    if is_schedule(head):
        return "schedule", "prompt schedule: lines of `frame: prompt` from frame 0"
    if lowered.endswith(".json"):
        return None
    if is_outline(head):
        return "outline", "storyboard: shot headings or shot fields"
    if is_fountain(name, head):
        return "fountain", "screenplay: scene headings with INT. or EXT."
    return None


def _by_suffix(name: str, text: str) -> tuple[str, str] | None:
    """Return the form of a file that the user calls a storyboard and that does not look like one."""
    suffix = re.sub(r".*(?=\.)", "", name.lower(), flags=re.DOTALL)
    if not text.strip():
        return None
    if suffix in _TABLES:
        return "table", "its suffix"
    if suffix == ".json" or text.lstrip().startswith("{"):
        return "settings", "its first character"
    return ("outline", "its suffix") if suffix in {".md", ".markdown", ".txt"} else None


def _schedule(name: str, text: str, tell: Tell) -> list[Shot]:
    """Return the shots of a prompt schedule; each lasts until the next."""

    def length(frame: int, following: int | None) -> dict[str, Parameter]:
        return {} if following is None else {"num_frames": following - frame}

    rate = re.search(r"^[ \t]*(?:#|//).*?\b(\d{1,3})\s?fps\b", text, re.MULTILINE | re.IGNORECASE)
    shots = shots_of_entries(read_entries(text, 1, tell), name, tell, length)
    if not shots and not text.strip(" \n\t{}"):
        tell(1, "The prompt schedule is empty.", 'Write `0: "prompt"`.')
    if not rate:
        return shots
    fps: Mapping[str, Parameter] = {"fps": int(rate[1])}
    return [replace(shot, parameters={**shot.parameters, **fps}) for shot in shots]


_READERS: Mapping[str, Callable[[str, str, Tell], list[Shot]]] = {
    "settings": read_settings,
    "schedule": _schedule,
    "table": read_table,
    "outline": read_outline,
    "fountain": read_fountain,
}


def _encodable(shot: Shot, tell: Tell) -> bool:
    """Return whether the shot can be written as UTF-8; half a character is reported."""
    parts = [shot.text, shot.negative, shot.style, shot.scene, *shot.tags]
    parts += [value for value in shot.parameters.values() if isinstance(value, str)]
    if any(_SURROGATE.search(part) for part in (shot.source_id, *parts)):
        tell(shot.line, "The shot has half of a character (a lone surrogate).", "Write it again.")
        return False
    return True
