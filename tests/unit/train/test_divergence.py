import math

import pytest

from tunewright.errors import TunewrightError
from tunewright.train.divergence import Watchdog

VOCABULARY = 4096
GUESS = math.log(VOCABULARY)


@pytest.fixture
def dog() -> Watchdog:
    return Watchdog(VOCABULARY, lambda row: f"train.jsonl:{row + 1}")


def refused(action, *parts: str) -> None:
    with pytest.raises(TunewrightError) as caught:
        action()
    (problem,) = caught.value.problems
    assert problem.code == "E_DIVERGED"
    assert caught.value.exit_code == 10
    for part in parts:
        assert part in f"{problem.message} {problem.where}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_refused_with_its_rows(dog, value):
    refused(lambda: dog.loss(value, 7, [3, 5]), "step 7", "train.jsonl:4", "train.jsonl:6")
    refused(lambda: dog.norm(value, 7, [0], []), "gradient norm", "train.jsonl:1")
    refused(lambda: dog.trained(value, 7, 3.0), "step 7")
    refused(lambda: dog.evaluation([(0, 3.0), (5, value)]), "step 5")


def test_many_rows_are_counted(dog):
    refused(lambda: dog.loss(math.nan, 1, range(9)), "and 5 more rows")


def test_a_gradient_explodes_against_its_own_past(dog):
    norms = [1.0 + 0.01 * n for n in range(10)]
    dog.norm(900.0, 11, [], norms)
    refused(lambda: dog.norm(1100.0, 12, [2], norms), "times the usual", "train.jsonl:3")


def test_the_first_steps_have_no_past(dog):
    norms: list[float] = []
    for step in range(1, 11):
        dog.norm(10.0**step, step, [], norms)
    assert len(norms) == 10


def test_the_past_is_fifty_steps_long(dog):
    norms: list[float] = []
    for step in range(80):
        dog.norm(1.0, step, [], norms)
    assert len(norms) == 50


def test_a_loss_as_high_as_guessing_is_refused_unless_it_began_there(dog):
    dog.evaluation([(0, 3.0), (5, 4.0)])
    refused(lambda: dog.evaluation([(0, 3.0), (5, 4.0), (10, GUESS)]), "evaluation was at step 5")
    dog.evaluation([(0, GUESS), (5, GUESS * 1.1)])
    dog.trained(GUESS, 3, 3.0)
    refused(lambda: dog.trained(GUESS * 1.6, 3, 3.0), "training loss")


def test_a_small_norm_is_no_explosion_however_small_those_before_it_were(dog):
    for usual in (0.0, 1e-6):
        norms = [usual] * 50
        dog.norm(2e-3, 51, [], norms)
        dog.norm(1.0, 52, [], norms)
    refused(lambda: dog.norm(2.0, 53, [2], [1e-6] * 50), "2,000,000 times the usual")
    refused(lambda: dog.norm(2.0, 53, [2], [0.0] * 50), "the usual one is 0", "train.jsonl:3")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_base_that_gives_no_number_is_refused_before_training(dog, value):
    refused(lambda: dog.evaluation([(0, value)]), "before training", "the base itself", "step 0")
    dog.evaluation([(0, 100.0)])


def test_a_run_that_goes_on_knows_its_good_evaluations_and_its_checkpoint(dog):
    with pytest.raises(TunewrightError) as caught:
        dog.loss(math.nan, 7, [])
    assert "last" not in caught.value.problems[0].message
    dog.checkpoint = 0
    refused(
        lambda: dog.loss(math.nan, 7, []), "at step 7; the last whole checkpoint is that of step 0."
    )
    dog.resumed([(0, 3.0), (5, 2.0), (10, 2 * GUESS)])
    dog.checkpoint = 12
    refused(
        lambda: dog.loss(math.nan, 13, []),
        "at step 13; the last good evaluation was at step 5; the last whole checkpoint is that of step 12.",
    )
    dog.resumed([])
    refused(lambda: dog.loss(math.nan, 1, []), "at step 1; the last whole checkpoint")
