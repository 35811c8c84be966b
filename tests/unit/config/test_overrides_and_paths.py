"""Overrides of entries of lists, and texts that can be no path, name or number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.config.load import config_of_source, require_endpoint
from tunewright.config.paths import fault_of, usable_path
from tunewright.errors import TunewrightError


def refused(*overrides: str, source: str = "x.jsonl"):
    with pytest.raises(TunewrightError) as caught:
        config_of_source(source, overrides)
    return caught.value.problems[0]


def sources(*overrides: str) -> list[tuple[str, str | None]]:
    found = config_of_source("x.jsonl", overrides).prepare.source
    return [(entry.path, entry.split) for entry in found]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["prepare.source.0.split=test"], [("x.jsonl", "test")]),
        (["prepare.source.split=test"], [("x.jsonl", "test")]),
        (["prepare.source.0=y"], [("y", None)]),
        (["prepare.source={path: y}", "prepare.source.0.split=q"], [("y", "q")]),
        (["prepare.source=[a, b]", "prepare.source.1.split=q"], [("a", None), ("b", "q")]),
        (["prepare.source.0.split=q", "prepare.source=y"], [("y", None)]),
    ],
)
def test_entries_of_a_list_can_be_overridden(overrides, expected):
    assert sources(*overrides) == expected


def test_other_lists_and_the_second_dataset():
    config = config_of_source(
        "x",
        [
            "train.lora.target_modules=[q_proj, k_proj]",
            "train.lora.target_modules.1=v_proj",
            "check.against=b",
            "check.against.split=q",
        ],
    )
    assert config.train.lora.target_modules == ("q_proj", "v_proj")
    assert config.check.against is not None
    assert (config.check.against.path, config.check.against.split) == ("b", "q")


@pytest.mark.parametrize(
    ("overrides", "code", "says"),
    [
        (["prepare.source.1.split=q"], "E_USAGE", "prepare.source.0"),
        (["prepare.source=[a, b]", "prepare.source.split=q"], "E_USAGE", "to prepare.source.1"),
        (["prepare.source.-1.split=q"], "E_CONFIG_KEY", "-1"),
        (["prepare.source=[a]", "prepare.source.\u0660=q"], "E_USAGE", "prepare.source.0"),
        (["name=a", "name.deep=1"], "E_USAGE", "'name' is a value"),
        (["prepare.source=" + "[" * 3000], "E_USAGE", "too deep"),
        (["prepare.source=" + "[" * 30 + "]" * 30], "E_USAGE", "too deep"),
        (["name=*x"], "E_USAGE", "aliases"),
        (["seed=" + "9" * 5000], "E_USAGE", "not valid"),
        (["a." * 30 + "b=1"], "E_USAGE", "section.key=value"),
        (["seed=9999999999999999999999"], "E_CONFIG_VALUE", "4294967295"),
        (["seed=-1"], "E_CONFIG_VALUE", "seed"),
        (["output_dir=''"], "E_CONFIG_VALUE", "should have at least 1 character"),
        (['output_dir="a\\0b"'], "E_CONFIG_VALUE", "NUL"),
        (["output_dir=" + "a" * 256], "E_CONFIG_VALUE", "255 bytes"),
        (["publish.license=CC BY"], "E_CONFIG_VALUE", "lower-case"),
        (["publish.license=" + "a" * 61], "E_CONFIG_VALUE", "60"),
        (["publish.hub_dataset_id=../x"], "E_CONFIG_VALUE", "org/name"),
        (["publish.hub_dataset_id=rows"], "E_CONFIG_VALUE", "org/name"),
        (["publish.hub_dataset_id=a/b/c"], "E_CONFIG_VALUE", "org/name"),
        (["publish.hub_dataset_id=a/b--c"], "E_CONFIG_VALUE", "org/name"),
        (["publish.hub_dataset_id=a/" + "b" * 100], "E_CONFIG_VALUE", "org/name"),
    ],
)
def test_overrides_that_are_refused(overrides, code, says):
    problem = refused(*overrides)
    assert problem.code == code
    assert says in problem.message
    assert len(problem.message) + len(problem.where) < 700


def test_what_the_hub_takes_is_taken():
    options = ["publish.hub_dataset_id=me/author-rows.v1", "publish.license=cc-by-4.0"]
    config = config_of_source("x", [*options, "seed=4294967295", "output_dir=a/b c/{name}"])
    assert config.publish.hub_dataset_id == "me/author-rows.v1"
    assert config.run_dir == "a/b c/run"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("a\0b", "E_NAME"),
        ("caf\udce9.jsonl", "E_NAME"),
        ("a" * 256, "E_NAME"),
        ("é" * 128, "E_NAME"),
        ("~nosuchuserhere/x", "E_NOT_FOUND"),
    ],
)
def test_data_that_cannot_be_a_path(source, code):
    problem = refused(source=source)
    assert problem.code == code
    assert problem.where.isprintable()


@given(st.text(max_size=300))
def test_a_path_is_usable_or_refused(text):
    try:
        path = usable_path(text)
    except TunewrightError as error:
        assert error.exit_code == 2
    else:
        assert fault_of(text) is None
        path.exists()


def test_room_for_the_name_of_a_draft():
    assert fault_of("a" * 240) is None
    assert fault_of("a" * 240, spare_bytes=20) == "has a part of more than 235 bytes"


def test_an_endpoint_that_is_no_address(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://[::1")
    with pytest.raises(TunewrightError) as caught:
        require_endpoint()
    assert caught.value.problems[0].code == "E_HUB"
    monkeypatch.setenv("HF_ENDPOINT", "http://[::1]:80")
    require_endpoint()
    monkeypatch.delenv("HF_ENDPOINT")
    require_endpoint()
