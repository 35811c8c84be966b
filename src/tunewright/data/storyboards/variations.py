"""One shot to one row: the original, or a variation that says the same in another way. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tunewright.config.schema import StoryboardSection
from tunewright.data.storyboards import wording
from tunewright.data.storyboards.facts import Phrase, facts_in, fitting
from tunewright.data.storyboards.shot import Parameter, Shot

KINDS = ("camera", "lens", "light", "style", "detail")
LEARNED = ("aspect_ratio", "guidance_scale", "num_frames", "camera", "lens")
_FRAMING = frozenset({"close", "macro", "medium", "wide", "high", "low", "pov"})
_TAGGED = (
    "close",
    "wide",
    "night",
    "dawn",
    "dusk",
    "interior",
    "exterior",
    "underwater",
    "rain",
    "snow",
    "fog",
)
_ORDERS = (
    ("text", "camera", "light", "style"),
    ("camera", "text", "light", "style"),
    ("text", "light", "camera", "style"),
    ("light", "text", "camera", "style"),
    ("style", "text", "camera", "light"),
    ("camera", "light", "text", "style"),
    ("style", "camera", "text", "light"),
)


@dataclass(frozen=True)
class Reading:
    """What a shot fixes, so that every variation keeps it.

    Attributes:
        shot: The shot.
        facts: What the shot states; camera movement only where the text itself names it.
        camera: Movement named by the text; "" leaves it free.
        lens: Focal length named by the text; "" leaves it free.
        style: Style of the shot, or the default.
        styled: Whether the text itself names the style.
        ideas: Ways to say what the shot shows.
        choices: Phrases of each kind that agree with the facts and the negative prompt.
    """

    shot: Shot
    facts: frozenset[str]
    camera: str
    lens: str
    style: str
    styled: bool
    ideas: tuple[str, ...]
    choices: Mapping[str, tuple[Phrase, ...]]


@dataclass(frozen=True)
class _Draw:
    """What one row says besides the text."""

    idea: str
    text: str
    camera: str = ""
    lens: str = ""
    light: str = ""
    look: str = ""
    details: tuple[str, ...] = ()
    order: Sequence[str] = _ORDERS[0]
    terse: bool = False


def read(shot: Shot, default_style: str) -> Reading:
    """Return what a shot fixes."""
    own = wording.given_style(shot.text)
    style = shot.style or own or default_style
    field = _words(shot, "camera"), _words(shot, "angle")
    stated = [
        shot.text,
        style,
        *(_words(shot, name) for name in ("shot_size", "light", "setting", "time_of_day")),
    ]
    facts = facts_in(", ".join(part for part in stated if part))
    facts |= facts_in(", ".join(part for part in field if part)) & _FRAMING
    # where a storyboard says how a shot is lit, no other source of light may be added
    facts |= {"lit"} if _words(shot, "light") else frozenset()
    return Reading(
        shot,
        facts,
        wording.given_camera(shot.text),
        wording.given_lens(shot.text),
        style,
        bool(own) and not shot.style,
        tuple(wording.ideas(shot.text, shot.scene)),
        {kind: fitting(kind, facts | _implied(shot.negative), shot.negative) for kind in KINDS},
    )


def _implied(negative: str) -> frozenset[str]:
    """Return the facts that a negative prompt implies: who refuses photographs wants a drawing."""
    return frozenset({"drawn"}) if re.search(r"\bphoto", negative, re.IGNORECASE) else frozenset()


def original(reading: Reading, options: StoryboardSection, rng: Random) -> dict[str, Any]:
    """Return the row of the shot as it is; parameters that it leaves open are chosen once."""
    shot = reading.shot
    draw = _Draw(
        reading.ideas[0],
        shot.text,
        _own("camera", reading),
        _own("lens", reading),
        _own("light", reading),
    )
    return _row(reading, draw, options, rng, 0)


def variation(
    reading: Reading, options: StoryboardSection, rng: Random, number: int
) -> dict[str, Any]:
    """Return a row that shows the same shot in another way, as far as `options.vary` allows."""
    shot, vary = reading.shot, options.vary
    text, ideas = shot.text, reading.ideas
    amount = rng.choice(("terse", "plain", "plain", "long")) if "length" in vary else "plain"
    if amount == "terse":
        text = wording.shortened(text, rng)
        # the idea must not name what is no longer there
        ideas = tuple(wording.ideas(text, shot.scene))
    if "order" in vary:
        text = wording.reordered(text, rng)
    look = _drawn("style", reading, rng) if "style" in vary else ""
    lens = _given_or_drawn("lens", reading, vary, rng)
    draw = _Draw(
        rng.choice(ideas),
        text,
        _given_or_drawn("camera", reading, vary, rng),
        lens,
        _light(reading, vary, look, rng),
        look,
        _details(reading, lens, rng) if amount == "long" else (),
        rng.choice(_ORDERS) if "order" in vary else _ORDERS[0],
        amount == "terse",
    )
    return _row(reading, draw, options, rng, number)


def _given_or_drawn(kind: str, reading: Reading, vary: Sequence[str], rng: Random) -> str:
    """Return what the shot says, in its text or in a field; only what it leaves open is drawn."""
    if own := _own(kind, reading):
        return own
    # "same as 1A" alone names what is not known here, and nothing else would be true
    return _drawn(kind, reading, rng) if kind in vary and not _words(reading.shot, kind) else ""


def _own(kind: str, reading: Reading) -> str:
    """Return the shot's own camera, lens or light; the text goes before the field."""
    named = {"camera": reading.camera, "lens": reading.lens}.get(kind, "")
    return named or wording.standalone(_words(reading.shot, kind))


def _drawn(kind: str, reading: Reading, rng: Random) -> str:
    found = reading.choices[kind]
    return rng.choice(found).say if found else ""


def _details(reading: Reading, lens: str, rng: Random) -> tuple[str, ...]:
    """Return one to three details; what a lens shows sharp is not contradicted."""
    length = re.match(r"\d+", lens)
    implied: set[str] = set()
    if length:
        implied = (
            {"deep"} if int(length[0]) <= 24 else {"shallow"} if int(length[0]) >= 60 else set()
        )
    found = [phrase.say for phrase in reading.choices["detail"] if not phrase.avoid & implied]
    return tuple(rng.sample(found, min(len(found), rng.randint(1, 3))))


def _light(reading: Reading, vary: Sequence[str], look: str, rng: Random) -> str:
    """Return the shot's own light, alone or with a quality added, or a light that agrees with the shot."""
    own = _own("light", reading)
    if "light" not in vary:
        return own
    found = [p.say for p in reading.choices["light"] if not p.avoid & facts_in(look)]
    added = rng.choice(found) if found else ""
    if not own:
        return added
    return rng.choice((own, f"{own}, {added}" if added else own))


def _words(shot: Shot, name: str) -> str:
    value = shot.parameters.get(name, "")
    return value if isinstance(value, str) else ""


def _row(
    reading: Reading, draw: _Draw, options: StoryboardSection, rng: Random, number: int
) -> dict[str, Any]:
    shot = reading.shot
    parameters = _parameters(shot, draw, options, rng, number)
    return {
        "instruction": f"{options.instruction.rstrip()} {draw.idea}",
        "style": ", ".join(part for part in (reading.style, draw.look) if part),
        "prompt": _prompt(reading, draw),
        "negative_prompt": shot.negative,
        "tags": _tags(reading, parameters),
        "source_id": shot.source_id,
        "line": shot.line,
        "variation": number,
        "parameters": parameters,
    }


def _prompt(reading: Reading, draw: _Draw) -> str:
    """Return the finished prompt: its parts in the row's order, without what the text says already."""
    shot = reading.shot
    camera = "" if reading.camera else draw.camera
    lens = "" if reading.lens or not draw.lens else _lens_words(draw.lens)
    size = _words(shot, "shot_size")
    framing = [
        part
        for part in (size, _words(shot, "angle"), camera, lens)
        if part and part.lower() not in draw.text.lower()
    ]
    setting = [part for part in (_words(shot, "setting"), _words(shot, "time_of_day")) if part]
    style = () if draw.terse or reading.styled else (reading.style,)
    looks = () if draw.terse else (draw.look,)
    parts: Mapping[str, Sequence[str]] = {
        "text": (draw.text, ", ".join(setting)),
        "camera": (", ".join(framing),),
        "light": (draw.light,),
        "style": (", ".join(part for part in (*style, *looks, *draw.details) if part),),
    }
    return wording.joined(
        [part for name in draw.order for part in parts[name]], prose=wording.is_prose(shot.text)
    )


def _lens_words(lens: str) -> str:
    bare = lens.split(",")[0]
    return lens.replace(bare, f"{bare} lens", 1) if "lens" not in lens else lens


def _parameters(
    shot: Shot, draw: _Draw, options: StoryboardSection, rng: Random, number: int
) -> dict[str, Parameter]:
    """Return the shot's parameters with camera, lens and light as this row has them, open ones chosen."""
    replaced = {"camera": draw.camera, "lens": draw.lens, "light": draw.light}
    parameters = {key: value for key, value in shot.parameters.items() if key not in replaced}
    parameters |= {key: value for key, value in replaced.items() if value}
    parameters.setdefault("aspect_ratio", rng.choice(options.aspect_ratio))
    guidance = _guidance(min(options.guidance_scale), max(options.guidance_scale), rng)
    if number or "guidance_scale" not in parameters:
        parameters["guidance_scale"] = guidance
    parameters.setdefault(
        "num_frames", _frames(min(options.num_frames), max(options.num_frames), rng)
    )
    return parameters


def _guidance(low: float, high: float, rng: Random) -> float:
    """Return a guidance scale in steps of a half, as people set it, or within a range that has none."""
    halves = [n / 2 for n in range(int(low * 2), int(high * 2) + 1) if low <= n / 2 <= high]
    return rng.choice(halves) if halves else round(rng.uniform(low, high), 3)


def _frames(low: int, high: int, rng: Random) -> int:
    """Return a number of frames that video models take: one more than a multiple of 8, if there is one."""
    fitting_lengths = [n for n in range(low, high + 1) if n % 8 == 1]
    return rng.choice(fitting_lengths) if fitting_lengths else rng.randint(low, high)


def _tags(reading: Reading, parameters: Mapping[str, Parameter]) -> str:
    """Return keywords and then the parameters that can be learned; the random seed cannot."""
    size = _words(reading.shot, "shot_size")
    known = [] if size else [fact for fact in _TAGGED[:2] if fact in reading.facts]
    known += [fact for fact in _TAGGED[2:] if fact in reading.facts]
    known = [fact for fact in known if fact not in reading.shot.negative.lower()]
    keywords = [*reading.shot.tags, *([size] if size else []), *known]
    technical = [f"{name}={_written(parameters[name])}" for name in LEARNED if parameters.get(name)]
    return ", ".join([*dict.fromkeys(keywords), *technical])


def _written(value: Parameter) -> str:
    # the tags are separated by commas, so a value has none
    return value.replace(", ", "; ") if isinstance(value, str) else f"{value:g}"
