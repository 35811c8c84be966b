"""Asking: in turns, with fixed seeds, bounded in time."""

import pytest

from tunewright.errors import TunewrightError
from tunewright.evaluate.harness import ask
from tunewright.events import SILENT
from tunewright.models.sampling import Answer, TimeUpError

PROMPTS = [[{"role": "user", "content": str(n)}] for n in range(7)]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Fake:
    """Takes so many seconds a batch."""

    def __init__(self, name, clock, seconds=1.0):
        self.name, self.clock, self.seconds, self.asked = name, clock, seconds, []

    def answer(self, prompts, *, seed, max_seconds):
        self.asked.append((seed, [prompt[0]["content"] for prompt in prompts]))
        self.clock.now += min(self.seconds, max_seconds)
        if self.seconds > max_seconds:
            raise TimeUpError
        return [Answer(f"{self.name} {seed} {p[0]['content']}", 3, ended=True) for p in prompts]


class Progress:
    def __init__(self):
        self.lines, self.done = [], []

    def started(self, stage, total, unit):
        self.total = (stage, total, unit)

    def advanced(self, done, detail):
        self.done.append((done, detail))

    def said(self, text):
        self.lines.append(text)


def _ask(seconds, max_seconds, listener=SILENT):
    clock = Clock()
    sides = [Fake("base", clock, seconds), Fake("tuned", clock, seconds)]
    found = ask(
        sides,
        [PROMPTS],
        batch_size=3,
        seed=42,
        max_seconds=max_seconds,
        listener=listener,
        clock=clock,
    )
    return sides, found


def test_sides_take_turns_with_the_same_seeds():
    listener = Progress()
    sides, found = _ask(1.0, 60.0, listener)
    assert [seed for seed, _ in sides[0].asked] == [42, 45, 48]
    assert sides[0].asked == sides[1].asked
    assert [a.text for a in found.answers[1]] == [
        f"tuned {42 + 3 * (n // 3)} {n}" for n in range(7)
    ]
    assert found.planned == 7
    assert listener.total == ("compare", 14, "answers of base and tuned")
    steps = [(3, "base"), (6, "tuned"), (9, "base"), (12, "tuned"), (13, "base"), (14, "tuned")]
    assert listener.done == steps
    assert listener.lines == []


@pytest.mark.parametrize("max_seconds", [4.0, 4.5, 5.0, 5.9])
def test_when_the_time_is_over_both_sides_have_answered_what_is_compared(max_seconds):
    listener = Progress()
    _, found = _ask(1.0, max_seconds, listener)
    assert [len(side) for side in found.answers] == [6, 6]
    assert "6 of 7 prompts" in listener.lines[0]


def test_no_time_for_the_first_batch_is_told():
    with pytest.raises(TunewrightError) as caught:
        _ask(90.0, 60.0)
    (problem,) = caught.value.problems
    assert problem.code == "E_TIME"
    assert "in the 60 s that were left" in problem.message
    assert problem.where == "compare.max_minutes"


def test_groups_are_batched_apart():
    clock = Clock()
    side = Fake("base", clock)
    found = ask(
        [side],
        [PROMPTS[:4], [], PROMPTS[4:]],
        batch_size=3,
        seed=1,
        max_seconds=60,
        listener=SILENT,
        clock=clock,
    )
    assert side.asked == [(1, ["0", "1", "2"]), (4, ["3"]), (5, ["4", "5", "6"])]
    assert len(found.answers[0]) == found.planned == 7
