"""Where a training begins: what is compared, what is refused, what is written before that."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.errors import TunewrightError
from tunewright.events import SILENT
from tunewright.train._checkpoints import save
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


def checkpoint(folder: Path, step: int, inexact: tuple[str, ...] = (), **changes: Any) -> Path:
    course = {"next_rows": rows(step), "inexact": list(inexact)}
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
    folder: Path, *, resume: str = "auto", allow_inexact: bool = False, **changes: Any
) -> Start:
    order = changes.pop("rows", rows)
    before = remembered(folder, resume=resume, restart=False)
    return begin(
        folder,
        before,
        RUN | changes,
        SILENT,
        rows=order,
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
