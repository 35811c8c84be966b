"""Where a training begins: what is compared, what is refused, what is written before that."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.errors import TunewrightError
from tunewright.events import SILENT
from tunewright.train._checkpoints import best_whole, save
from tunewright.train._start import (
    REMEMBERED,
    Start,
    begin,
    remembered,
    set_aside,
    started_from,
    write_identity,
)

RUN: dict[str, Any] = dict.fromkeys(REMEMBERED, "as it was") | {
    "passes": {"gradient_accumulation_steps": "1"},
    "threads": 8,
    "seed": 1,
}


def rows(step: int) -> list[int]:
    return [step, step + 1]


def checkpoint(
    folder: Path,
    step: int,
    inexact: tuple[str, ...] = (),
    evaluations: list[tuple[int, float]] | None = None,
    **changes: Any,
) -> Path:
    course = {"next_rows": rows(step), "inexact": list(inexact), "evaluations": evaluations or []}
    saved = save(
        folder / "checkpoints",
        step,
        tensors={"adapter_model": {"a": torch.zeros(2)}},
        documents={"course": course},
        identity=RUN | changes,
    )
    return saved.path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training that has come to step 20."""
    folder = tmp_path / "training"
    folder.mkdir()
    write_identity(folder, RUN, finished=False)
    checkpoint(folder, 10)
    checkpoint(folder, 20)
    return folder


def start(
    folder: Path,
    *,
    listener: Any = SILENT,
    resume: str = "auto",
    allow_inexact: bool = False,
    **changes: Any,
) -> Start:
    order = changes.pop("rows", rows)
    before = remembered(folder, resume=resume, restart=False)
    return begin(
        folder,
        before,
        RUN | changes,
        listener,
        rows=order,
        made=(folder.parent / "adapter").is_dir(),
        resume=resume,
        allow_inexact=allow_inexact,
    )


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}


def step_of(started: Start) -> int | None:
    return started.checkpoint.step if started.checkpoint else None


def test_it_goes_on_from_the_newest(folder):
    assert (start(folder).kind, step_of(start(folder))) == ("resumed", 20)
    assert start(folder).inexact == ()


@pytest.mark.parametrize("resume", ["auto", "must", "PATH"])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"seed": 2}, "E_RESUME_MISMATCH"),
        ({"rows_a_step": 4}, "E_RESUME_MISMATCH"),
        ({"threads": 4}, "E_RESUME_ENV"),
        ({"passes": {"gradient_accumulation_steps": "2"}}, "E_RESUME_ENV"),
        ({"rows": lambda step: [step]}, "E_RESUME_MISMATCH"),
    ],
)
def test_what_is_refused_has_changed_nothing(folder, resume, changes, code):
    (folder / "checkpoints" / ".tmp-25-00000000").mkdir()
    path = str(folder / "checkpoints" / "checkpoint-10")
    before = content(folder)
    with pytest.raises(TunewrightError) as refused:
        start(folder, resume=path if resume == "PATH" else resume, **changes)
    assert refused.value.problems[0].code == code
    assert content(folder) == before
    assert (folder / "checkpoints" / ".tmp-25-00000000").is_dir()


def test_a_checkpoint_of_another_training_is_refused(folder):
    checkpoint(folder, 30, seed=2)
    with pytest.raises(TunewrightError, match="'seed' has changed"):
        start(folder)


def test_what_was_once_inexact_stays_so(folder):
    """It is resumed on another machine, saved there, and resumed on the first one again."""
    there = start(folder, allow_inexact=True, threads=4)
    assert there.inexact == ("threads",)
    checkpoint(folder, 30, there.inexact, threads=4)
    with pytest.raises(TunewrightError, match="'threads' has changed"):
        start(folder)
    back = start(folder, allow_inexact=True)
    assert back.inexact == ("threads",)
    checkpoint(folder, 40, back.inexact)
    assert start(folder).inexact == ("threads",)


def test_a_named_checkpoint_keeps_later_ones_aside(folder):
    started = start(folder, resume=str(folder / "checkpoints" / "checkpoint-10"))
    assert step_of(started) == 10
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-10"]
    assert (folder.parent / "training.previous" / "checkpoints" / "checkpoint-20").is_dir()


def test_a_damaged_record_is_that_of_the_checkpoint(folder):
    for text in ("", "{", "[]", json.dumps({"train": 1})):
        (folder / "identity.json").write_text(text)
        assert started_from(folder) == RUN
    assert start(folder).kind == "resumed"


def test_a_finished_training(folder):
    """Another machine is no reason to train again; another option is; a result that is gone is made again."""
    write_identity(folder, RUN, finished=True)
    assert step_of(start(folder)) == 20
    write_identity(folder, RUN, finished=True)
    (folder.parent / "adapter").mkdir()
    assert start(folder).kind == "finished"
    assert start(folder, threads=4).kind == "finished"
    assert start(folder, seed=2).kind == "fresh"
    assert (folder.parent / "training.previous" / "checkpoints" / "checkpoint-20").is_dir()


def test_there_must_be_something_to_go_on_from(folder):
    set_aside(folder)
    with pytest.raises(TunewrightError) as refused:
        start(folder, resume="must")
    assert refused.value.problems[0].code == "E_NOT_FOUND"
    with pytest.raises(TunewrightError) as refused:
        start(folder, resume=str(folder / "no-such-checkpoint"))
    assert refused.value.problems[0].code == "E_NOT_FOUND"
    assert start(folder).kind == "fresh"


def test_what_is_kept_aside_is_not_given_up_for_nothing(folder):
    """A restart that dies before its first checkpoint, and one more start: the old training is still there."""
    set_aside(folder)
    write_identity(folder, RUN, finished=False)
    (folder / "metrics.jsonl").touch()
    assert start(folder).kind == "fresh"
    assert not (folder / "metrics.jsonl").exists()
    kept = folder.parent / "training.previous" / "checkpoints"
    assert sorted(path.name for path in kept.iterdir()) == ["checkpoint-10", "checkpoint-20"]


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("renames", range(5))
def test_a_move_that_is_cut_off_is_finished_by_the_next_start(
    folder, monkeypatch, renames, finished
):
    """Nothing is lost, and the training that was to leave is not gone on with."""
    for name in ("metrics.jsonl", "progress.jsonl"):
        (folder / name).write_text(name)
    (folder.parent / "training.previous").mkdir()
    (folder.parent / "training.previous" / "identity.json").write_text("{}")
    write_identity(folder, RUN, finished=finished)
    done = 0
    rename = Path.rename

    def cut_off(path: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done > renames:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", cut_off)
    if renames < 4:
        with pytest.raises(KeyboardInterrupt):
            set_aside(folder)
    else:
        set_aside(folder)
    monkeypatch.undo()
    assert start(folder).kind == "fresh"
    previous = folder.parent / "training.previous"
    assert (previous / "checkpoints" / "checkpoint-20").is_dir()
    assert (previous / "progress.jsonl").read_text() == "progress.jsonl"
    assert json.loads((previous / "identity.json").read_text())["seed"] == 1
    assert [path.name for path in folder.iterdir()] == ["identity.json"]


COURSE = [(0, 9.0), (10, 2.0), (20, 4.0), (30, 3.0)]


@pytest.fixture
def past_its_best(folder: Path) -> Path:
    """A training at step 30 whose best evaluation was at step 10."""
    shutil.rmtree(folder / "checkpoints")
    checkpoint(folder, 10, evaluations=COURSE[:2])
    return checkpoint(folder, 30, evaluations=COURSE)


class Heard:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def said(self, text: str) -> None:
        self.lines.append(text)


def heard_at_start(folder: Path, **given: Any) -> list[str]:
    heard = Heard()
    assert step_of(start(folder, listener=heard, **given)) == 30
    return heard.lines


def test_a_best_checkpoint_that_is_damaged_is_told_at_the_start(folder, past_its_best):
    """One that is missing was given up for a better one, which comes again."""
    best = folder / "checkpoints" / "checkpoint-10"
    assert heard_at_start(folder) == []
    (best / "course.json").write_text("{}")
    (said,) = heard_at_start(folder)
    assert said.startswith(f"W_CKPT_SKIPPED {best}: ")
    shutil.rmtree(best)
    assert heard_at_start(folder) == []


def test_the_best_checkpoint_comes_with_one_that_is_named(folder, past_its_best):
    set_aside(folder)
    named = folder.parent / "training.previous" / "checkpoints" / "checkpoint-30"
    assert heard_at_start(folder, resume=str(named)) == []
    assert step_of(start(folder, resume=str(folder / "checkpoints" / "checkpoint-10"))) == 10


def test_the_best_that_is_whole(folder, past_its_best):
    """In place of a damaged one the next best."""
    checkpoints = folder / "checkpoints"
    assert best_whole(checkpoints, COURSE, RUN)[0].step == 10
    (checkpoints / "checkpoint-10" / "course.json").write_text("{}")
    saved, lost = best_whole(checkpoints, COURSE, RUN)
    assert (saved.step, [path.name for path in lost]) == (30, ["checkpoint-10"])
    shutil.rmtree(checkpoints / "checkpoint-30")
    checkpoint(folder, 30, seed=2)
    with pytest.raises(TunewrightError) as refused:
        best_whole(checkpoints, COURSE, RUN)
    assert {p.code for p in refused.value.problems} == {"E_NO_VALID_CHECKPOINT"}


def test_a_finished_training_makes_its_adapter_again_on_any_machine(folder):
    write_identity(folder, RUN, finished=True)
    again = start(folder, threads=4)
    assert (again.kind, step_of(again), again.inexact) == ("resumed", 20, ())
