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
