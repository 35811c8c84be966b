"""A stage that is done anew on a real run: a training begins again, or goes on if it was interrupted on the way."""

import json
import shutil
from pathlib import Path

import pytest

from tunewright.artifacts import load_artifact
from tunewright.pipeline import run, steps
from tunewright.pipeline.status import status
from tunewright.train import is_finished


@pytest.fixture
def copied(trained, tmp_path):
    """A config whose run has a dataset, an adapter and its training."""
    config, _, _ = trained
    own = tmp_path / "run"
    for folder in ("dataset", "adapter", "training"):
        shutil.copytree(Path(config.run_dir) / folder, own / folder)
    return config.model_copy(update={"output_dir": str(own)})


def test_train_anew_restarts_what_is_finished_and_resumes_what_is_not(copied, monkeypatch):
    asked = []

    def train(config, dataset, *, restart, listener):
        asked.append(restart)
        return load_artifact(Path(config.run_dir) / "adapter", "adapter")

    monkeypatch.setattr(steps, "train", train)
    folder = Path(copied.run_dir)
    assert is_finished(folder)
    (made,) = run(copied, only=["train"])
    assert asked == [True]
    assert made.reasons == ("it was asked for",)
    identity = folder / "training" / "identity.json"
    fields = json.loads(identity.read_text())
    identity.write_text(json.dumps({k: v for k, v in fields.items() if k != "finished"}))
    assert not is_finished(folder)
    run(copied, start="train", until="train")
    assert asked == [True, False]
    assert not is_finished(folder / "nowhere")


def test_a_real_run_stands_as_it_was_left(copied):
    """Stages called from Python, without the pipeline, stand as well."""
    states = {one.stage: one for one in status(copied, "c.yaml").stages}
    assert [name for name, one in states.items() if one.state == "done"] == ["prepare", "train"]
    assert states["train"].size_bytes > states["prepare"].size_bytes > 0
    # It was not logged how long it took.
    assert states["train"].seconds is None
    found = status(copied.model_copy(update={"seed": 7}), "c.yaml").stages
    assert found[0].reasons == ("seed changed",)
    assert "seed changed" in found[3].reasons
    assert found[3].state == "outdated"
