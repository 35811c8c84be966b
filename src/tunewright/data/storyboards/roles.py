"""The many names that columns and fields of storyboards have, and what their values mean. Pure."""

import re
from collections.abc import Mapping
from typing import Literal

from tunewright.data.storyboards.aspect import ratio_in
from tunewright.data.storyboards.shot import Parameter

Role = Literal[
    "shot", "scene", "description", "negative", "camera", "size", "angle", "lens", "light", "style",
    "duration", "num_frames", "fps", "seed", "aspect_ratio", "guidance_scale", "steps", "sampler",
    "width", "height", "tags",
]  # fmt: skip

_NAMES: Mapping[Role, str] = {
    "shot": "shot shotno shotnumber shotid shotnr id no nr number num panel setup cut slate",
    "scene": "scene sceneno scenenumber scenename sequence seq sc location setting set",
    "description": "description desc action prompt positiveprompt shotdescription visual visuals image "
    "picture content subject text shotcontent whatwesee scenedescription videoprompt",
    "negative": "negative negativeprompt negatives neg avoid exclude without",
    "camera": "camera movement cameramovement cameramove move moves motion cameramotion",
    "size": "size shotsize framing frame framesize shottype type composition",
    "angle": "angle cameraangle viewpoint",
    "lens": "lens lenses focal focallength focalmm focallengthmm lensmm",
    "light": "light lighting lights lightning timeofday time",
    "style": "style look treatment visualstyle",
    "duration": "duration durations durationsec durationsecs durationseconds secs sec seconds length dur "
    "times lengths",
    "num_frames": "frames numframes framecount nframes",
    "fps": "fps framerate",
    "seed": "seed",
    "aspect_ratio": "aspect aspectratio ratio ar format",
    "guidance_scale": "guidance guidancescale cfg cfgscale scale",
    "steps": "steps",
    "sampler": "sampler",
    "width": "width w",
    "height": "height h",
    "tags": "tags keywords",
}
_ROLES: Mapping[str, Role] = {
    name: role for role, names in _NAMES.items() for name in names.split()
}
_SIZES: Mapping[str, str] = {
    "ews": "extreme wide shot",
    "els": "extreme long shot",
    "xws": "extreme wide shot",
    "vws": "very wide shot",
    "ws": "wide shot",
    "ls": "long shot",
    "fs": "full shot",
    "mws": "medium wide shot",
    "mls": "medium long shot",
    "ms": "medium shot",
    "mcu": "medium close-up",
    "cu": "close-up",
    "bcu": "big close-up",
    "ecu": "extreme close-up",
    "xcu": "extreme close-up",
    "ots": "over-the-shoulder shot",
    "pov": "point-of-view shot",
    "two-shot": "two-shot",
    "2s": "two-shot",
    "2-shot": "two-shot",
    "insert": "insert shot",
    "est": "establishing shot",
    "extreme wide": "extreme wide shot",
    "wide": "wide shot",
    "long": "long shot",
    "full": "full shot",
    "medium wide": "medium wide shot",
    "medium": "medium shot",
    "medium close": "medium close-up",
    "close": "close-up",
    "close up": "close-up",
    "closeup": "close-up",
    "extreme close": "extreme close-up",
    "extreme close up": "extreme close-up",
}
_WHOLE: frozenset[str] = frozenset({"num_frames", "fps", "seed", "steps", "width", "height"})
_SECONDS = re.compile(
    r"(?:(\d{1,3}):)?(\d{1,4}(?:[.,]\d{1,3})?)\s*(?:s|sec|secs|seconds?|[\"”″])?\.?"
)
CINEMA_FPS = 24
"""Frames a second of a list that gives seconds and no rate."""


def role_of(name: str) -> Role | None:
    """Return what a column or field is for, None if its name does not tell."""
    bare = re.sub(r"[^a-z0-9#]", "", name.lower())
    return "shot" if bare == "#" else _ROLES.get(bare.removesuffix("#"))


def shot_size(written: str) -> str:
    """Return a shot size in words: `MCU` is a medium close-up."""
    return _SIZES.get(" ".join(written.lower().split()), written)


def parameters_of(values: Mapping[str, str]) -> dict[str, Parameter]:
    """Return the parameters that a shot's fields give.

    A length in seconds becomes a number of frames, at 24 a second where no rate is given. A field that
    should be a number and is none stays as written, under its own name with `_note` added.
    """
    parameters: dict[str, Parameter] = {}
    for role, written in values.items():
        value = " ".join(written.split())
        if not value or role in {
            "shot",
            "scene",
            "description",
            "negative",
            "style",
            "tags",
            "duration",
        }:
            continue
        key, parameter = _parameter(role, value)
        parameters[key] = parameter
    _add_length(parameters, " ".join(values.get("duration", "").split()))
    return parameters


def _parameter(role: str, value: str) -> tuple[str, Parameter]:
    if role == "size":
        return "shot_size", shot_size(value)
    if role == "lens":
        return "lens", f"{value}mm" if re.fullmatch(r"\d{1,4}(?:\.\d)?", value) else value
    if role in _WHOLE:
        return (role, int(value)) if re.fullmatch(r"\d{1,12}", value) else (f"{role}_note", value)
    if role == "guidance_scale":
        number = re.fullmatch(r"\d{1,3}(?:\.\d{1,4})?", value)
        return ("guidance_scale", float(value)) if number else ("guidance_scale_note", value)
    if role == "aspect_ratio":
        ratio = ratio_in(value)
        return ("aspect_ratio", ratio) if ratio else ("aspect_ratio_note", value)
    return role, value


def _add_length(parameters: dict[str, Parameter], written: str) -> None:
    match = _SECONDS.fullmatch(written)
    if not match:
        if written:
            parameters["duration_note"] = written
        return
    seconds = 60 * int(match[1] or 0) + float(match[2].replace(",", "."))
    parameters["duration"] = seconds
    rate = parameters.get("fps") or CINEMA_FPS
    if "num_frames" not in parameters and isinstance(rate, int) and seconds:
        parameters |= {"num_frames": max(1, round(seconds * rate)), "fps": rate}


def split_list(written: str) -> tuple[str, ...]:
    """Return the parts of a list written with commas or semicolons."""
    return tuple(part.strip() for part in re.split(r"[,;]", written) if part.strip())


def as_negative(written: str) -> str:
    """Return a list of things to avoid with commas between them."""
    return ", ".join(part.strip() for part in written.split(";") if part.strip())
