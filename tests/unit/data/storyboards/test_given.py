"""What a shot says is in every row of it; only what it leaves open is drawn."""

import re

import pytest

from tunewright.config.schema import StoryboardSection
from tunewright.data.storyboards.rows import rows_of
from tunewright.data.storyboards.shot import Shot
from tunewright.data.storyboards.shots import read_shots

MOVING = re.compile(
    r"\b(?:dolly|push in|pull back|pan (?:left|right)|tilt|truck|zoom|crane|arc to|slide|drift|drone|float|glide)"
)


def shot(text: str, **more) -> Shot:
    return Shot("a.md#1", 3, "", text, **more)


def rows(given_shot: Shot, factor: int = 40) -> list[dict]:
    return rows_of([given_shot], StoryboardSection(augmentation_factor=factor), 7).rows


def read_all(name: str, text: str):
    problems = []
    return read_shots(name, text, problems.append, name), problems


FIELDS = {"camera": "static", "lens": "24mm", "light": "sodium lamps"}


@pytest.mark.parametrize(
    ("text", "parameters", "style"),
    [
        ("A man waits at a bus stop, two dogs beside him, rain", FIELDS, "noir"),
        ("A man waits at a bus stop. Two dogs wait with him, and it rains.", FIELDS, "noir"),
        ("A man waits at a stop, static camera, 24mm lens, sodium lamps, noir, rain", {}, ""),
        ("A man waits at a stop, sodium lamps, static, noir, 24mm, rain, a dog, a cat", {}, ""),
    ],
)
def test_what_a_shot_says_is_kept_in_its_text_and_in_its_fields_alike(text, parameters, style):
    made = rows(shot(text, parameters=parameters, style=style), factor=20)
    assert len(made) == 20
    for row in made:
        assert row["parameters"]["camera"].startswith("static")
        assert row["parameters"]["lens"] == "24mm"
        assert row["style"].startswith("noir")
        prompt = row["prompt"].lower()
        assert all(word in prompt for word in ("static", "24mm", "sodium lamps"))
        assert not MOVING.search(prompt)
        assert re.findall(r"\d+ ?mm", prompt) == ["24mm"]
        assert "handheld" not in prompt
    assert len({row["prompt"] for row in made}) == 20


def test_only_what_a_shot_leaves_open_is_drawn():
    made = rows(shot("A man waits at a bus stop, rain", parameters={"camera": "static"}))
    assert {row["parameters"]["camera"] for row in made} == {"static"}
    assert len({row["parameters"].get("lens") for row in made}) > 5
    assert len({row["parameters"].get("light") for row in made}) > 3


def test_a_field_that_only_points_at_another_shot_is_not_replaced():
    for row in rows(shot("A man waits, rain", parameters={"camera": "same as 1A"})):
        assert "camera" not in row["parameters"]


@pytest.mark.parametrize("lens", ["fisheye", "wide-angle lens", "anamorphic lens"])
def test_a_kind_of_lens_in_the_text_is_kept(lens):
    for row in rows(shot(f"A dog waits, {lens}, a closed gate")):
        assert row["parameters"]["lens"] == lens
        assert "mm" not in row["prompt"]


@pytest.mark.parametrize(
    ("schedule", "written", "ratio"),
    [
        ('0: "a quay, two boats, rain, 50mm lens, 16:9 --neg people"', "16:9", "16:9"),
        ('0: "a quay, two boats, rain, 9:16 vertical, lamps"', "9:16 vertical", "9:16"),
        ('0: "a quay, two boats (2.39:1), rain, lamps"', "(2.39:1)", "2.39:1"),
        ('0: "a quay, two boats, rain, (16:9:1.2), lamps"', "(16:9:1.2)", "16:9"),
        ('0: "a quay, two boats, rain,\n16:9 frame, lamps"\n30: "a gull"', "16:9 frame", "16:9"),
        (
            '{"W": 512, "H": 512, "max_frames": 9, "animation_mode": "2D",'
            '"prompts": {"0": "a quay, 2.40:1, rain"}}',
            "2.40:1",
            "2.40:1",
        ),
    ],
)
def test_an_aspect_ratio_in_the_text_is_that_of_every_row(schedule, written, ratio):
    shots, wrong = read_all("a.txt", schedule)
    assert wrong == []
    made = rows(shots[0], factor=12)
    assert len(made) == 12
    for row in made:
        assert row["parameters"]["aspect_ratio"] == ratio
        assert f"aspect_ratio={ratio}" in row["tags"]
        assert written in row["prompt"]
        assert "16:9" not in row["instruction"]


def test_a_ratio_between_bars_is_no_frame():
    text = '{"fps": 9, "prompts": "0: a cat | 16:9 | rain | 30: a dog"}'
    shots, wrong = read_all("a.json", text)
    assert [shot.text for shot in shots] == ["a cat | 16:9 | rain", "a dog"]
    assert shots[0].parameters["aspect_ratio"] == "16:9"
    assert wrong == []
