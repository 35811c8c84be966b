"""Whether agents have learned different things, of losses that are made up."""

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
    assert finding(against, against, rows=10) == says
    assert finding(against, against, rows=9) == "unknown"


def test_of_many_others_the_best_by_luck_is_not_believed():
    """Eight adapters that are alike: under 5 % of the agents are said to be misplaced."""
    said = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        same = {
            f"a{n}": [Loss(float(10 * random.normal(3, 0.3)), 10) for _ in range(40)]
            for n in range(8)
        }
        made = matrix({"a0": same} | {f"a{n}": same for n in range(1, 8)}, samples=200, seed=seed)
        said.append(made["specialisation"]["a0"]["finding"])
    assert said.count("misplaced") <= 4


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
    assert "only 3 held-out rows" in sentence("critic", few)
