"""Schedules, expressions and the camera movement they describe."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.data.storyboards.aspect import aspect_ratio, ratio_in, ratio_of_prompt
from tunewright.data.storyboards.camera import camera_words
from tunewright.data.storyboards.schedules import Key, evaluate, read_schedule, value_at


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2*sin(2*3.14*t/64)", 2 * math.sin(2 * 3.14 * 16 / 64)),
        ("-2**2", -4),
        ("2**3**2", 512),
        ("(1+2)*3 - 4/2", 7),
        ("7 % 4", 3),
        ("max(t, 20) + min(1, 2)", 21),
        ("1e2", 100),
        ("max_f-1", 99),
    ],
)
def test_arithmetic(expression, value):
    assert evaluate(expression, {"t": 16, "max_f": 100}) == pytest.approx(value)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "s",
        "1/0",
        "9**9**9**9",
        "(-1)**0.5",
        "__import__('os')",
        "sin()",
        "1 2",
        "(1",
        "(" * 999,
        "t.real",
        "1+" * 300,
    ],
)
def test_what_has_no_value(expression):
    assert evaluate(expression, {"t": 1}) is None


@settings(deadline=None)
@given(st.text(alphabet="0123456789.+-*/%() ,tsincoexpmaf", max_size=60) | st.text(max_size=40))
def test_any_schedule_is_read_without_an_error(text):
    keys, unread = read_schedule(text, 100)
    assert len(keys) + len(unread) <= text.count(",") + 1
    for key in keys:
        value = value_at(keys, key.frame, {"max_f": 100})
        assert value is None or math.isfinite(value)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 500), st.integers(-50, 50), min_size=1, max_size=6),
    st.integers(0, 600),
)
def test_numbers_run_linearly_between_keys(values, frame):
    text = ", ".join(f"{f}: ({v})" for f, v in values.items())
    keys, unread = read_schedule(text)
    assert not unread
    assert [key.frame for key in keys] == sorted(values)
    found = value_at(keys, frame, {})
    assert found is not None
    if frame in values:
        assert found == values[frame]
    below = [f for f in values if f <= frame] or [min(values)]
    above = [f for f in values if f >= frame] or [max(values)]
    ends = sorted((values[max(below)], values[min(above)]))
    assert ends[0] - 1e-9 <= found <= ends[1] + 1e-9


def test_expressions_stay_as_written_and_hold_until_the_next_key():
    keys, unread = read_schedule('0:(2*sin(t/64)), 50:(1.02), "max_f-1":(s), 7, x:(1), 9:(1', 100)
    assert keys == [Key(0, "2*sin(t/64)"), Key(50, "1.02"), Key(99, "s")]
    assert unread == ["7", "x:(1)", "9:(1"]
    assert value_at(keys, 10, {}) == pytest.approx(2 * math.sin(10 / 64))
    assert value_at(keys, 60, {}) == pytest.approx(1.02)
    assert value_at(keys, 99, {}) is None


@pytest.mark.parametrize(
    ("mode", "schedules", "words"),
    [
        ("3D", {"translation_z": "0:(1)"}, "dolly in"),
        ("3D", {"translation_z": "0:(-0.4)"}, "slow dolly out"),
        ("3D", {"translation_z": "0:(0)", "rotation_3d_y": "0:(0.1)"}, "slow pan right"),
        ("3D", {"rotation_3d_x": "0:(-1)"}, "tilt down"),
        ("3D", {"translation_x": "0:(0)", "rotation_3d_z": "0:(0)"}, "static camera"),
        ("3D", {"translation_z": "0:(2), 50:(0), 100:(-2)"}, "dolly in then out"),
        ("3D", {"zoom": "0:(1.5)", "translation_y": "0:(0)"}, "static camera"),
        ("2D", {"zoom": "0:(1.04)"}, "zoom in"),
        ("2D", {"zoom": "0:(0.98)", "angle": "0:(-3)"}, "roll counter-clockwise with zoom out"),
        ("2D", {"translation_x": "0:(5)"}, "pan left"),
        ("2D", {"translation_x": "0:(8*sin(t))"}, "side-to-side sway"),
        ("2D", {"translation_x": "0:(whatever)", "zoom": "0:(1)"}, ""),
        ("Video Input", {"zoom": "0:(1.5)"}, ""),
        ("2D", {}, ""),
    ],
)
def test_camera_in_words(mode, schedules, words):
    read = {name: read_schedule(text)[0] for name, text in schedules.items()}
    assert camera_words(mode, read, 0, 100, 100) == words


def test_camera_is_true_at_its_frame():
    schedule = {"translation_z": read_schedule("0:(1), 50:(1), 51:(-1)")[0]}
    assert camera_words("3D", schedule, 0, 50, 100) == "dolly in"
    assert camera_words("3D", schedule, 51, 100, 100) == "dolly out"


@pytest.mark.parametrize(
    ("width", "height", "name"),
    [
        (1024, 576, "16:9"),
        (896, 512, "16:9"),
        (512, 768, "2:3"),
        (640, 640, "1:1"),
        (1000, 300, "10:3"),
    ],
)
def test_aspect_ratio(width, height, name):
    assert aspect_ratio(width, height) == name


def test_ratio_in_text():
    assert ratio_in("all shots 16:9, at 12:30") == "16:9"
    assert ratio_in("at 12:30") == ""
    assert ratio_in("2.40:1") == "2.40:1"


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("a street, 16:9", "16:9"),
        ("a street in 4:3 format", "4:3"),
        ("aspect ratio of 1:1, a dog", "1:1"),
        ("1.85:1 widescreen street", "1.85:1"),
        ("portrait video 9:16", "9:16"),
        ("a street, 3:2, rain", "3:2"),
        ("a wall clock at 9:16, rain", ""),
        ("the score is 2:1 for the guests", ""),
        ("a (dog:1.2) and a (cat2:1.3)", ""),
        ("mixed 3:2 with sand", ""),
    ],
)
def test_ratio_of_a_prompt(text, ratio):
    assert ratio_of_prompt(text) == ratio
