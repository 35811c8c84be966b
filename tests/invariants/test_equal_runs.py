"""Options that may change speed or memory but not the numbers: fp32, dropout 0, within 1e-6.

Each comparison has a planted error that must break it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from faults.training import make, make_base, options

from tunewright import accel, train
from tunewright.accel import _step, order
from tunewright.artifacts import load_artifact
from tunewright.cli import main
from tunewright.config.load import config_of_source
from tunewright.train import _course, _fast, _trainer

SAME = 1e-6
"""Relative; sums of float32 in another order differ by about 1e-7."""
PLAIN = (
    "train.max_steps=10",
    "train.eval_steps=5",
    "train.save_steps=10",
    "train.lora.lora_dropout=0",
    "train.gradient_checkpointing=false",
    "train.train_sampling_strategy=random",
    "train.per_device_train_batch_size=8",
    "train.gradient_accumulation_steps=1",
    *(f"accel.{name}=false" for name in accel.TECHNIQUES),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("equal")
    make(folder)
    for kind in ("llama", "mistral"):
        make_base(folder / kind, kind)
    return folder


@pytest.fixture(scope="module")
def losses(root, tmp_path_factory):
    """Return a function that trains with some options and gives the losses and gradient norms."""

    def run(*changes: str) -> list[float]:
        folder = tmp_path_factory.mktemp("run")
        settings = [*options(root, folder / "run"), *PLAIN, *changes]
        config = config_of_source(str(root / "rows.jsonl"), settings)
        return numbers(train(config, load_artifact(root / "run" / "dataset", "dataset")))

    return run


def numbers(adapter) -> list[float]:
    rows = [json.loads(x) for x in (adapter.path / "metrics.jsonl").read_text().splitlines()]
    names = ("loss", "grad_norm", "entropy", "eval_loss", "eval_entropy")
    found = [row[n] for row in rows for n in names if n in row]
    assert len(found) == 36
    return found


@pytest.fixture(scope="module")
def plain(losses):
    return {kind: losses(*base_of(kind)) for kind in ("qwen3", "llama", "mistral")}


@pytest.fixture(scope="module", autouse=True)
def base_folder(root):
    base_of.root = root


def base_of(kind: str) -> list[str]:
    return [] if kind == "qwen3" else [f"model.model_name_or_path={base_of.root / kind}"]


def same(found: list[float], wanted: list[float]) -> bool:
    return found == pytest.approx(wanted, rel=SAME)


FOUR_BY_TWO = ("train.per_device_train_batch_size=4", "train.gradient_accumulation_steps=2")
ONE_BY_ONE = ("train.per_device_train_batch_size=1", "train.gradient_accumulation_steps=8")


@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral"])
@pytest.mark.parametrize(
    "changes", [ONE_BY_ONE, ("train.gradient_checkpointing=true",)], ids=["8x1 = 1x8", "recomputed"]
)
def test_the_same_numbers(losses, plain, kind, changes):
    assert same(losses(*base_of(kind), *changes), plain[kind])


def used(*names: str) -> tuple[str, ...]:
    return tuple(f"accel.{name}=auto" for name in names)


ALL = used(*accel.TECHNIQUES)
ACCELERATED = {
    "qwen3": ALL,
    "llama": ALL,
    "mistral": ALL,
    "qwen3, 1x8, recomputed": (*ALL, *ONE_BY_ONE, "train.gradient_checkpointing=true"),
    "qwen3, recomputed in part": (*ALL, "train.gradient_checkpointing=selective"),
    "qwen3, bucketed": used("label_only_head", "length_bucketing"),
}


@pytest.mark.parametrize("name", ACCELERATED)
def test_accelerated_is_plain(losses, plain, name):
    kind = name.partition(",")[0]
    assert same(losses(*base_of(kind), *ACCELERATED[name]), plain[kind])


def test_a_step_that_weighs_its_rows_alike_is_noticed(losses, plain, monkeypatch):
    train = _fast.Fast.train
    monkeypatch.setattr(_fast.Fast, "train", lambda *a, **k: train(*a[:2], a[2] + 1, **k))
    assert not same(losses(*ALL), plain["qwen3"])


def test_acceleration_that_changes_numbers_is_not_used(losses, plain, monkeypatch):
    """The self-check finds it, and the plain path makes the numbers."""
    head_loss = _step.head_loss
    monkeypatch.setattr(_step, "head_loss", lambda h, x, t: head_loss(h, x[1:], t[1:]))
    assert same(losses(*ALL), plain["qwen3"])
    assert not same(losses(*ALL, "accel.self_check=false"), plain["qwen3"])


@pytest.mark.parametrize("redo", [True, False])
def test_out_of_memory_in_an_accelerated_step(losses, plain, monkeypatch, redo):
    """Halved until it fits; a gradient that is half written must not stay."""
    train, halved = _fast.Fast.train, []

    def too_large(self, inputs, labels, *, most_rows, saving):
        if most_rows > 2:
            halved.append(most_rows)
            train(self, inputs, labels * 3, most_rows=most_rows, saving=saving)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return train(self, inputs, labels, most_rows=most_rows, saving=saving)

    monkeypatch.setattr(_fast.Fast, "train", too_large)
    if not redo:
        monkeypatch.setattr(_trainer.Trainer, "_redo", lambda *_: None)
    assert same(losses(*ALL), plain["qwen3"]) == redo
    assert halved == [8, 4]


def test_bucketed_is_plain(losses, plain, monkeypatch):
    """Rows of a step in the order of their length, or as they come: the same step."""
    bucketed = losses(*ONE_BY_ONE[:1], "train.gradient_accumulation_steps=8")
    monkeypatch.setattr(order, "by_length", lambda rows, lengths: list(rows))
    unsorted = losses("train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=4")
    assert same(unsorted, plain["qwen3"])
    assert same(bucketed, plain["qwen3"])


def test_a_row_too_few_is_noticed(losses, plain, monkeypatch):
    """The planted error of the comparisons above: batches weigh alike, whatever their tokens."""
    forward_backward = _trainer.Trainer._forward_backward

    def by_rows(self, model, inputs, items, rows):
        labels = sum((b["labels"][:, 1:] != -100).sum() for b in self._step_batches)
        own = (inputs["labels"][:, 1:] != -100).sum()
        return forward_backward(self, model, inputs, own * labels / labels * 8, rows)

    monkeypatch.setattr(_trainer.Trainer, "_forward_backward", by_rows)
    assert not same(losses(*ONE_BY_ONE), plain["qwen3"])


def test_another_row_is_noticed(losses, plain, monkeypatch):
    def swapped(*args, **kwargs):
        rows = epoch_order(*args, **kwargs)
        return [rows[-1], *rows[1:-1], rows[0]]

    epoch_order = order.epoch_order
    monkeypatch.setattr(_course, "epoch_order", swapped)
    assert not same(losses(), plain["qwen3"])


class Memory:
    """Memory that runs out: at given calls of the model, or for more rows than fit."""

    def __init__(self, trainer: type, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: set[int] = set()
        self.batch = 0
        self.evaluations = False
        self.halved = 0
        backward, evaluated = trainer.compute_loss, trainer._halved

        def compute_loss(this, model, inputs, *args, **kwargs):
            training = this.model.training
            step, rows = this.state.global_step + 1, len(inputs["input_ids"])
            due = step in self.steps and this._micro > self.batch
            due = due if training else self.evaluations and step > 1
            loss = backward(this, model, inputs, *args, **kwargs)
            if due and rows > (2 if training else 1):
                if training:
                    # Half of the gradient is written when memory runs out in the backward pass.
                    (loss * 3).backward()
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return loss

        def halved(this, *args):
            self.halved += 1
            return evaluated(this, *args)

        monkeypatch.setattr(trainer, "compute_loss", compute_loss)
        monkeypatch.setattr(trainer, "_halved", halved)


@pytest.fixture
def memory(monkeypatch):
    return Memory(_trainer.Trainer, monkeypatch)


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize("shape", [(8, 1), (4, 2)])
def test_out_of_memory_in_a_step(losses, plain, memory, step, shape):
    """Halved from the same step on, whether it is the first batch of the step or, as in the second shape, a later one."""
    memory.steps = {step, step + 1}
    rows, passes = shape
    memory.batch = passes - 1
    found = losses(
        f"train.per_device_train_batch_size={rows}", f"train.gradient_accumulation_steps={passes}"
    )
    assert memory.halved == (2 if rows == 8 else 1)
    assert same(found, plain["qwen3"])


def test_out_of_memory_in_an_evaluation(losses, plain, memory):
    memory.evaluations = True
    found = losses()
    assert memory.halved >= 2
    assert same(found, plain["qwen3"])


@pytest.mark.parametrize(
    "redo",
    [lambda *_: None, lambda _, model, *__: model.zero_grad()],
    ids=["nothing", "too little"],
)
def test_a_gradient_that_is_not_put_back_is_noticed(losses, plain, memory, monkeypatch, redo):
    monkeypatch.setattr(_trainer.Trainer, "_redo", redo)
    memory.steps, memory.batch = {1}, 1
    assert not same(losses(*FOUR_BY_TWO), plain["qwen3"])


def test_out_of_memory_while_batches_are_done_again(losses, plain, memory, monkeypatch):
    """What was done before with more rows does not fit any more: halved once more."""
    redo, times = _trainer.Trainer._redo, []

    def too_large(self, *args):
        times.append(self.course.rows_at_once)
        if times == [2]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        redo(self, *args)

    monkeypatch.setattr(_trainer.Trainer, "_redo", too_large)
    memory.steps, memory.batch = {1}, 1
    assert same(losses(*FOUR_BY_TWO), plain["qwen3"])
    assert times == [2, 1]


PAIR = """
import json, os, signal, sys
from tunewright.cli import main
from tunewright.train._trainer import Trainer
clip = Trainer._clip_grad_norm
def clip_and_stop(self, model):
    if self.state.global_step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return clip(self, model)
whole, stopped = json.loads(sys.argv[1])
if main(whole):
    sys.exit("the first has failed")
Trainer._clip_grad_norm = clip_and_stop
sys.exit(main(stopped))
"""
"""Two trainings, one after the other; in the second, one process of two is asked to stop."""
FOUR = "train.per_device_train_batch_size=4"
# Ten steps of 24 rows: as many as `max_steps` gives the others.
EPOCHS = ("train.max_steps=null", "train.num_train_epochs=3.3", "train.save_steps=5")


def line(root: Path, run: Path, *changes: str) -> list[str]:
    flags = [w for o in (*options(root, run), *PLAIN, *changes) for w in ("--set", o)]
    return ["train", str(root / "run.yaml"), *flags]


@pytest.fixture(scope="module")
def pair(root, tmp_path_factory) -> tuple[Path, Path]:
    """Runs that two processes have trained, as `torchrun` starts them: a whole one, and one that was stopped."""
    whole, stopped = (tmp_path_factory.mktemp("pair") / name for name in ("whole", "stopped"))
    for run in (whole, stopped):
        shutil.copytree(root / "run" / "dataset", run / "dataset")
    lines = [line(root, whole, FOUR), line(root, stopped, FOUR, *EPOCHS)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PAIR, json.dumps(lines)],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=360) for process in started]
    assert b"E_INTERNAL" not in said[0][1] + said[1][1], said
    assert said[1][0] == b""
    assert [process.returncode for process in started] == [143, 143], said
    return whole, stopped


def test_two_processes_are_one(plain, pair):
    assert same(numbers(load_artifact(pair[0] / "adapter", "adapter")), plain["qwen3"])


def files_of(run):
    """Return the content of every file of a run but its lock and its log, which tells of every command."""
    passing = ("lock.json", "run.log")
    return {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in passing}


def test_two_processes_stop_together_and_one_goes_on(root, plain, pair, capsys):
    """A signal to one process is enough; another number of processes has to be asked for."""
    run = pair[1]
    (saved,) = (run / "training" / "checkpoints").iterdir()
    assert saved.name == "checkpoint-4"
    command = line(root, run, FOUR, *EPOCHS)
    before = files_of(run)
    assert main(command) == 7
    said = capsys.readouterr().err
    assert "E_RESUME_ENV: 'world_size' has changed: it was 2, now 1." in said
    assert "E_RESUME_MISMATCH" not in said
    assert files_of(run) == before
    assert main([*command, "--allow-inexact"]) == 0
    adapter = load_artifact(run / "adapter", "adapter")
    assert same(numbers(adapter), plain["qwen3"])
    summary = json.loads((adapter.path / "training_summary.json").read_text())
    assert summary["bit_exact"] is False
    assert "world_size" in adapter.facts["inexact"]
