"""What `prepare` makes of storyboards passes the rubric of its own form."""

import json

import pytest

from tunewright import prepare
from tunewright.evaluate.rubric import check, resolve


@pytest.fixture(scope="module")
def answers(make_config):
    """The answers of all prepared rows of the bundled storyboards."""
    dataset = prepare(
        make_config("prepare.source=sample:storyboards", "prepare.storyboard.augmentation_factor=2")
    )
    lines = [
        line
        for side in ("train", "eval")
        for line in (dataset.path / f"{side}.jsonl").read_text().splitlines()
    ]
    return [json.loads(line)["completion"] for line in lines]


def test_prepared_answers_pass_the_rubric_of_their_form(answers):
    """A shot that says nothing to avoid gets no such heading; nothing else fails."""
    style, comfy = resolve(["style-prompt", "comfyui"])
    failed = [
        (one.rule, one.found) for text in answers for one in check(style, text) if not one.passed
    ]
    assert {found for _, found in failed} <= {"'### Negative Prompt:' is missing"}
    assert len(failed) <= 0.05 * len(answers)
    assert all(one.passed for text in answers for one in check(comfy, text))


def test_an_answer_that_runs_on_into_the_next_row_fails(answers):
    (style,) = resolve(["style-prompt"])
    whole = next(text for text in answers if all(one.passed for one in check(style, text)))
    for heading in ("### Instruction:", "### Style:", "### Response:"):
        failed = [one.rule for one in check(style, f"{whole}\n\n{heading}\nmore") if not one.passed]
        assert failed == ["stops before the next row"]
    twice = check(style, f"{whole}\n\n### Tags:\nmore")
    assert [one.found for one in twice if not one.passed] == ["'### Tags:' is there 2 times"]
