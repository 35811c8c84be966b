"""Deforum settings to shots: prompts by frame, negative prompts, size, seed, motion. Pure."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunewright.data.storyboards import loose
from tunewright.data.storyboards.aspect import aspect_ratio
from tunewright.data.storyboards.camera import AXIS_NAMES, camera_words
from tunewright.data.storyboards.key_frames import Entry, read_entries, shots_of_entries
from tunewright.data.storyboards.prompts import clauses
from tunewright.data.storyboards.schedules import Key, read_schedule, value_at
from tunewright.data.storyboards.shot import Parameter, Shot, Tell
from tunewright.data.storyboards.spans import without_spans

PROMPT_KEYS = ("prompts", "animation_prompts", "positive_prompts")
_POSITIVE = "animation_prompts_positive"
_NEGATIVES = ("animation_prompts_negative", "negative_prompts")
_SETTINGS = frozenset(
    {
        *AXIS_NAMES,
        "animation_mode",
        "max_frames",
        "strength_schedule",
        "noise_schedule",
        "diffusion_cadence",
        "color_coherence",
        "cadence_flow",
        "seed_behavior",
        "cfg_scale_schedule",
        _POSITIVE,
    }
)
_KEY = re.compile(r"(?<!\w)([A-Za-z_]\w{0,60})[\"']?\s*:")


def settings_key(head: str) -> str:
    """Return the key that makes a JSON-like text Deforum settings, "" if it is something else."""
    bare = re.sub(r"(?m:^[ \t]*(?://|#)[^\n]*)", "", without_spans(head, "/*", "*/"))
    bare = bare.lstrip("\ufeff \t\n")
    if not bare.startswith("{"):
        return ""
    keys = set(_KEY.findall(bare))
    prompts = next((key for key in PROMPT_KEYS if key in keys), "")
    framed = re.search(rf"{prompts}[\"']?\s*:\s*[{{\"'][\s{{\"'\\n]*\d+[\"'\\]*\s*:", bare)
    return prompts if prompts and (framed or len(keys & _SETTINGS) >= 2) else ""


def read_settings(name: str, text: str, tell: Tell) -> list[Shot]:
    """Return a shot for each prompt of a settings file, in the order of frames."""
    try:
        found = loose.read(text)
    except loose.LooseError as fault:
        tell(fault.line, f"The settings cannot be read: {fault.message}.", "Correct this line.")
        return []
    if not isinstance(found.value, dict):
        tell(1, "The file is not one object of settings.", "Give a Deforum settings file.")
        return []
    settings: dict[str, Any] = found.value
    key = next(
        (k for k in PROMPT_KEYS if settings.get(k) and isinstance(settings[k], str | dict)), ""
    )
    if not key:
        line = next((found.lines[k,] for k in PROMPT_KEYS if k in settings), 1)
        tell(line, "The settings have no prompts by frame.", 'Add `"prompts": {"0": "..."}`.')
        return []
    entries = _entries(settings[key], key, found, tell)
    return _shots(entries, name, settings, found, tell)


def _shots(
    entries: list[Entry], name: str, settings: dict[str, Any], found: loose.Loose, tell: Tell
) -> list[Shot]:
    max_frames = _whole(settings.get("max_frames"))
    fixed = _fixed(settings)
    schedules = _schedules(settings, max_frames, found, tell)
    mode = str(settings.get("animation_mode", "2D"))

    def at(frame: int, following: int | None) -> dict[str, Parameter]:
        end = following if following is not None else max_frames
        more: dict[str, Parameter] = dict(fixed)
        if end is not None and end > frame:
            more["num_frames"] = end - frame
        last = end if end is not None and end > frame else frame + 1
        camera = camera_words(mode, schedules, frame, last, max_frames or last)
        if camera:
            more["camera"] = camera
        scale = value_at(
            schedules.get("cfg_scale_schedule", []), frame, {"max_f": float(max_frames or last)}
        )
        if scale is not None:
            more["guidance_scale"] = round(scale, 2)
        return more

    shots = shots_of_entries(entries, name, tell, at, max_frames)
    style = _text(settings.get(_POSITIVE))
    negatives = [_text(settings.get(key)) for key in _NEGATIVES]
    return [
        replace(shot, negative=_merged(shot.negative, *negatives), style=style) for shot in shots
    ]


def _merged(*negatives: str) -> str:
    """Return several negative prompts as one; things that are named twice stand once."""
    things = (thing.strip() for negative in negatives for thing in clauses(negative))
    return ", ".join(dict.fromkeys(things))


def _entries(
    prompts: str | dict[str, Any], key: str, found: loose.Loose, tell: Tell
) -> list[Entry]:
    if isinstance(prompts, str):
        return _from_text(prompts, found.lines[key,], tell)
    lines = {frame: found.lines[key, frame] for frame in prompts}
    for path, line, first in found.repeated:
        if path[:1] == (key,):
            tell(
                line,
                f"Frame {path[-1]} is already on line {first}, which is left out.",
                "Give one of the two another frame, or remove it.",
            )
    entries: list[Entry] = []
    for frame, prompt in prompts.items():
        if isinstance(prompt, str):
            entries.append(Entry(frame, prompt, lines[frame]))
        else:
            tell(lines[frame], f"The prompt of frame {frame} is no text.", "Write it in quotes.")
    return entries


def _from_text(prompts: str, line: int, tell: Tell) -> list[Entry]:
    """Return the entries of prompts that are one string; all of them stand on its line."""

    def tell_there(_: int, message: str, fix: str) -> None:
        tell(line, message, fix)

    entries = read_entries(prompts, 1, tell_there)
    return [Entry(entry.frame, entry.prompt, line) for entry in entries]


def _schedules(
    settings: Mapping[str, Any], max_frames: int | None, found: loose.Loose, tell: Tell
) -> dict[str, list[Key]]:
    schedules: dict[str, list[Key]] = {}
    for name in (*AXIS_NAMES, "cfg_scale_schedule"):
        given = settings.get(name)
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            continue
        text = given if isinstance(given, str) else f"0:({given})"
        if not text.strip():
            continue
        keys, unread = read_schedule(text, max_frames)
        for part in unread:
            tell(
                found.lines[name,],
                f"In {name}, {part!r} is not `frame:(value)`.",
                "Write `0:(0), 50:(1.02)`.",
            )
        schedules[name] = keys
    return schedules


def _fixed(settings: Mapping[str, Any]) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    width, height = _whole(settings.get("W")), _whole(settings.get("H"))
    if width and height:
        parameters |= {
            "width": width,
            "height": height,
            "aspect_ratio": aspect_ratio(width, height),
        }
    for key, name in (("seed", "seed"), ("steps", "steps"), ("fps", "fps")):
        value = _whole(settings.get(key))
        # -1 asks for any seed
        if value is not None:
            parameters[name] = value
    scale = settings.get("scale", settings.get("cfg_scale"))
    if isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale < 1000:
        parameters["guidance_scale"] = float(scale)
    if sampler := _text(settings.get("sampler")):
        parameters["sampler"] = sampler
    return parameters


def _whole(value: Any) -> int | None:
    """Return a number from 0 that is whole; settings write some of them as text or with a decimal point."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,15}", value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 10**15 and value == int(value) else None


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
