"""TensorBoard, Trackio and W&B for real: a small training reports to each, and what lies on disk is read back."""

import io
import json
import os
import re
import sqlite3
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback, ProgressCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tunewright.config.schema import TrainSection
from tunewright.errors import TunewrightError
from tunewright.events import SILENT
from tunewright.models._folders import resolve_model
from tunewright.models._load import load_model
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.chat import messages_of
from tunewright.train import _monitor
from tunewright.train._monitor import Metrics, Samples, held_out
from tunewright.train._rows import token_rows
from tunewright.train._trackers import trackers, tracking
from tunewright.train.history import METRICS, PROGRESS, SAMPLES, read

KEY = "0123456789abcdef0123456789abcdef01234567"
ROWS = [{"prompt": f"Where is {n}?", "completion": f"{n} is here."} for n in range(12)]


@dataclass
class Heard:
    """What a listener was told, and what was printed."""

    details: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    stdout: str = ""

    def as_listener(self):
        heard = self

        class Listener:
            def started(self, *_): ...
            def advanced(self, done, detail):
                heard.details.append(detail)

            def said(self, text):
                heard.said.append(text)

        return Listener()


def training(folder: Path, *report_to: str) -> Heard:
    heard = Heard()
    listener = heard.as_listener()
    base = resolve_model("tunewright/tiny")
    tokenizer = load_tokenizer(base)
    options = TrainSection(report_to=report_to)
    tokens = Dataset.from_list(token_rows(ROWS, tokenizer, options))
    metrics = Metrics(folder, listener, total_steps=3, device="cpu")
    metrics.resume_at(0)
    prompts = held_out([messages_of(row) for row in ROWS]) if report_to else []
    printed = io.StringIO()
    with redirect_stdout(printed), trackers(options, folder, "small", listener) as reporters:
        set_seed(1)
        arguments = SFTConfig(
            output_dir=str(folder / "checkpoints"),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            max_steps=3,
            logging_steps=1,
            per_device_train_batch_size=2,
            eval_strategy="steps",
            eval_steps=2,
            eval_on_start=True,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            seed=1,
            **tracking(options, "small"),
        )
        # Dropout: a random number that is drawn beside would change every loss after it.
        lora = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            model=load_model(base),
            args=arguments,
            train_dataset=tokens,
            eval_dataset=tokens,
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[
                metrics,
                *([Samples(metrics, prompts, tokenizer)] if prompts else []),
                *reporters,
            ],
        )
        for unwanted in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(unwanted)
        trainer.train()
    heard.stdout = printed.getvalue()
    return heard


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    training(folder)
    return folder


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Folder and output of a training that reports to all three, W&B without a key."""
    for name in ("tensorboard", "trackio", "wandb"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB", "TRACKIO"))]:
            patch.delenv(name)
        patch.setenv("NETRC", str(folder / "none"))
        patch.setenv("TOKEN_OF_MINE", KEY)
        patch.setattr(_monitor, "SAMPLE_SHARE", 1.0)  # answers at each evaluation
        # Read when Trackio is imported, which no other test does.
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        return folder, training(folder, "tensorboard", "trackio", "wandb")


def test_trackers_and_samples_change_no_metric(plain, reported):
    """The same bytes: no time in them, and no random number drawn by answers or trackers."""
    folder, _ = reported
    assert (folder / METRICS).read_bytes() == (plain / METRICS).read_bytes()
    rows = read(folder).rows
    kinds = [(row["step"], "eval_loss" in row) for row in rows]
    assert kinds == [(0, True), (1, False), (2, False), (2, True), (3, False), (3, True)]
    names = {name for row in rows for name in row}
    assert not [name for name in names if "runtime" in name or "per_second" in name]
    assert {"epoch", "loss", "grad_norm", "learning_rate", "num_tokens"} <= names


def test_progress_has_speed_and_memory_and_the_listener_hears_them(reported):
    folder, heard = reported
    last = read(folder).progress[-1]
    assert last["tokens_per_second"] > 0
    assert last["memory_bytes"] > 1e7
    assert (last["step"], last["steps"], last["device"]) == (3, 3, "cpu")
    for part in ("loss ", "eval ", "lr ", " tok/s", " GB", "0:00 left"):
        assert part in heard.details[-1]


def test_samples_are_answers_to_held_out_prompts(plain, reported):
    folder, _ = reported
    found = read(folder).samples
    assert [(row["step"], row["prompt"]) for row in found] == [
        (step, prompt) for step in (0, 2, 3) for prompt in ("Where is 0?", "Where is 6?")
    ]
    assert all(row["answer"].strip() for row in found)
    assert not (plain / SAMPLES).exists()


def test_tensorboard_has_the_figures_of_the_metrics_log(reported):
    folder, heard = reported
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    history = read(folder)
    for name, tag in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert found == [(step, pytest.approx(value)) for step, value in history.series(name)]
    assert f"TensorBoard: tensorboard --logdir {folder / 'tensorboard'}" in heard.said


def test_trackio_has_the_figures_of_the_metrics_log(reported):
    folder, heard = reported
    [file] = (folder / "trackio").glob("tunewright*.db")
    connection = sqlite3.connect(file)
    try:
        rows = connection.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    finally:
        connection.close()
    assert {name for name, _ in rows} == {"small"}
    logged = [json.loads(metrics) for _, metrics in rows]
    found = [(m["train/global_step"], m["train/loss"]) for m in logged if "train/loss" in m]
    assert found == read(folder).series("loss")
    assert any("trackio show --project tunewright" in text for text in heard.said)


def test_wandb_is_offline_without_a_key_and_says_so(reported):
    folder, heard = reported
    [run] = (folder / "wandb").glob("offline-run-*")
    [file] = run.glob("run-*.wandb")
    content = file.read_bytes()
    assert b"train/loss" in content
    assert b"small" in content
    assert (folder / "wandb-run-id").read_text() in file.name
    assert any(text.startswith("W&B is offline") for text in heard.said)
    assert heard.stdout == ""


def test_no_secret_of_the_environment_is_in_any_file(reported):
    folder, _ = reported
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


def test_log_that_cannot_be_written_warns_once_and_changes_nothing(tmp_path, plain):
    """D6: the disk of the logs is full."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    for name in (METRICS, PROGRESS):
        (tmp_path / name).symlink_to(full)
    heard = training(tmp_path)
    assert len(heard.said) == 1
    assert "No space left on device" in heard.said[0]
    losses = re.findall(r"(?<= left, )loss [\d.]+", "\n".join(heard.details))
    expected = [f"loss {loss:.2f}" for _, loss in read(plain).series("loss")]
    assert list(dict.fromkeys(losses)) == list(dict.fromkeys(expected))


def test_curves_of_a_resumed_training_have_each_step_once(tmp_path):
    """TensorBoard: what was reported after the checkpoint counts no more."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = TrainSection(report_to=("tensorboard",))
    for begin, end, value in ((1, 6, 1.0), (4, 8, 2.0)):
        with trackers(options, tmp_path, "a", SILENT, step=begin - 1) as [callback]:
            for step in range(begin, end + 1):
                state = SimpleNamespace(global_step=step, is_world_process_zero=True)
                callback.on_log(None, state, None, logs={"loss": value})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(step, 1.0 if step < 4 else 2.0) for step in range(1, 9)]


def test_trackers_are_closed_when_training_fails(tmp_path):
    pytest.importorskip("tensorboard")
    options = TrainSection(report_to=("tensorboard",))
    with pytest.raises(ZeroDivisionError), trackers(options, tmp_path, "a", SILENT) as [callback]:
        raise ZeroDivisionError
    assert callback.tb_writer.file_writer is None


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["tunewright.train.trackers"], "find_spec", lambda _: None)
    with (
        pytest.raises(TunewrightError) as caught,
        trackers(TrainSection(report_to=("trackio",)), tmp_path, "a", SILENT),
    ):
        pass
    assert caught.value.problems[0].fix == "pip install 'tunewright[trackio]'"


def test_only_the_first_process_reports(tmp_path):
    options = TrainSection(report_to=("tensorboard", "wandb"))
    with trackers(options, tmp_path, "a", SILENT, writes=False) as callbacks:
        assert callbacks == []
    assert list(tmp_path.iterdir()) == []


def test_answers_take_a_twentieth_of_the_time(tmp_path, monkeypatch):
    """Each takes ten seconds: after the first, there is none before two hundred have gone by."""
    now = [0.0]
    monkeypatch.setattr(_monitor.time, "monotonic", lambda: now[0])
    tokenizer = load_tokenizer(resolve_model("tunewright/tiny"))
    metrics = Metrics(tmp_path, SILENT, total_steps=99, device="cpu", writes=False)
    samples = Samples(metrics, held_out([messages_of(ROWS[0])]), tokenizer)

    class Model:
        training, device = False, "cpu"
        config = SimpleNamespace(max_position_embeddings=2048)

        def eval(self): ...
        def train(self, mode):
            assert mode is False

        def generate(self, input_ids, **_):
            now[0] += 10
            return input_ids

    given = []
    for step in range(60):
        state = SimpleNamespace(global_step=step, max_steps=1000)
        samples.on_evaluate(SimpleNamespace(world_size=1), state, None, model=Model())
        if metrics.has_samples(step):
            given.append(now[0])
        now[0] += 10
    assert given == [10, 210, 410, 610]
    assert not metrics.has_samples(60)
    samples.on_evaluate(SimpleNamespace(world_size=2), SimpleNamespace(global_step=60), None)


def test_answers_that_do_not_fit_in_memory_stop_and_training_goes_on(tmp_path):
    tokenizer = load_tokenizer(resolve_model("tunewright/tiny"))
    metrics = Metrics(tmp_path, SILENT, total_steps=9, device="cpu")
    samples = Samples(metrics, held_out([messages_of(ROWS[0])]), tokenizer)
    modes = []

    class Full:
        training, device = True, "cpu"
        config = SimpleNamespace(max_position_embeddings=2048)

        def eval(self): ...
        def train(self, mode):
            modes.append(mode)

        def generate(self, **_):
            raise torch.OutOfMemoryError("CUDA out of memory")

    for step in (1, 2):
        state = SimpleNamespace(global_step=step, max_steps=1000)
        samples.on_evaluate(SimpleNamespace(world_size=1), state, None, model=Full())
    assert modes == [True]
    assert [event["event"] for event in read(tmp_path).events] == ["samples"]
