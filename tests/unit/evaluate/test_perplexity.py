from math import exp

import pytest

from tunewright.evaluate.perplexity import RowLoss, perplexity


def test_perplexity_is_by_token_and_not_by_row():
    rows = [RowLoss(10.0, 5.0, 10), RowLoss(60.0, 15.0, 30)]
    result = perplexity(rows, samples=200, seed=1)
    assert result.base.value == pytest.approx(exp(70 / 40))
    assert result.tuned.value == pytest.approx(exp(20 / 40))
    assert result.ratio.value == pytest.approx(exp(-50 / 40))
    assert (result.rows, result.tokens) == (2, 40)
    for estimate in (result.base, result.tuned, result.ratio):
        assert estimate.low <= estimate.value <= estimate.high


def test_the_ratio_is_of_pairs():
    # Rows differ much, the gain is the same in each: its interval is a point.
    rows = [RowLoss(n * 10.0, n * 10.0 - 1, 10) for n in range(1, 9)]
    result = perplexity(rows, samples=200, seed=1)
    assert result.ratio.low == pytest.approx(result.ratio.high)
    assert result.base.high > 2 * result.base.low


def test_one_row_has_no_spread():
    result = perplexity([RowLoss(3.0, 2.0, 1)], samples=100, seed=1)
    assert result.ratio.low == result.ratio.value == result.ratio.high


def test_a_broken_model_has_a_finite_perplexity():
    assert perplexity([RowLoss(1.0, 1e9, 1)], samples=100, seed=1).tuned.value < 1e305
