"""Length, ends and repetition of answers."""

import pytest

from tunewright.evaluate.habits import change, habits
from tunewright.models.sampling import Answer

LONG = "the cat sat on the mat and the dog sat on the mat"
CHANCE = {"samples": 200, "seed": 3}


def test_figures_of_a_side():
    answers = [Answer(LONG, 14, ended=True), Answer("one two three", 4, ended=False)]
    found = habits(answers, ["Q1", "Q2"], **CHANCE)
    assert (found.answers, found.words.value, found.tokens.value) == (2, 8.0, 9.0)
    assert found.ended.value == 0.5
    # 11 3-grams, of which "sat on the" and "on the mat" come twice
    assert found.distinct_3.value == pytest.approx((9 / 11 + 1) / 2)
    assert found.different_answers == 1.0
    assert found.facts()["ended"]["low"] < 0.5 < found.facts()["ended"]["high"]


def test_change_is_over_pairs():
    base = [Answer("word " * n, n, ended=True) for n in range(5, 45)]
    tuned = [Answer("word " * (n + 2), n, ended=n % 2 == 0) for n in range(5, 45)]
    found = change(base, tuned, range(40), **CHANCE)
    assert (found.words.value, found.words.low, found.words.high) == (2.0, 2.0, 2.0)
    assert found.ended.value == -0.5
    assert found.ended.high < 0
