"""A message about a config says what is wrong in words, and its fix is something to type."""

import pytest

from tunewright.config.load import config_of_source, load_config
from tunewright.config.schema import Config
from tunewright.config.wording import options_below, way_out
from tunewright.errors import TunewrightError


def refused(*overrides):
    with pytest.raises(TunewrightError) as caught:
        config_of_source("rows.jsonl", overrides)
    return [(p.message, p.fix) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("override", "message", "fix"),
    [
        (
            "train.learning_rate=fast",
            "'train.learning_rate': should be a number, not 'fast'.",
            "Give a number, more than 0, for example 0.0002: peak learning rate.",
        ),
        (
            "train.lora.r=0",
            "'train.lora.r': should be at least 1, not 0.",
            "Give a whole number, at least 1 and at most 1024, for example 16: rank.",
        ),
        (
            "train.learning_rate=",
            "'train.learning_rate': should be a number, and nothing is given.",
            "Give a number, more than 0, for example 0.0002: peak learning rate.",
        ),
        (
            "train.load_in_4bit=maybe",
            "'train.load_in_4bit': should be true or false, not 'maybe'.",
            "Give true or false: QLoRA: the base's linear weights in 4 bits (bitsandbytes).",
        ),
        (
            "name=a/b",
            "'name': should use 1 to 100 letters, digits, dots, hyphens and underscores, starting "
            "with a letter or digit, not 'a/b'.",
            "Give text, for example run: name of the run.",
        ),
    ],
)
def test_a_wrong_value_is_told_in_words_with_an_example(override, message, fix):
    assert refused(override) == [(message, fix)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lora.target_modules=1", "should be 'all-linear' or a list, not 1."),
        ("train.lora.init_lora_weights=x", "should be true or false or one of the names"),
        (
            "export.quantization=[x]",
            "'export.quantization.0': should be 'F32', 'F16', 'BF16', 'Q8_0'",
        ),
        ("prepare.source=[1]", "'prepare.source.0': should be a mapping"),
        ("prepare.min_tokens=1900", "'prepare': should have min_tokens of at most half"),
    ],
)
def test_a_value_of_several_kinds_is_told_once(override, message):
    ((said, fix),) = refused(override)
    assert message in said
    assert "validation" not in said
    assert fix


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("learning_rate=1e-3", "Did you mean 'train.learning_rate'?"),
        ("lerning_rate=1e-3", "Did you mean 'train.learning_rate'?"),
        ("lora.r=8", "Did you mean 'train.lora'?"),
        ("train.max_lenght=8", "Did you mean 'max_length'?"),
        ("train.lora.rank=8", "Known here: init_lora_weights, lora_alpha"),
    ],
)
def test_the_option_that_was_meant_is_found_wherever_it_is(override, fix):
    ((_, said),) = refused(override)
    assert said.startswith(fix)


def test_an_unknown_section_is_where_it_was_given_and_a_missing_one_names_its_option(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("name: x\n")
    with pytest.raises(TunewrightError) as caught:
        load_config(file, ["trian.dtype=x"])
    missing, typo = sorted(caught.value.problems, key=lambda p: p.message)
    assert (typo.where, typo.fix) == ("--set trian.dtype=x", "Did you mean 'train'?")
    assert (missing.message, missing.where) == ("'prepare.source' is missing.", str(file))
    assert missing.fix == "Add it, or --set prepare.source=..."


def test_every_option_has_a_way_out():
    options = list(options_below(Config, ()))
    assert len(options) > 90
    assert all(way_out(option)[-1] in ".`'" for option in options)
