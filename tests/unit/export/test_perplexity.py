"""When the perplexities of two models are told apart from a limit."""

import math

import numpy as np
import pytest

from tunewright.export._parity import _batches
from tunewright.export._perplexity import Perplexity, Token


def differing(count: int, mean: float, spread: float, seed: int = 0) -> Perplexity:
    """Return log-probabilities whose differences have exactly this mean and standard deviation."""
    noise = np.random.default_rng(seed).normal(size=count)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * spread
    log_ps = np.linspace(-5, -1, count)
    return Perplexity(log_ps.tolist(), (log_ps - mean - noise).tolist())


def test_figures_are_those_of_the_definition():
    found = differing(64, math.log(1.03), 0.08)
    assert found.change == pytest.approx(0.03)
    assert found.gguf / found.merged == pytest.approx(1.03)
    assert found.merged == pytest.approx(math.exp(3))
    half = 1.96 * 0.08 / 8
    assert found.interval == pytest.approx((1.03 * math.exp(-half) - 1, 1.03 * math.exp(half) - 1))


def test_the_interval_holds_the_change_of_all_tokens_nineteen_times_in_twenty():
    everything = differing(20_000, 0.01, 0.1)
    chosen, held = np.random.default_rng(1), 0
    for _ in range(400):
        some = chosen.choice(20_000, 64, replace=False)
        part = Perplexity(np.take(everything.log_ps, some), np.take(everything.log_qs, some))
        low, high = part.interval
        held += low <= everything.change <= high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize(
    ("mean", "spread", "limit", "clear"),
    [
        (0.0, 0.01, 0.02, True),  # within, by far
        (0.019, 0.05, 0.02, False),  # within, by chance perhaps
        (-0.021, 0.05, 0.02, False),
        (0.2, 0.05, 0.02, True),  # beyond, by far
        (-0.2, 0.05, 0.02, True),
        (0.0, 0.5, 0.02, False),  # nothing is told
        (math.nan, 0.01, 0.02, True),  # and never will be
        (0.3, 0.5, math.inf, True),
    ],
)
def test_clear_is_what_more_tokens_would_hardly_change(mean, spread, limit, clear):
    assert differing(64, mean, spread).is_clear_of(limit) is clear


def test_one_token_tells_nothing():
    one = Perplexity([-1.0], [-1.0])
    assert one.interval == (-1.0, math.inf)
    assert not one.is_clear_of(0.02)


def test_two_are_one_of_all_their_tokens():
    one, other = differing(64, 0.1, 0.2), differing(64, -0.1, 0.2, seed=1)
    both = one + other
    assert len(both.log_ps) == len(both.log_qs) == 128
    assert both.change == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("tokens", "sizes"), [(1000, [64, 128, 256]), (100, [64, 36]), (64, [64]), (0, [])]
)
def test_each_batch_doubles_what_was_read_and_no_token_comes_twice(tokens, sizes):
    given = [Token([number], number, -1.0) for number in range(tokens)]
    batches = _batches(given, 64)
    assert [len(batch) for batch in batches] == sizes
    for batch in batches:
        assert [token.id for token in batch] == sorted(token.id for token in batch)
    ids = [token.id for batch in batches for token in batch]
    assert len(ids) == len(set(ids))
    assert _batches(given, 64) == batches
    if tokens > 448:
        # Of all the rows, and not of the first ones.
        assert np.mean([token.id for token in batches[0]]) == pytest.approx(tokens / 2, rel=0.2)
