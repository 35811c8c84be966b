"""Deforum's motion schedules to a camera movement in words. Pure.

Source: `anim_frame_warp_2d` and `anim_frame_warp_3d` of Deforum. In 2D the picture is shifted, so a positive
`translation_x` moves the picture right and the view left; in 3D the camera itself is moved. In both a positive
`translation_y` raises the view, and a positive angle turns the picture left and the camera clockwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright.data.storyboards.schedules import NUMBER, Key, value_at

_SAMPLES = 12
_EXPRESSION_SAMPLES = 60
_MOST = 3


@dataclass(frozen=True)
class _Axis:
    """A schedule, what its rise and fall above and below rest mean, and how much a frame is visible."""

    name: str
    rise: str
    fall: str
    sway: str
    visible: float
    rest: float = 0.0


_FLAT = (
    _Axis("zoom", "zoom in", "zoom out", "pulsing zoom", 0.002, 1.0),
    _Axis("translation_x", "pan left", "pan right", "side-to-side sway", 0.3),
    _Axis("translation_y", "tilt up", "tilt down", "up-and-down bob", 0.3),
    _Axis("angle", "roll clockwise", "roll counter-clockwise", "rocking roll", 0.1),
)
_DEEP = (
    _Axis("translation_z", "dolly in", "dolly out", "push and pull", 0.15),
    _Axis("translation_x", "truck right", "truck left", "side-to-side sway", 0.15),
    _Axis("translation_y", "crane up", "crane down", "up-and-down bob", 0.15),
    _Axis("rotation_3d_y", "pan right", "pan left", "side-to-side swing", 0.05),
    _Axis("rotation_3d_x", "tilt up", "tilt down", "nodding tilt", 0.05),
    _Axis("rotation_3d_z", "roll clockwise", "roll counter-clockwise", "rocking roll", 0.05),
)
_AXES: Mapping[str, tuple[_Axis, ...]] = {"2d": _FLAT, "3d": _DEEP}
AXIS_NAMES = tuple(dict.fromkeys(axis.name for axis in (*_FLAT, *_DEEP)))


def camera_words(
    mode: str, schedules: Mapping[str, Sequence[Key]], begin: int, end: int, max_frames: int
) -> str:
    """Return the camera movement from frame `begin` up to `end`, strongest first; "" if it is not known.

    Each half of the span is looked at, so a movement that turns back reads "dolly in then out". At
    most three movements are named. "static camera" is said only where every schedule is known to rest.
    """
    axes = _AXES.get(mode.lower(), ())
    given = [axis for axis in axes if schedules.get(axis.name)]
    if not given:
        return ""
    found: list[tuple[float, str]] = []
    unknown = False
    for axis in given:
        sampled = _sampled(list(schedules[axis.name]), begin, end, max_frames)
        if sampled is None:
            unknown = True
        elif movement := _movement(axis, sampled):
            found.append(movement)
    if not found:
        return "" if unknown else "static camera"
    found.sort(key=lambda pair: -pair[0])
    return " with ".join(_joined([words for _, words in found[:_MOST]]))


def _joined(words: list[str]) -> list[str]:
    return words if len(words) < 3 else [words[0], f"{words[1]} and {words[2]}"]


def _sampled(keys: list[Key], begin: int, end: int, max_frames: int) -> list[float] | None:
    last = max(end - 1, begin)
    variables = {"max_f": float(max_frames)}
    # an expression may swing faster than a line between numbers can
    plain = all(NUMBER.fullmatch(key.expression) for key in keys)
    count = 2 * (_SAMPLES if plain else _EXPRESSION_SAMPLES)
    frames = [begin + (last - begin) * n // (count - 1) for n in range(count)]
    values = [value_at(keys, frame, variables) for frame in frames]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _movement(axis: _Axis, values: list[float]) -> tuple[float, str] | None:
    """Return how strong and which, or None where nothing visible happens."""
    offsets = [(value - axis.rest) / axis.visible for value in values]
    middle = len(offsets) // 2
    parts = (offsets[:middle], offsets[middle:])
    named = [_direction(axis, part) for part in parts]
    strength = max(abs(sum(part)) / middle for part in parts)
    if not any(named):
        swing = max(offsets) - min(offsets)
        return (swing / 2, axis.sway) if swing >= 4 else None
    first, second = named
    slow = "slow " if strength < 5 else ""
    if first and second and first != second:
        return strength, f"{slow}{first} then {second.split(maxsplit=1)[1]}"
    return strength, f"{slow}{first or second}"


def _direction(axis: _Axis, offsets: list[float]) -> str:
    """Return where half of a span goes; "" if that is not visible, or only a quarter of how it swings."""
    mean = sum(offsets) / len(offsets)
    if abs(mean) < max(1.0, max(abs(offset) for offset in offsets) / 4):
        return ""
    return axis.rise if mean > 0 else axis.fall
