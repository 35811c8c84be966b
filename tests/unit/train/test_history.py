import json

import pytest

from tunewright.errors import TunewrightError
from tunewright.train.history import (
    IDENTITY,
    METRICS,
    PROGRESS,
    SAMPLES,
    Reader,
    clock,
    read,
    training_of,
)
from tunewright.train.journal import line_of


def write(folder, name, *rows, tail=b""):
    (folder / name).write_bytes(b"".join(map(line_of, rows)) + tail)


def progress(step, seconds, steps=100):
    return {"step": step, "time": 1000.0 + seconds, "seconds": seconds, "steps": steps}


def test_an_empty_folder_is_an_empty_history(tmp_path):
    found = read(tmp_path)
    assert (found.rows, found.progress, found.events, found.samples) == ([], [], [], [])
    assert (found.step, found.steps, found.seconds_left, found.best) == (0, None, None, None)


def test_curves_events_and_samples_are_told_apart(tmp_path):
    write(
        tmp_path,
        METRICS,
        {"step": 0, "eval_loss": 3.0},
        {"step": 1, "loss": 2.5},
        {"step": 2, "loss": 2.25},
        {"step": 2, "eval_loss": 2.0},
    )
    event = {"time": 1.0, "event": "checkpoint", "text": "checkpoint of step 2"}
    write(tmp_path, PROGRESS, progress(1, 2.0), event, progress(2, 4.0))
    write(tmp_path, SAMPLES, {"step": 2, "prompt": "a", "answer": "b"})
    (tmp_path / IDENTITY).write_text(json.dumps({"seed": 1, "finished": True}))
    found = read(tmp_path)
    assert found.series("loss") == [(1, 2.5), (2, 2.25)]
    assert found.series("eval_loss") == [(0, 3.0), (2, 2.0)]
    assert found.best == (2, 2.0)
    assert found.events == [event]
    assert [row["answer"] for row in found.samples] == ["b"]
    assert (found.step, found.steps) == (2, 100)
    assert found.state(running=False) == "finished"
    assert found.torn == 0


def test_the_evaluation_before_training_is_not_the_best(tmp_path):
    write(tmp_path, METRICS, {"step": 0, "eval_loss": 1.0}, {"step": 5, "eval_loss": 2.0})
    assert read(tmp_path).best == (5, 2.0)


def test_a_line_that_is_being_written_is_counted_and_left_out(tmp_path):
    whole = line_of({"step": 2, "loss": 2.0})
    write(tmp_path, METRICS, {"step": 1, "loss": 3.0}, tail=b"no json\n" + whole[:-4])
    reader = Reader(tmp_path)
    found = reader.read()
    assert found.series("loss") == [(1, 3.0)]
    assert found.torn == 2
    with (tmp_path / METRICS).open("ab") as stream:
        stream.write(whole[-4:])
    found = reader.read()
    assert found.series("loss") == [(1, 3.0), (2, 2.0)]
    assert found.torn == 1


def test_a_file_that_was_cut_back_for_a_resume_is_read_anew(tmp_path):
    rows = [{"step": n, "loss": float(n)} for n in range(6)]
    write(tmp_path, METRICS, *rows)
    reader = Reader(tmp_path)
    assert len(reader.read().rows) == 6
    draft = tmp_path / "draft"
    draft.write_bytes(b"".join(map(line_of, rows[:3])) + line_of({"step": 3, "loss": 30.0}) * 4)
    draft.replace(tmp_path / METRICS)  # another file, longer than the old one
    assert reader.read().series("loss") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]
    (tmp_path / METRICS).unlink()
    assert reader.read().rows == []


def test_of_two_rows_of_a_step_the_later_counts(tmp_path):
    write(
        tmp_path,
        METRICS,
        {"step": 1, "loss": 9.0},
        {"step": 2, "loss": 2.0},
        {"step": 1, "loss": 1.0},
    )
    assert read(tmp_path).series("loss") == [(1, 1.0), (2, 2.0)]


def test_time_left_is_that_of_the_process_that_trains(tmp_path):
    """The first process did a step a second; the second one does one in ten."""
    first = [progress(step, float(step)) for step in range(21)]
    write(tmp_path, PROGRESS, *first, progress(21, 10.0), progress(23, 30.0))
    assert read(tmp_path).seconds_left == pytest.approx(770.0)
    write(tmp_path, PROGRESS, *first)
    assert read(tmp_path).seconds_left == pytest.approx(80.0)
    write(tmp_path, PROGRESS, progress(21, 10.0))
    assert read(tmp_path).seconds_left is None


@pytest.mark.parametrize(
    ("events", "identity", "running", "state"),
    [
        (["finished"], {"finished": True}, False, "finished"),
        ([], {}, True, "running"),
        (["diverged"], {}, True, "running"),
        (["checkpoint", "diverged"], {}, False, "diverged"),
        (["diverged", "resumed"], {}, False, "interrupted"),
        (["interrupted"], {"seed": 1}, False, "interrupted"),
        ([], {}, False, "interrupted"),
    ],
)
def test_state(tmp_path, events, identity, running, state):
    write(tmp_path, PROGRESS, *({"time": 1.0, "event": event, "text": ""} for event in events))
    (tmp_path / IDENTITY).write_text(json.dumps(identity))
    assert read(tmp_path).state(running=running) == state


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_an_identity_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / IDENTITY).write_bytes(content)
    assert read(tmp_path).identity == {}


def test_rows_without_what_they_need_are_left_out(tmp_path):
    write(tmp_path, METRICS, {"loss": 1.0}, {"step": "x", "loss": 1.0}, {"step": 1, "loss": "high"})
    write(tmp_path, PROGRESS, {"step": 1}, {"event": "x"}, {"time": "then", "event": "x"})
    write(tmp_path, SAMPLES, {"answer": "only"}, {"step": 1, "prompt": "p"})
    found = read(tmp_path)
    assert found.series("loss") == []
    assert found.progress == found.samples == found.events == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (200, "3:20"), (3661, "1:01:01")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_run_without_training_says_what_to_type(tmp_path):
    with pytest.raises(TunewrightError) as caught:
        training_of(tmp_path)
    [problem] = caught.value.problems
    assert problem.code == "E_ARTIFACT_MISSING"
    assert problem.fix == "Train it: tunewright train CONFIG"
