"""What Metrics writes, over a training that is killed and taken up again."""

import json
from types import SimpleNamespace

import pytest
import torch

from tunewright.events import SILENT
from tunewright.models._folders import resolve_model
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.chat import Message
from tunewright.train._monitor import SAMPLE_TOKENS, Metrics, Samples, held_out, metrics_row
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


class Echo:
    """A model that answers with the first token of the prompt, or fails."""

    training = True
    device = "cpu"

    def __init__(self, context: int = 256, error: Exception | None = None) -> None:
        self.config = SimpleNamespace(max_position_embeddings=context)
        self.error = error
        self.asked: list[int] = []

    def eval(self): ...

    def train(self, mode): ...

    def generate(self, input_ids, **options):
        if self.error:
            raise self.error
        self.asked.append(input_ids.shape[1])
        return torch.cat([input_ids, input_ids[:, :1]], dim=1)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve_model("tunewright/tiny"))


def evaluated(callback, model):
    state = SimpleNamespace(global_step=4, max_steps=9)
    callback.on_evaluate(SimpleNamespace(world_size=1), state, None, model=model)


def told(folder):
    return [event["text"] for event in read(folder).events if event["event"] == "samples"]


PROMPTS = [chat("short")[:1], chat("many words " * 50)[:1]]


def test_prompts_longer_than_rows_may_be_are_not_asked(tmp_path, tokenizer):
    model = Echo()
    evaluated(Samples(metrics(tmp_path), PROMPTS, tokenizer, max_length=64), model)
    assert len(model.asked) == 1
    assert [row["prompt"] for row in read(tmp_path).samples] == ["short"]
    assert told(tmp_path) == ["1 of 2 prompts are not asked: they have more than 64 tokens"]


def test_a_prompt_and_its_answer_fit_into_the_context(tmp_path, tokenizer):
    whole = Echo()
    evaluated(Samples(metrics(tmp_path), PROMPTS, tokenizer), whole)
    short, long = whole.asked
    fits, lacks_one = (Echo(context=long + SAMPLE_TOKENS - less) for less in (0, 1))
    for model in (fits, lacks_one):
        evaluated(Samples(metrics(tmp_path), PROMPTS, tokenizer, max_length=10_000), model)
    assert (fits.asked, lacks_one.asked) == ([short, long], [short])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_answers_that_do_not_fit_in_memory_are_done_without(tmp_path, tokenizer, error):
    callback, later = Samples(metrics(tmp_path), PROMPTS, tokenizer), Echo()
    evaluated(callback, Echo(error=error))
    evaluated(callback, later)
    assert later.asked == []
    assert told(tmp_path) == ["no more sample answers: they do not fit in memory"]


def test_another_fault_of_the_model_is_not_taken_for_one_of_memory(tmp_path, tokenizer):
    callback = Samples(metrics(tmp_path), PROMPTS, tokenizer)
    with pytest.raises(RuntimeError, match="size mismatch"):
        evaluated(callback, Echo(error=RuntimeError("size mismatch")))
