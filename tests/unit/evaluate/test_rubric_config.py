"""Rubrics in a config: what is read, and what is refused with its place."""

import pytest
import yaml

from tunewright.config.load import dump_config, load_config
from tunewright.errors import TunewrightError
from tunewright.evaluate.rubric import resolve


def loaded(tmp_path, *rubrics, text=None):
    body = {"prepare": {"source": "sample:storyboards"}, "compare": {"rubrics": list(rubrics)}}
    file = tmp_path / "own.yaml"
    file.write_text(text or yaml.safe_dump(body))
    return load_config(file)


def test_names_and_mappings_are_read_and_come_back(tmp_path):
    config = loaded(
        tmp_path,
        "ltx-video",
        {"extends": "comfyui", "min_share": 0.9},
        {"name": "own", "part": "", "sections": [], "json_schema": {"type": "object"}},
    )
    assert [rubric.name for rubric in config.compare.rubrics] == ["ltx-video", "comfyui", "own"]
    again = loaded(tmp_path, text=dump_config(config))
    assert again == config
    rules = [[rule.text for rule in one.rules] for one in resolve(again.compare.rubrics)]
    assert rules == [[rule.text for rule in one.rules] for one in resolve(config.compare.rubrics)]


def test_one_name_is_a_list_of_one(tmp_path):
    source = "prepare: {source: sample:storyboards}\ncompare: {rubrics: comfyui}"
    assert loaded(tmp_path, text=source).compare.rubrics[0].extends == "comfyui"
    assert loaded(tmp_path).compare.rubrics == ()


@pytest.mark.parametrize(
    ("rubric", "place", "message"),
    [
        ("ltxvideo", "0.extends", "'ltx-video'"),
        ({"words": {"min": 1}}, "0.name", "is missing"),
        ({"name": "a"}, "0", "have a rule"),
        ({"name": "a", "part": ""}, "0", "have a rule"),
        ({"name": "a", "words": {}}, "0.words", "have `min`, `max` or both"),
        ({"name": "a", "words": {"min": 2, "max": 1}}, "0.words", "at most `max`"),
        ({"name": "a", "weights": {"min": 3}}, "0.weights", "at most `max`"),
        ({"name": "a", "part": "a\nb", "weights": {}}, "0.part", "one line"),
        ({"name": "a", "part": " a", "weights": {}}, "0.part", "no space around it"),
        ({"name": "a", "sections": ["a", "a"]}, "0.sections", "headings that differ"),
        ({"name": "a", "sections": [""]}, "0.sections.0", "1 character"),
        (
            {"name": "a", "matches": [{"pattern": "(", "about": "x"}]},
            "0.matches.0.pattern",
            "a regular expression (missing )",
        ),
        ({"name": "a", "forbids": [{"pattern": "x"}]}, "0.forbids.0.about", "is missing"),
        (
            {"name": "a", "parameters": [{"name": "b", "choices": ["x"], "min": 1}]},
            "0.parameters.0",
            "have `choices`, or `min`",
        ),
        ({"name": "a", "parameters": [{"name": "b"}]}, "0.parameters.0", "have limits"),
        (
            {"name": "a", "parameters": [{"name": "b", "min": 2, "max": 1}]},
            "0.parameters.0",
            "at most `max`",
        ),
        (
            {"name": "a", "parameters": [{"name": "b", "also": ["_"], "min": 2}]},
            "0.parameters.0.also.0",
            "with a letter",
        ),
        ({"name": "a", "json_schema": {"type": "objekt"}}, "0.json_schema", "$.type"),
        ({"name": "a", "json_schema": {"$ref": "#/$defs/x"}}, "0.json_schema", "leads nowhere"),
        (
            {"name": "a", "json_schema": {"$ref": "https://example.org/x"}},
            "0.json_schema",
            "leads nowhere",
        ),
        ({"name": "a", "json_schema": {"$ref": "#"}}, "0.json_schema", "without end"),
        (
            {"name": "a", "json_schema": {"patternProperties": {"a": {}}}},
            "0.json_schema",
            "propertyNames",
        ),
        ({"name": "a", "json_schema": {"items": {"pattern": "("}}}, "0.json_schema", "pattern"),
        ({"name": "a", "weights": {}, "min_share": 0}, "0.min_share", "more than 0"),
        ({"name": "a", "wörds": {}}, "0.wörds", "is not an option"),
        ({"name": "a/b", "weights": {}}, "0.name", "letters, digits"),
    ],
)
def test_what_is_refused_is_named(tmp_path, rubric, place, message):
    with pytest.raises(TunewrightError) as caught:
        loaded(tmp_path, rubric)
    text = caught.value.problems[0].message
    assert f"'compare.rubrics.{place}'" in text
    assert message in text
    assert {problem.code for problem in caught.value.problems} <= {"E_CONFIG_VALUE", "E_CONFIG_KEY"}


def test_two_of_one_name_are_refused(tmp_path):
    with pytest.raises(TunewrightError, match="'comfyui' is there twice"):
        loaded(tmp_path, "comfyui", {"extends": "comfyui", "min_share": 0.5})


def test_a_schema_may_refer_to_its_own_parts(tmp_path):
    schema = {"$defs": {"t": {"items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    (own,) = resolve(loaded(tmp_path, {"name": "a", "json_schema": schema}).compare.rubrics)
    assert own.rules[0].test("[[], []]") == (True, "it does")
