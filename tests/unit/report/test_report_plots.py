"""Curves as pictures."""

import base64
import math
import re
from dataclasses import astuple

import pytest

from tunewright.report._plots import (
    DARK,
    LIGHT,
    checkpoint_curves,
    length_histogram,
    loss_curve,
    small_curve,
)

SCORE = {"score": 40.0, "low": 30.0, "high": 50.0, "reason": ""}


def svg(url: str) -> str:
    return base64.b64decode(url.split(",", 1)[1]).decode()


def test_the_best_step_is_named():
    found = loss_curve([(1, 4.0)], [(0, 4.2), (10, 3.5)], 10)
    assert found
    assert "best: 3.500 at step 10" in svg(found.light)
    assert found.light != found.dark


def test_a_small_curve_marks_the_best_step():
    found = small_curve([(1, 0.1), (9, 0.2)], "learning rate", 9)
    plain = small_curve([(1, 0.1), (9, 0.2)], "learning rate", "9")  # pyright: ignore[reportArgumentType]
    assert found
    assert plain
    assert ">best<" in svg(found.light)
    assert ">best<" not in svg(plain.light)


def test_score_and_longest_copy_have_panels_of_their_own():
    points = [{"step": n, "score": SCORE, "longest_words": n} for n in (5, 10)]
    found = checkpoint_curves(points, 10)
    assert found
    for text in ("transfer score, %", "words copied", "best held-out loss: step 10"):
        assert text in svg(found.dark)


@pytest.mark.parametrize(
    ("steps", "named"), [((66, 72, 79), True), ((7,), True), ((1, 2, 99), False)]
)
def test_checkpoints_that_stand_apart_are_named_by_their_steps(steps, named):
    found = checkpoint_curves(
        [{"step": n, "score": SCORE, "longest_words": 3} for n in steps], None
    )
    assert found
    picture = svg(found.light)
    assert all(f">{step}<" in picture for step in steps) is named
    assert ">1.5<" not in picture


@pytest.mark.parametrize("score", [None, {"score": None, "reason": "not enough text"}])
def test_checkpoints_without_a_score_still_have_copies(score):
    found = checkpoint_curves([{"step": 5, "score": score, "longest_words": 7}], None)
    assert found
    assert "best" not in svg(found.light)


def test_the_same_points_make_the_same_picture():
    points = [(n, math.sin(n)) for n in range(9)]
    assert small_curve(points, "x") == small_curve(points, "x")


def test_the_dark_picture_is_the_light_one_in_its_own_colours():
    found = loss_curve([(1, 4.0)], [(0, 4.2), (10, 3.5)], 10)
    assert found
    colours, other = (re.findall("#[0-9a-f]{6}", svg(one)) for one in (found.light, found.dark))
    assert set(colours) == set(astuple(LIGHT))
    assert set(other) == set(astuple(DARK))
    shapes = (re.sub("#[0-9a-f]{6}", "", svg(one)) for one in (found.light, found.dark))
    assert next(shapes) == next(shapes)


def test_nothing_is_drawn_from_nothing():
    assert loss_curve([], [(1, math.nan)], None) is None
    assert small_curve([(1, math.inf)], "x") is None
    assert checkpoint_curves([], None) is None
    assert length_histogram([], []) is None
