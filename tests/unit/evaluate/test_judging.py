"""A judge: both orders, ties, and answers that name no side."""

import pytest

from tunewright.evaluate.judging import Duel, choice_in, judged
from tunewright.events import SILENT
from tunewright.models.sampling import Answer

DUELS = [Duel(f"Q{n}", f"plain {n}", f"fine {n}") for n in range(20)]


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A", "A"),
        ("B.", "B"),
        ("**B**", "B"),
        ("tie", "tie"),
        ("Tie\n", "tie"),
        ("Answer A is vivid, answer B is dull.\n\nA", "A"),
        ("<think>maybe B</think>\nA", "A"),
        ("The better one is [[B]]", "B"),
        ("I like a", None),
        ("BA", None),
        ("", None),
        ("Answer A is better than the other.", None),
    ],
)
def test_the_last_word_is_the_choice(text, choice):
    assert choice_in(text) == choice


class Judge:
    name = "judge"

    def __init__(self, choose):
        self.choose, self.asked = choose, []

    def answer(self, prompts, *, seed, max_seconds):
        texts = [prompt[0]["content"] for prompt in prompts]
        self.asked += texts
        return [Answer(self.choose(text), 1, ended=True) for text in texts]


def _judged(choose, duels=DUELS):
    judge = Judge(choose)
    found = judged(
        judge,
        duels,
        criterion="Which is finer?",
        batch_size=8,
        max_seconds=60,
        samples=200,
        seed=1,
        listener=SILENT,
    )
    return judge, found


def _finer(text):
    return "A" if text.index("fine ") < text.index("plain ") else "B"


def test_a_judge_who_sees_the_difference():
    judge, found = _judged(_finer)
    assert len(judge.asked) == 40
    assert (found["wins"], found["ties"], found["losses"]) == (20, 0, 0)
    assert found["rate"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["same_in_both_orders"] == 1.0
    first, swapped = judge.asked[0], judge.asked[8]
    assert first.index("plain 0") < first.index("fine 0")
    assert swapped.index("fine 0") < swapped.index("plain 0")
    assert all("Which is finer?" in text for text in judge.asked)


def test_a_judge_who_likes_the_first_place_decides_nothing():
    _, found = _judged(lambda text: "A")
    assert (found["wins"], found["ties"], found["losses"]) == (0, 20, 0)
    assert found["rate"]["value"] == 0.5
    assert found["same_in_both_orders"] == 0.0


def test_a_judge_who_prefers_the_base():
    _, found = _judged(lambda text: {"A": "B", "B": "A"}[_finer(text)])
    assert (found["wins"], found["losses"], found["rate"]["value"]) == (0, 20, 0.0)


def test_answers_that_name_no_side_are_left_out_and_counted():
    _, found = _judged(lambda text: "Hm." if "Q3\n" in text else _finer(text))
    assert (found["asked"], found["unread"], found["wins"]) == (20, 1, 19)
    _, none = _judged(lambda text: "Hm.")
    assert none["rate"] is None
    assert none["unread"] == 20


def test_equal_answers_are_ties_without_being_shown():
    judge, found = _judged(_finer, [Duel("Q", "same", "same"), *DUELS[:2]])
    assert len(judge.asked) == 4
    assert (found["asked"], found["ties"], found["wins"]) == (3, 1, 2)
