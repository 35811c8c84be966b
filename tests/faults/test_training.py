"""A training that is killed, cut off, damaged or refused: what it is afterwards.

The long forms, every point and five hundred random kills, are in test_training_long.py.
"""

import errno
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from faults.harness import Case, Fault, Forks, Result
from faults.training import STEPS, killed_at, make, result, train_in


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base, rows and dataset of the runs here."""
    folder = tmp_path_factory.mktemp("training")
    make(folder)
    return folder


@pytest.fixture(scope="session")
def whole(root: Path, forks: Forks) -> dict[str, bytes]:
    """What a training gives that nothing has disturbed."""
    run = root / "whole"
    done = forks.run(Case(train_in, (root, run)))
    assert done.code == 0, done.stderr
    rows = [
        json.loads(line) for line in (run / "training" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if "eval_loss" in row] == list(range(0, STEPS + 1, 10))
    return result(run)


@pytest.fixture
def run(root: Path, tmp_path: Path):
    """A run folder that is removed: there are many of them."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path, ignore_errors=True)


def require_finished(forks: Forks, root: Path, run: Path, whole: dict[str, bytes]) -> Result:
    done = forks.run(Case(train_in, (root, run)))
    assert done.code == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert result(run) == whole
    return done


def interrupted(forks: Forks, root: Path, run: Path, step: int = 32) -> None:
    """Train until a step, and die there; with step 32 there are checkpoints of 25 and 30.

    The first that asks for a step trains, the others have copies: two trainings are the same.
    """
    first = root / f"killed-{step}"
    if not first.exists():
        killed = forks.run(Case(killed_at, (root, first, step)))
        assert killed.was_killed, killed.stderr
    shutil.copytree(first, run)


def checkpoints(run: Path) -> list[Path]:
    found = (run / "training" / "checkpoints").glob("checkpoint-*")
    named = [path for path in found if not path.name.endswith(".torn")]
    return sorted(named, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def test_the_same_training_twice_is_the_same(root, whole, forks, run):
    require_finished(forks, root, run, whole)


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.faults)])
def test_killed_at_every_step(root, whole, forks, run, every):
    """K1. One training is killed at a step, goes on, is killed at a later one, and so on."""
    for step in range(1, STEPS + 1, every):
        killed = forks.run(Case(killed_at, (root, run, step)))
        assert killed.was_killed, killed.stderr
    require_finished(forks, root, run, whole)


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.faults)])
def test_killed_at_every_point_of_a_save(root, whole, forks, run, every):
    """K2, K7. Each process gets a little further in its own first saves; nothing piles up."""
    folder = run / "training" / "checkpoints"
    places = set()
    for point in range(0, 120, every):
        done = forks.run(Case(train_in, (root, run), under=folder, fault=Fault(point)))
        if done.code == 0:
            break
        assert done.was_killed, done.stderr
        places.add((done.calls[-1].name, Path(done.calls[-1].path).name.split("-")[0]))
        assert len(checkpoints(run)) <= 4
        assert len(list(folder.glob("*"))) <= 6
    else:
        raise AssertionError("the training never came to its end")
    assert {name for name, _ in places} >= {"open", "fsync", "rename"}
    assert every > 1 or {("fsync", "MANIFEST.json"), ("rename", ".tmp")} <= places
    require_finished(forks, root, run, whole)


def test_killed_at_random_times(root, whole, forks, run):
    """K1. Ten kills at any time, the process group with it."""
    chosen = random.Random(7)
    for _ in range(10):
        forks.run(Case(train_in, (root, run), kill_after_s=chosen.uniform(0.2, 2.5)))
    require_finished(forks, root, run, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_and_stops(root, whole, forks, run, number, code):
    """K6. One signal: the step under way is finished and saved, within five seconds here."""
    child = forks.start(Case(train_in, (root, run)))
    wait_for_step(run, 3)
    asked = time.monotonic()
    os.kill(child.pid, number)
    stopped = child.wait()
    assert stopped.code == code, stopped.stderr
    assert time.monotonic() - asked < 5
    assert "Traceback" not in stopped.stderr
    assert checkpoints(run)
    require_finished(forks, root, run, whole)


def test_asked_twice_it_stops_at_once(root, whole, forks, run):
    """K6."""
    child = forks.start(Case(train_in, (root, run)))
    wait_for_step(run, 3)
    os.kill(child.pid, signal.SIGTERM)
    os.kill(child.pid, signal.SIGINT)
    assert child.wait().code in (130, 143)
    require_finished(forks, root, run, whole)


def wait_for_step(run: Path, step: int) -> None:
    metrics = run / "training" / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} never came")


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.faults)])
def test_stopped_for_a_while_and_a_clock_set_back(root, whole, forks, run, seconds):
    """K11. Which checkpoint is the newest is told by its step, not by a time."""
    child = forks.start(Case(train_in, (root, run)))
    wait_for_step(run, 12)
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(child.pid, signal.SIGCONT)
    wait_for_step(run, 22)
    child.signal(signal.SIGKILL)
    child.wait()
    yesterday = time.time() - 86400
    for file in checkpoints(run)[-1].rglob("*"):
        os.utime(file, (yesterday, yesterday))
    os.utime(checkpoints(run)[-1], (yesterday, yesterday))
    done = require_finished(forks, root, run, whole)
    assert "Going on after step 20" in done.stderr


def test_a_clock_that_steps_back_a_day_changes_nothing(root, whole, forks, run):
    """K11. It steps while the training runs, and the next process has the earlier time from the start."""
    killed = forks.run(Case(with_a_clock_set_back, (root, run, 12, 32)))
    assert killed.was_killed, killed.stderr
    times = [folder.stat().st_mtime for folder in checkpoints(run)]
    assert max(times) < time.time() - 80_000, "the clock of this test did not reach the files"
    assert checkpoints(run)[-1].name == "checkpoint-30"
    done = require_finished(forks, root, run, whole)
    assert "Going on after step 30" in done.stderr


def with_a_clock_set_back(root: Path, run: Path, back_at: int, killed_in: int) -> int:
    """Train with a clock that steps back one day at a step: what Python is told of the time, and files."""
    from tunewright.train._trainer import Trainer

    day, now, now_ns, rename = 86_400, time.time, time.time_ns, os.rename
    step = Trainer.training_step

    def renamed(old, new, *args, **kwargs):
        os.utime(old, (now() - day, now() - day))
        return rename(old, new, *args, **kwargs)

    def training_step(self, *args, **kwargs):
        if self.state.global_step == back_at and time.time is now:
            time.time, time.time_ns = (lambda: now() - day), (lambda: now_ns() - day * 10**9)
            os.rename = renamed
        return step(self, *args, **kwargs)

    Trainer.training_step = training_step
    return killed_at(root, run, killed_in)


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(root, whole, forks, run):
    """K10."""
    child = forks.start(Case(train_in, (root, run)))
    wait_for_step(run, 3)
    # Its steps are quick: without a stop it may be finished before the second has begun.
    child.signal(signal.SIGSTOP)
    second = forks.run(Case(train_in, (root, run)))
    second.require("E_RUN_LOCKED")
    assert str(child.pid) in second.problems[0][1]
    child.signal(signal.SIGKILL)
    child.wait()
    require_finished(forks, root, run, whole)


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("train.learning_rate=1e-3", "train.learning_rate"),
        ("train.max_length=40", "train.max_length"),
        ("train.lr_scheduler_type=linear", "train.lr_scheduler_type"),
        ("train.lora.r=4", "train.lora.r"),
        ("seed=7", "seed"),
        ("model.chat_template=plain", "chat_template"),
        ("train.gradient_accumulation_steps=1", "rows_a_step"),
        ("train.max_train_samples=9", "train.max_train_samples"),
    ],
)
def test_another_option_is_refused(root, forks, run, option, field):
    """K9. Nothing is written; the message names the option."""
    interrupted(forks, root, run, 12)
    # The dataset is made with seed and template as well: it is not what is asked about here.
    before = snapshot(run / "training")
    refused = forks.run(Case(train_directly, (root, run, [option])))
    refused.require("E_RESUME_MISMATCH")
    assert any(f"'{field}'" in message for _, message, _, _ in refused.problems)
    assert snapshot(run / "training") == before


@pytest.mark.parametrize("what", ["edited", "reordered", "tokenizer", "base"])
def test_changed_inputs_are_refused(root, forks, tmp_path, what):
    """K9."""
    own = tmp_path / "own"
    own.mkdir()
    run = make(own)
    killed = forks.run(Case(killed_at, (own, run, 12)))
    assert killed.was_killed, killed.stderr
    field = change(own, what)
    before = snapshot(run / "training")
    refused = forks.run(Case(train_directly, (own, run, [])))
    refused.require("E_RESUME_MISMATCH")
    assert any(field in message for _, message, _, _ in refused.problems)
    assert snapshot(run / "training") == before
    shutil.rmtree(tmp_path)


def change(own: Path, what: str) -> str:
    """Change something that a training was started from; return the field that must be named."""
    from safetensors.torch import load_file, save_file

    rows = own / "run" / "dataset" / "train.jsonl"
    if what in ("edited", "reordered"):
        lines = rows.read_text().splitlines(keepends=True)
        lines = (
            lines[::-1] if what == "reordered" else [lines[0].replace("Tell", "Sell"), *lines[1:]]
        )
        rows.write_text("".join(lines))
        manifest = own / "run" / "dataset" / "manifest.json"
        fields = json.loads(manifest.read_text())
        from tunewright.artifacts import sha256

        fields["files"]["train.jsonl"] = sha256(rows)
        manifest.write_text(json.dumps(fields))
        return "rows.train"
    if what == "tokenizer":
        file = own / "base" / "tokenizer.json"
        fields = json.loads(file.read_text())
        fields["added_tokens"][0]["lstrip"] = not fields["added_tokens"][0]["lstrip"]
        file.write_text(json.dumps(fields))
        return "tokenizer"
    file = own / "base" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] += 0.5
    save_file(tensors, file, metadata={"format": "pt"})
    return "base.files.model.safetensors"


def train_directly(root: Path, run: Path, more: list[str]) -> int:
    """Train on the dataset as it lies there, whatever the options say of how it was made."""
    from faults.training import options

    from tunewright import train
    from tunewright.artifacts import load_artifact
    from tunewright.config.load import config_of_source

    config = config_of_source(str(root / "rows.jsonl"), [*options(root, run), *more])
    train(config, load_artifact(run / "dataset", "dataset"))
    return 0


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_another_machine_is_refused_unless_allowed(root, forks, run):
    """K8. The number of threads stands for all that decides the last bits of a sum."""
    interrupted(forks, root, run, 12)
    refused = forks.run(Case(on_two_threads, (root, run)))
    refused.require("E_RESUME_ENV")
    assert "'threads'" in refused.problems[0][1]
    allowed = forks.run(Case(on_two_threads, (root, run, "--allow-inexact")))
    assert allowed.code == 0, allowed.stderr
    summary = json.loads((run / "adapter" / "training_summary.json").read_text())
    assert summary["bit_exact"] is False


def on_two_threads(root: Path, run: Path, *more: str) -> int:
    import torch

    torch.get_num_threads = lambda: 2
    return train_in(root, run, *more)


def damaged(run: Path, kind: str, name: str = "optimizer.safetensors") -> None:
    """Damage a file of the newest checkpoint."""
    older, newest = checkpoints(run)[-2:]
    file = newest / name
    data = bytearray(file.read_bytes())
    if kind == "deleted":
        file.unlink()
    elif kind == "swapped":
        shutil.copyfile(older / name, file)
    elif kind == "flipped":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.write_bytes(data[: len(data) // 2] if kind == "half" else b"")


FILES = (
    "adapter_model.safetensors",
    "optimizer.safetensors",
    "rng_state.safetensors",
    "optimizer.json",
    "scheduler.json",
    "course.json",
    "rng_state.json",
    "trainer_state.json",
    "MANIFEST.json",
)
KINDS = ("deleted", "zero", "half", "flipped", "swapped")
PAIRS = [
    (name, kind)
    for name in FILES
    for kind in KINDS
    # It says how the numbers are kept, and is the same in every checkpoint.
    if (name, kind) != ("rng_state.json", "swapped")
]
QUICK = {(FILES[n], kind) for n, kind in enumerate(KINDS)}


def test_the_files_of_a_checkpoint_are_these(root, forks, run):
    interrupted(forks, root, run)
    names = {path.name for path in checkpoints(run)[-1].iterdir()}
    assert names >= set(FILES)
    assert {name for name in names if not name.startswith("README")} == set(FILES)


@pytest.mark.parametrize(
    ("name", "kind"),
    [p if p in QUICK else pytest.param(*p, marks=pytest.mark.faults) for p in PAIRS],
)
def test_a_damaged_checkpoint_is_passed_over(root, whole, forks, run, name, kind):
    """C1; without a training each pair is also in tests/unit/train/test_checkpoints.py."""
    interrupted(forks, root, run)
    damaged(run, kind, name)
    done = require_finished(forks, root, run, whole)
    assert done.stderr.count("W_CKPT_SKIPPED") == 1
    assert "checkpoint-30" in done.stderr
    assert name in done.stderr


def test_without_a_whole_checkpoint_it_does_not_begin_again(root, forks, run):
    """C2, and C3: a checkpoint that is named has no older one in its place."""
    interrupted(forks, root, run)
    damaged(run, "flipped")
    named = forks.run(Case(train_in, (root, run, "--resume", str(checkpoints(run)[-1]))))
    named.require("E_NO_VALID_CHECKPOINT")
    for folder in checkpoints(run)[:-1]:
        (folder / "course.json").unlink()
    none = forks.run(Case(train_in, (root, run)))
    none.require("E_NO_VALID_CHECKPOINT")
    assert len(none.problems) == len(checkpoints(run))


def test_a_named_checkpoint_and_a_restart(root, whole, forks, run):
    interrupted(forks, root, run)
    named = forks.run(Case(train_in, (root, run, "--resume", str(checkpoints(run)[0]))))
    assert named.code == 0, named.stderr
    assert result(run) == whole
    restarted = forks.run(Case(train_in, (root, run, "--restart")))
    assert restarted.code == 0
    assert result(run) == whole
    assert (run / "training.previous" / "checkpoints").is_dir()


def test_nothing_is_unpickled(root, forks, run, tmp_path):
    """C5."""
    import pickle

    interrupted(forks, root, run)
    canary = tmp_path / "canary"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    (checkpoints(run)[-1] / "optimizer.pt").write_bytes(pickle.dumps(Attack()))
    refused = forks.run(Case(train_in, (root, run)))
    refused.require("E_UNSAFE_FORMAT")
    assert not canary.exists()


def test_torn_records_are_mended(root, whole, forks, run):
    """C6. The end of the metrics, and the record of what the training was started from."""
    interrupted(forks, root, run)
    metrics = run / "training" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-9])
    identity = run / "training" / "identity.json"
    identity.write_bytes(identity.read_bytes()[:100])
    require_finished(forks, root, run, whole)


def test_a_full_disk_loses_nothing(root, whole, forks, run):
    """D2. The save fails, the checkpoints before it stay, and with space again it goes on."""
    folder = run / "training" / "checkpoints"
    full = Fault(25, "open", errno.ENOSPC, forever=True)
    stopped = forks.run(Case(train_in, (root, run), under=folder, fault=full))
    stopped.require("E_DISK_SPACE")
    assert not list(folder.glob(".tmp-*"))
    require_finished(forks, root, run, whole)


def test_files_that_may_not_grow(root, whole, forks, run):
    """D3."""
    shutil.copytree(root / "run" / "dataset", run / "dataset")
    for limit in (100, 1000, 5000, 20000):
        stopped = forks.run(Case(train_in, (root, run), file_limit=limit))
        stopped.require("E_IO")
    require_finished(forks, root, run, whole)


def test_logs_on_a_full_disk_do_not_stop_it(root, whole, forks, run):
    """D6. One line says so; the training is the same."""
    file = run / "training" / "progress.jsonl"
    full = Fault(3, "open", errno.ENOSPC, forever=True)
    done = forks.run(Case(train_in, (root, run), under=file, fault=full))
    assert done.code == 0, done.stderr
    assert done.stderr.count("cannot be written") == 1
    assert result(run) == whole


def test_a_dead_worker_is_named(root, forks, run):
    """K5."""
    stopped = forks.run(Case(with_a_dying_worker, (root, run)))
    stopped.require("E_WORKER_DIED")
    assert checkpoints(run)
    done = forks.run(Case(train_in, (root, run, "--set", "train.dataloader_num_workers=0")))
    assert done.code == 0, done.stderr


def with_a_dying_worker(root: Path, run: Path) -> int:
    import psutil

    from tunewright.train._trainer import Trainer

    before = Trainer.get_batch_samples

    def get_batch_samples(self, *args, **kwargs):
        if self.state.global_step == 7:
            psutil.Process().children()[0].kill()
        return before(self, *args, **kwargs)

    Trainer.get_batch_samples = get_batch_samples
    return train_in(root, run, "--set", "train.dataloader_num_workers=1")


def test_too_little_address_space(root, whole, forks, run):
    """D5. The error says what to lower; what was saved is whole."""
    interrupted(forks, root, run)
    stopped = forks.run(Case(starved, (root, run)))
    stopped.require("E_OOM")
    require_finished(forks, root, run, whole)


def starved(root: Path, run: Path) -> int:
    """Train with an address space that is used up at step 33, where a step asks for more of it.

    What a step needs may lie in memory that earlier steps gave back, so it asks for one large
    piece besides, which only a new mapping can hold.
    """
    import resource

    import psutil
    import torch

    from tunewright.train._trainer import Trainer

    step = Trainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == 33:
            used = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (used, used))
            torch.empty(256 * 2**20, dtype=torch.uint8)
        return step(self, *args, **kwargs)

    Trainer.training_step = training_step
    return train_in(root, run)
