"""Whether agents have learned different things, of losses that are made up."""

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest

from tunewright.evaluate.cross import Loss, finding, matrix, perplexity, ratio, sentence
from tunewright.evaluate.intervals import Estimate


def rows(mean, spread=0.1, count=30, seed=0):
    random = np.random.default_rng(seed)
    return [Loss(float(n * random.normal(mean, spread)), n) for n in random.integers(5, 40, count)]


def table(own, other, base=5.0, **kind):
    """Return the losses of two agents: on both data the own and the other adapter lose as given."""
    return {
        "critic": {
            "critic": rows(own, **kind),
            "synthesizer": rows(other, **kind),
            "base": rows(base, **kind),
        },
        "synthesizer": {
            "critic": rows(other, **kind),
            "synthesizer": rows(own, **kind),
            "base": rows(base, **kind),
        },
    }


def found(losses):
    return matrix(losses, samples=200, seed=1)


def test_perplexity_is_that_of_all_tokens():
    given = [Loss(3 * log(7), 3), Loss(5 * log(7), 5)]
    assert perplexity(given) == pytest.approx(7)
    assert perplexity([Loss(2.0, 1), Loss(1.0, 4)]) == pytest.approx(exp(3 / 5))


@pytest.mark.parametrize(
    ("own", "other", "says"),
    [(3.0, 3.5, "specialised"), (3.5, 3.0, "misplaced"), (3.0, 3.0, "shared")],
)
def test_what_is_found(own, other, says):
    made = found(table(own, other))
    assert {one["finding"] for one in made["specialisation"].values()} == {says}
    assert made["perplexity"]["critic"]["critic"] == pytest.approx(exp(own), rel=0.05)
    assert made["perplexity"]["critic"]["base"] == pytest.approx(exp(5), rel=0.05)


def test_a_difference_within_chance_is_none():
    """Of rows that differ much, a small difference of the means is not believed."""
    losses = table(3.0, 3.0)
    for seed, models in enumerate(losses.values()):
        for number, model in enumerate(models):
            models[model] = rows(3.0 + 0.05 * number, spread=1.0, count=12, seed=10 * seed + number)
    assert {one["finding"] for one in found(losses)["specialisation"].values()} == {"shared"}


def test_the_ratio_is_of_pairs():
    """Rows that are hard for both make no interval wide."""
    hard = [Loss(10.0 * tokens * (1 + index % 5), tokens) for index, tokens in enumerate([8] * 40)]
    easier = [Loss(row.nats - 0.2 * row.tokens, row.tokens) for row in hard]
    against = ratio(easier, hard, samples=100, seed=0)
    assert against.value == pytest.approx(exp(-0.2))
    assert against.high - against.low < 1e-9


def test_the_best_of_several_others_counts():
    losses = table(3.0, 3.5)
    for whose, models in losses.items():
        models["third"] = rows(2.5 if whose == "critic" else 4.0)
    losses["third"] = {model: rows(3.0) for model in ("critic", "synthesizer", "third", "base")}
    made = found(losses)["specialisation"]
    assert (made["critic"]["best_other"], made["critic"]["finding"]) == ("third", "misplaced")
    assert (made["synthesizer"]["best_other"], made["synthesizer"]["finding"]) == (
        "critic",
        "specialised",
    )


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ([(0.8, 0.99)], "specialised"),
        ([(0.8, 0.99), (0.9, 1.0)], "shared"),
        ([(1.0, 1.2)], "shared"),
        ([(0.8, 0.99), (1.01, 1.2)], "misplaced"),
    ],
)
def test_the_end_of_an_interval_decides(bounds, says):
    against = [Estimate((low + high) / 2, low, high) for low, high in bounds]
    assert finding(against, against, sources=10) == says
    assert finding(against, against, sources=9) == "unknown"


def test_of_many_others_the_best_by_luck_is_not_believed():
    """Eight adapters that are alike: under 5 % of the agents are said to be misplaced."""
    said = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        same = {
            f"a{n}": [Loss(float(10 * random.normal(3, 0.3)), 10) for _ in range(40)]
            for n in range(8)
        }
        made = matrix({"a0": same} | {f"a{n}": same for n in range(1, 8)}, samples=200, seed=seed)
        said.append(made["specialisation"]["a0"]["finding"])
    assert said.count("misplaced") <= 2


def test_rows_that_templates_count_differently_are_compared_by_what_is_lost():
    own = [Loss(12.0, 5)] * 20
    other = [Loss(12.0, 6)] * 20
    assert ratio(own, other, samples=20, seed=0).value == pytest.approx(1)


def test_findings_in_words():
    texts = [sentence("critic", found(table(*means))["specialisation"]["critic"]) for means in
             ((3.0, 3.5), (3.5, 3.0), (3.0, 3.0))]  # fmt: skip
    assert "its own adapter is best" in texts[0]
    assert "is better than its own" in texts[1]
    assert "is as good as its own" in texts[2]
    few = matrix(table(3.0, 3.5, count=3), samples=50, seed=0)["specialisation"]["critic"]
    assert "only 3 held-out rows of 3 sources" in sentence("critic", few)


def named(losses, copies=1):
    """Return losses whose rows are each there so many times, as copies of one source."""
    return {
        whose: {
            model: [
                replace(row, source=f"shot {n}")
                for n, row in enumerate(rows_)
                for _ in range(copies)
            ]
            for model, rows_ in models.items()
        }
        for whose, models in losses.items()
    }


def noisy(count):
    """Return losses of two agents between whose adapters the difference is about as large as chance."""
    return {
        whose: {
            model: rows(3.0, spread=0.3, count=count, seed=seed + number)
            for number, model in enumerate(("critic", "synthesizer", "base"))
        }
        for seed, whose in ((0, "critic"), (10, "synthesizer"))
    }


@pytest.mark.parametrize("copies", [2, 10])
def test_copies_of_a_row_make_no_interval_narrower(copies):
    losses = noisy(25)
    plain, repeated = found(named(losses)), found(named(losses, copies))
    for whose, one in repeated["specialisation"].items():
        once = plain["specialisation"][whose]
        for end in ("value", "low", "high"):
            assert one["ratio"][end] == pytest.approx(once["ratio"][end])
        assert one["finding"] == once["finding"]
        assert (one["rows"], one["sources"]) == (25 * copies, 25)
    # As rows of their own they would.
    apart = {w: {m: rows_ * copies for m, rows_ in of.items()} for w, of in losses.items()}
    for whose, one in found(apart)["specialisation"].items():
        once = plain["specialisation"][whose]["ratio"]
        assert one["ratio"]["high"] - one["ratio"]["low"] < 0.85 * (once["high"] - once["low"])


def test_many_copies_of_few_sources_say_nothing():
    made = found(named(table(3.0, 3.5, count=9), 20))["specialisation"]["critic"]
    assert (made["finding"], made["rows"], made["sources"]) == ("unknown", 180, 9)
    assert "only 180 held-out rows of 9 sources" in sentence("critic", made)
    enough = found(named(table(3.0, 3.5, count=10), 20))["specialisation"]["critic"]
    assert enough["finding"] == "specialised"


def test_sources_of_different_sizes_are_drawn_whole():
    """One source with many rows weighs as much as it has tokens, and is there or not."""
    own = [Loss(10.0, 10, source="large")] * 30 + [Loss(30.0, 10, source=f"{n}") for n in range(10)]
    other = [replace(row, nats=20.0) for row in own]
    against = ratio(own, other, samples=500, seed=0)
    assert against.value == pytest.approx(exp((30 * -10 + 10 * 10) / 400))
    # Without the large one every other is worse, with it better.
    assert against.low < 1 < against.high
