"""What Metrics writes, over a training that is killed and taken up again."""

import json
from types import SimpleNamespace

import pytest

from tunewright.events import SILENT
from tunewright.models.chat import Message
from tunewright.train._monitor import Metrics, held_out, metrics_row
from tunewright.train.history import METRICS, PROGRESS, SAMPLES, read


def metrics(folder, **options) -> Metrics:
    return Metrics(folder, SILENT, total_steps=10, device="cpu", **options)


def log(callback, step, **logs):
    state = SimpleNamespace(global_step=step)
    if "loss" in logs:
        callback.on_step_begin(None, state, None)
    callback.on_log(None, state, None, logs={"epoch": step / 10, **logs})


def train(callback, first, last):
    """Log as Trainer does: an evaluation before training and at every other step."""
    if first == 1:
        log(callback, 0, eval_loss=3.0, eval_runtime=0.1)
    for step in range(first, last + 1):
        log(callback, step, loss=3 - step / 10, num_tokens=100.0 * step)
        if step % 2 == 0:
            log(callback, step, eval_loss=3 - step / 20, eval_runtime=0.1 * step)
            callback.sample(step, "prompt", f"answer {step}")


@pytest.fixture
def unbroken(tmp_path):
    folder = tmp_path / "unbroken"
    folder.mkdir()
    callback = metrics(folder)
    callback.resume_at(0)
    train(callback, 1, 10)
    log(callback, 10, train_runtime=3.0, train_loss=2.0, total_flos=1.0)
    return folder


@pytest.mark.parametrize(
    ("checkpoint", "killed"), [(step, last) for last in range(11) for step in range(last + 1)]
)
def test_the_log_of_a_resumed_training_is_that_of_an_unbroken_one(
    tmp_path, unbroken, checkpoint, killed
):
    folder = tmp_path / "killed"
    folder.mkdir()
    callback = metrics(folder)
    callback.resume_at(0)
    train(callback, 1, killed)
    with (folder / METRICS).open("ab") as stream:
        stream.write(b'{"step": 7, "epo')
    again = metrics(folder)
    again.resume_at(checkpoint)
    # An evaluation of the checkpoint's own step is the same once more.
    if checkpoint % 2 == 0 and checkpoint:
        log(again, checkpoint, eval_loss=3 - checkpoint / 20, eval_runtime=9.0)
    train(again, checkpoint + 1, 10)
    for name in (METRICS, SAMPLES):
        assert (folder / name).read_bytes() == (unbroken / name).read_bytes()
    assert again.rows == read(unbroken).rows
    assert again.text == (unbroken / METRICS).read_text()
    assert (folder / f"{METRICS}.torn").read_bytes() == b'{"step": 7, "epo\n'


def test_a_resume_is_told_and_a_first_start_is_not(tmp_path):
    callback = metrics(tmp_path)
    callback.resume_at(0)
    assert read(tmp_path).events == []
    train(callback, 1, 4)
    metrics(tmp_path).resume_at(2)
    [event] = read(tmp_path).events
    assert (event["event"], event["text"]) == ("resumed", "training goes on after step 2")


def test_times_are_in_progress_only(unbroken):
    logged = (unbroken / METRICS).read_text()
    assert "time" not in logged
    assert "total_flos" not in logged
    row = json.loads((unbroken / PROGRESS).read_text().splitlines()[-1])
    assert row.keys() >= {"time", "seconds", "tokens_per_second", "memory_bytes", "steps"}


def test_another_process_than_the_first_keeps_rows_and_writes_none(tmp_path):
    callback = metrics(tmp_path, writes=False)
    callback.resume_at(0)
    train(callback, 1, 4)
    assert len(callback.rows) == 7
    assert list(tmp_path.iterdir()) == []


def test_what_a_full_disk_refused_is_in_the_text(tmp_path):
    callback = metrics(tmp_path / "gone")
    train(callback, 1, 4)
    assert len(callback.text.splitlines()) == 7


def test_metrics_row_keeps_the_order_and_drops_times():
    logs = {
        "loss": 2.0,
        "eval_samples_per_second": 1.0,
        "eval_steps_per_second": 1.0,
        "eval_runtime": 1.0,
        "epoch": 0.5,
    }
    assert list(metrics_row(3, logs).items()) == [("step", 3), ("epoch", 0.5), ("loss", 2.0)]


def chat(question: str) -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content="answer")]


def test_held_out_prompts_are_different_and_without_the_answer():
    rows = [chat("a"), chat("a"), chat("b"), chat("c"), chat("d")]
    assert held_out(rows) == [chat("a")[:1], chat("c")[:1]]
    assert held_out(rows[:2]) == [chat("a")[:1]]
    assert held_out([]) == []
