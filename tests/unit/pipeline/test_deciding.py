"""What a run asks, who answers, and that the answers hold."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.pipeline import SAFE, Answer, Given, StoppedError, run
from tunewright.pipeline import questions as asked
from tunewright.pipeline.deciding import Question, answered_before, keep
from tunewright.pipeline.questions import NOISE, equally_good
from tunewright.pipeline.state import loaded

WARNING = {"code": "W_CUT", "message": "Cut.", "where": "a:1", "fix": ""}
WARNINGS = {"warnings": [{"code": "W_CUT", "count": 2, "first": [WARNING]}]}


class Says:
    """Answers as it was told, and remembers what it was asked; anything else is a surprise."""

    def __init__(self, **answers):
        self.answers = answers
        self.heard = []

    def decide(self, question):
        self.heard.append(question.subject)
        if question.earlier is not None:
            return Answer(question.earlier, "earlier")
        return Answer(self.answers[question.subject], "user")


def rows(config) -> list[dict]:
    return json.loads((Path(config.run_dir) / "decisions.json").read_text())


def test_nothing_is_asked_where_all_is_well(fakes, configured):
    run(configured(), decider=Says())
    assert not (Path(configured().run_dir) / "decisions.json").exists()


def test_without_a_terminal_the_safe_answers_are_taken_and_written_down(fakes, configured):
    fakes.facts |= {"check": WARNINGS, "compare": {"verdict": "nothing learned"}}
    run(configured())
    run(configured())
    kept = [(row["subject"], row["answer"], row["by"]) for row in rows(configured())]
    assert kept == [("warnings", "continue", "default"), ("verdict", "continue", "default")]
    assert "W_CUT, 2 times: Cut." in rows(configured())[0]["question"]
    assert rows(configured())[0]["time"].endswith("+00:00")


def test_a_user_who_stops_at_warnings_trains_nothing(fakes, configured):
    fakes.facts["check"] = WARNINGS
    fakes.constant |= {"check"}
    with pytest.raises(StoppedError) as caught:
        run(configured(), decider=Says(warnings="stop"))
    assert caught.value.exit_code == 1
    assert set(fakes.taken()) == {"prepare", "check", "report"}
    assert [one.stage for one in caught.value.outcomes] == ["prepare", "check", "report"]
    # To stop is asked again; to go on is not, and holds for other commands.
    decider = Says(warnings="continue")
    run(configured(), until="train", decider=decider)
    assert decider.heard == ["warnings"]
    run(configured("train.learning_rate=1e-4"), until="train", decider=Says())
    assert [row["answer"] for row in rows(configured())] == ["stop", "continue"]


def test_another_check_is_another_question(fakes, configured):
    fakes.facts["check"] = WARNINGS
    run(configured(), until="train", decider=Says(warnings="continue"))
    fakes.facts["check"] = WARNINGS | {"rows": 4}
    with pytest.raises(KeyError):
        run(configured("seed=1"), until="train", decider=Says())


@pytest.mark.parametrize("verdict", ["overfitted", "undecided", None])
def test_a_user_who_doubts_the_verdict_gets_a_report_and_no_export(fakes, configured, verdict):
    fakes.facts["compare"] = {"verdict": verdict}
    with pytest.raises(StoppedError):
        run(configured(), decider=Given({"verdict": "stop"}, SAFE))
    made = set(fakes.taken())
    assert {"compare", "report"} <= made
    assert not made & {"merge", "export", "publish"}
    (row,) = rows(configured())
    assert (row["answer"], row["by"]) == ("stop", "flag")
    assert ("refused" in row["choices"]["continue"]) == (verdict != "undecided")


def test_flags_come_before_earlier_answers_and_the_terminal(fakes, configured):
    fakes.facts["check"] = WARNINGS
    run(configured(), until="train", decider=Says(warnings="continue"))
    decider = Says()
    with pytest.raises(StoppedError):
        run(configured("seed=3"), until="train", decider=Given({"warnings": "stop"}, decider))
    assert decider.heard == []


class Kept:
    def __init__(self, step):
        self.step = step


def test_the_checkpoint_that_the_user_chose_is_merged_and_stays_chosen(
    fakes, configured, monkeypatch
):
    fakes.facts["train"] = {"eval_losses": [[0, 4.0], [3, 2.001], [5, 2.0], [8, 2.5]]}
    monkeypatch.setattr(asked, "checkpoints_of", lambda config, adapter: [Kept(3), Kept(5)])
    run(configured(), decider=Says(checkpoint="3"))
    config_file = Path(configured().run_dir) / "run.yaml"
    # The answer is about this adapter, and no option of the run.
    assert "checkpoint: 3" not in config_file.read_text()
    assert loaded(configured(), ["merged"])["merged"].path == config_file.parent / "merged"
    fakes.taken()
    # The config of the user names none: the decision is remembered, with and without a terminal.
    for decider in (Says(), SAFE):
        assert all(one.skipped for one in run(configured(), decider=decider))
    run(configured(), only=["merge"])
    assert "'checkpoint': 3" in (config_file.parent / "merged" / "made.txt").read_text()
    # What the config says comes first.
    run(configured("merge.checkpoint=5"), until="merge", decider=Says())
    assert "'checkpoint': 5" in (config_file.parent / "merged" / "made.txt").read_text()
    (row,) = rows(configured())
    assert set(row["choices"]) == {"adapter", "3"}


def test_a_checkpoint_that_is_not_kept_is_no_choice(fakes, configured, monkeypatch):
    fakes.facts["train"] = {"eval_losses": [[3, 2.001], [5, 2.0]]}
    monkeypatch.setattr(asked, "checkpoints_of", lambda config, adapter: [Kept(5)])
    run(configured(), decider=Says())


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0.1, 9)), min_size=1, unique_by=lambda p: p[0])
)
def test_as_good_is_never_the_best_nor_clearly_worse(losses):
    best, lowest = min(losses, key=lambda point: point[1])
    for step, loss in equally_good(losses, best):
        assert step not in (0, best)
        assert loss <= lowest * (1 + NOISE)
    worse = [(step, loss) for step, loss in losses if loss > lowest * (1 + NOISE)]
    assert not set(worse) & set(equally_good(losses, best))


@pytest.mark.parametrize("text", ["", "[", "3", '["a"]', '[{"subject": 1}]', "[" * 3000])
def test_a_damaged_file_of_decisions_is_none(tmp_path, text):
    (tmp_path / "decisions.json").write_text(text)
    assert answered_before(tmp_path, "verdict", "d") is None
    question = Question("verdict", "d", "?", {"continue": "", "stop": ""}, "continue")
    keep(tmp_path, question, Answer("continue", "user"))
    assert answered_before(tmp_path, "verdict", "d") == "continue"
    keep(tmp_path, question, Answer("stop", "user"))
    assert answered_before(tmp_path, "verdict", "d") is None
    assert answered_before(tmp_path, "verdict", "e") is None
