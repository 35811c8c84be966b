import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.config.schema.rubrics import (
    CountSection,
    ParameterSection,
    RubricSection,
    WeightsSection,
)
from tunewright.evaluate.rubric_rules import (
    count_found,
    count_rule,
    counts_of,
    parameter_found,
    parameter_rule,
    parts_of,
    sections_found,
    shown,
    weights_found,
)

HEADINGS = ("### Negative Prompt:", "### Tags:")
ANSWER = "A lighthouse at dawn.\n\n### Negative Prompt:\nblurry\n\n### Tags:\nsea, dawn"
WEIGHTS = WeightsSection()


def counted(unit: str, text: str) -> int:
    limits = CountSection(min=0, max=9)
    rubric = RubricSection(
        name="r", words=limits, sentences=limits, paragraphs=limits, characters=limits
    )
    return next(count(text) for name, _, count in counts_of(rubric) if name == unit)


@pytest.mark.parametrize(
    ("unit", "text", "count"),
    [
        ("word", "", 0),
        ("word", "The driver's low-angle shot, 35mm.", 5),
        ("word", "don’t — stop", 2),
        ("word", "女孩 smiles 镜头", 5),
        ("sentence", "", 0),
        ("sentence", "a tag, another tag", 1),
        ("sentence", "One. Two! (Three?) Four…", 4),
        ("sentence", "An f/2.8 lens at 9:16", 1),
        ("sentence", "她笑。她走。", 2),
        ("paragraph", "one\nstill one", 1),
        ("paragraph", "one\n \ntwo\n\n\n\nthree\n\n", 3),
        ("character", "abc", 3),
    ],
)
def test_what_is_counted(unit, text, count):
    assert counted(unit, text) == count


@pytest.mark.parametrize(
    ("limits", "rule", "fits", "too_many"),
    [
        ({"min": 2}, "at least 2 words", 2, None),
        ({"max": 1}, "at most 1 word", 1, 2),
        ({"max": 0}, "at most 0 words", 0, 1),
        ({"min": 2, "max": 3}, "2 to 3 words", 3, 4),
        ({"min": 1, "max": 1}, "1 word", 1, 2),
    ],
)
def test_counts_keep_to_their_limits(limits, rule, fits, too_many):
    section = CountSection(**limits)
    assert count_rule("word", section) == rule
    assert count_found(fits, "word", section)[0]
    if too_many is not None:
        assert count_found(too_many, "word", section) == (
            False,
            f"{too_many} word{'s' * (too_many > 1)}",
        )
    if section.min:
        assert not count_found(section.min - 1, "word", section)[0]


def test_parts_of_an_answer():
    assert parts_of(ANSWER, HEADINGS) == [
        ("", "A lighthouse at dawn."),
        ("### Negative Prompt:", "blurry"),
        ("### Tags:", "sea, dawn"),
    ]
    assert parts_of("a bare prompt", ()) == [("", "a bare prompt")]
    assert parts_of("x\n# Other\ny", ()) == [("", "x"), ("# Other", "y")]
    assert parts_of("a #hash, #1 fan\n#dawn", ()) == [("", "a #hash, #1 fan\n#dawn")]
    assert parts_of("Tags: sea\nTagsome", ("Tags",)) == [("", ""), ("Tags", ": sea\nTagsome")]
    assert parts_of("No: a\nNo way: b", ("No", "No way:")) == [
        ("", ""),
        ("No", ": a"),
        ("No way:", "b"),
    ]


@given(st.text(alphabet="ab \n#:T", max_size=60))
def test_parts_lose_no_word(text):
    parts = parts_of(text, ("T:", "# a"))
    assert parts[0][0] == ""
    whole = "".join(heading + body for heading, body in parts)
    assert "".join(whole.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ANSWER, "all there"),
        (ANSWER.replace("### Tags:", "### Words:"), "'### Tags:' is missing"),
        (ANSWER + "\n### Tags:\nmore", "'### Tags:' is there 2 times"),
        (ANSWER.replace("blurry", " "), "'### Negative Prompt:' is empty"),
        (ANSWER.replace("\nsea, dawn", ""), "'### Tags:' is empty"),
        (
            "p\n### Tags:\nsea\n### Negative Prompt:\nblurry",
            "the order is ### Tags:, ### Negative Prompt:",
        ),
    ],
)
def test_sections(text, found):
    assert sections_found(text, HEADINGS) == (found == "all there", found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no emphasis at all", "balanced, 0 weights"),
        ("(neon:1.3) rain on {red|blue} glass, ((wet)) [old]", "balanced, 1 weight"),
        (r"a smile \(: and a plain \) \{", "balanced, 0 weights"),
        ("(a (b:1.5) c:.5)", "balanced, 2 weights"),
        ("(said: nothing)", "balanced, 1 weight"),
        ("(neon:1.3", "'(' is not closed"),
        ("neon:1.3)", "')' closes nothing"),
        ("{day|night", "'{' is not closed"),
        ("(a [b) c]", "')' closes nothing"),
        ("(neon:2.5)", "'(neon:2.5)' has the weight 2.5"),
        ("(neon:-1)", "'(neon:-1)' has the weight -1"),
        ("(16:9)", "'(16:9)' has the weight 9"),
        ("(neon:1,3)", "'(neon:1,3)' has no number for a weight"),
        ("(neon:1.2.3)", "'(neon:1.2.3)' has no number for a weight"),
        ("(:1.2)", "'(:1.2)' has a weight and no text"),
        ("(neon:nan)", "'(neon:nan)' has the weight nan"),
    ],
)
def test_weights(text, found):
    assert weights_found(text, WEIGHTS) == (found.startswith("balanced"), found)


@given(st.text(alphabet="ab()[]{}\\:1.,", max_size=40))
def test_brackets_agree_with_taking_pairs_away(text):
    passed, found = weights_found(text, WeightsSection(min=-1e308, max=1e308))
    plain = "".join(c for c in _without_escapes(text) if c in "()[]{}")
    while (shorter := plain.replace("()", "").replace("[]", "").replace("{}", "")) != plain:
        plain = shorter
    unbalanced = "closes nothing" in found or "is not closed" in found
    assert unbalanced <= bool(plain)
    assert not (passed and plain)


def _without_escapes(text: str) -> str:
    kept, skip = [], False
    for character in text:
        if not skip and character != "\\":
            kept.append(character)
        skip = not skip and character == "\\"
    return "".join(kept)


FRAMES = ParameterSection(
    name="num_frames", also=("frames",), multiple_of=8, plus=1, min=9, max=257
)
RATIO = ParameterSection(name="aspect ratio", choices=("16:9", "832x480"), required=True)


@pytest.mark.parametrize(
    ("text", "passed", "found"),
    [
        ("no parameter", True, "not stated"),
        ("tags, num_frames=97, seed=1", True, "97"),
        ("Num Frames : 97 frames.", True, "97 frames"),
        ('{"num-frames": 97, "x": 1}', True, "97"),
        ("**Frames:** 257", True, "257"),
        ("frames: 9; frames: 17", True, "9"),
        ("num_frames=96", False, "96"),
        ("num_frames=1", False, "1"),
        ("num_frames=265", False, "265"),
        ("frames: 97, frames: 96", False, "96"),
        ("frames: many", False, "many"),
        ("frames: 9x16", False, "9x16"),
        ("frames: 97.5", False, "97.5"),
        ("frames:\n97", False, "no value"),
        ("keyframes: 96, frames per second: 24", True, "not stated"),
    ],
)
def test_numbers(text, passed, found):
    assert parameter_found(text, FRAMES) == (passed, found)


@pytest.mark.parametrize(
    ("text", "passed", "found"),
    [
        ("aspect_ratio=16:9, x", True, "16:9"),
        ("ASPECT-RATIO: 832 × 480", True, "832 × 480"),
        ("aspectratio=832*480", True, "832*480"),
        ("aspect_ratio=4:3", False, "4:3"),
        ("", False, "not stated"),
    ],
)
def test_choices(text, passed, found):
    assert parameter_found(text, RATIO) == (passed, found)


def test_a_parameter_that_must_only_be_stated():
    seed = ParameterSection(name="seed", required=True)
    assert parameter_found("seed=any", seed) == (True, "any")
    assert parameter_found("seed=, x", seed) == (False, "no value")
    assert parameter_found("no", seed) == (False, "not stated")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"multiple_of": 8, "plus": 1, "min": 9, "max": 257}, "p: 8n + 1, 9 to 257"),
        ({"multiple_of": 32, "min": 32}, "p: a multiple of 32, at least 32"),
        ({"multiple_of": 1, "max": 2.5}, "p: a whole number, at most 2.5"),
        ({"choices": ("a", "b"), "required": True}, "p: a or b, stated"),
    ],
)
def test_parameters_in_words(options, rule):
    assert parameter_rule(ParameterSection(name="p", **options)) == rule


@given(st.text(max_size=200))
def test_any_text_can_be_looked_through(text):
    parameter_found(text, FRAMES)
    sections_found(text, HEADINGS)
    weights_found(text, WEIGHTS)


def test_what_is_shown_is_short_and_on_one_line():
    assert shown("a\n b") == "a b"
    assert len(shown("x" * 500)) == 123
