import pytest

from tunewright.train.schedule import Schedule, best_of


def schedule(**changes) -> Schedule:
    return Schedule(**{"steps": 20, "eval_steps": 6, "save_steps": 4, "patience": 2} | changes)


def test_the_last_step_is_evaluated_and_saved_in_any_case():
    made = schedule()
    assert [step for step in range(1, 21) if made.evaluates(step)] == [6, 12, 18, 20]
    assert [step for step in range(1, 21) if made.saves(step)] == [4, 8, 12, 16, 20]


@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ([3.0], False),
        ([3.0, 3.1], False),
        ([3.0, 3.1, 3.2], True),
        ([3.0, 3.1, 2.9, 3.0], False),
        ([3.0, 2.0, 2.0, 2.0], True),
        ([3.0, 3.1, 3.2, 1.0, 1.1], False),
    ],
)
def test_over_after_two_evaluations_without_a_better_one(losses, over):
    assert schedule().is_over(list(enumerate(losses))) is over
    assert not schedule(patience=None).is_over(list(enumerate(losses)))


def test_better_by_less_than_the_threshold_is_not_better():
    slowly = [(0, 3.0), (6, 2.99), (12, 2.98)]
    assert not schedule().is_over(slowly)
    assert schedule(threshold=0.05).is_over(slowly)
    assert not schedule(threshold=0.05).is_over([(0, 3.0), (6, 2.99), (12, 2.9)])


def test_the_best_is_the_earlier_of_equal_ones_and_never_the_one_before_training():
    assert best_of([(0, 1.0), (6, 2.5), (12, 2.0), (18, 2.0)]) == (12, 2.0)
