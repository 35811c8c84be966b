"""Intervals, against published values and by how often they cover what they should."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.evaluate.intervals import difference, independent, mean, share


@pytest.mark.parametrize(
    ("passed", "asked", "low", "high"),
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_shares_as_newcombe_prints_them(passed, asked, low, high):
    found = share(passed, asked)
    assert found.value == passed / asked
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_a_share_of_nothing_is_anything():
    assert (share(0, 0).low, share(0, 0).high) == (0.0, 1.0)


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_of_a_share_holds_it_and_stays_between_0_and_1(passed, asked):
    found = share(min(passed, asked), asked)
    assert 0 <= found.low <= found.value <= found.high <= 1
    other = share(asked - min(passed, asked), asked)
    assert found.low == pytest.approx(1 - other.high)


def test_intervals_of_means_cover_the_mean_of_the_source():
    random, hits = Random(5), 0
    for seed in range(200):
        found = mean([random.expovariate(1) for _ in range(60)], samples=300, seed=seed)
        hits += found.low <= 1 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_difference_is_over_pairs():
    base = [float(n) for n in range(50)]
    found = difference(base, [x + 1 + 0.01 * x for x in base], samples=200, seed=1)
    assert found.value == pytest.approx(1.245)
    assert found.high - found.low < 0.2  # the values themselves spread over 50


def test_answers_to_one_question_are_no_independent_proof():
    """Six questions asked ten times: the interval is that of six values, and covers as often as it should."""
    random, alone, together = Random(7), 0, 0
    for seed in range(200):
        questions = [random.gauss(0, 1) for _ in range(6)]
        values = [q + random.gauss(0, 0.1) for q in questions for _ in range(10)]
        groups = [n // 10 for n in range(60)]
        for grouped in (None, groups):
            found = mean(values, samples=200, seed=seed, groups=grouped)
            covered = found.low <= 0 <= found.high
            if grouped:
                together += covered
            else:
                alone += covered
    assert alone / 200 < 0.6
    assert together / 200 > 0.8


def test_groups_of_one_value_are_as_no_groups():
    values = [1.0, 2.0, 4.0]
    plain = mean(values, samples=100, seed=1)
    assert mean(values, samples=100, seed=1, groups="abc") == plain
    assert mean(values, samples=100, seed=1, groups="aaa") == plain


def test_shares_of_repeated_questions_are_as_wide_as_the_questions_are_few():
    assert independent("aabb") == 2
    assert independent("aaaa") == 4
    assert share(20, 40, of=2).low == share(1, 2).low
