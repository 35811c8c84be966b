"""`verify` names everything of a run that is not what it was when it was made."""

import json
import shutil
from pathlib import Path

import pytest

from tunewright.artifacts import writing
from tunewright.cli import main
from tunewright.errors import Problem, TunewrightError
from tunewright.train._checkpoints import newest
from tunewright.verification import verify


@pytest.fixture
def config(trained, tmp_path):
    """A run of its own, with a merged model beside the adapter."""
    made, _, adapter = trained
    run = tmp_path / "run"
    for folder in ("dataset", "adapter", "training"):
        shutil.copytree(Path(made.run_dir) / folder, run / folder)
    config = made.model_copy(update={"output_dir": str(run)})
    with writing(run / "merged", "merged", settings={}, parents={"adapter": adapter}) as draft:
        shutil.copy(adapter.path / "adapter_model.safetensors", draft.path / "model.safetensors")
    assert problems(config) == []
    return config


def problems(config) -> list[Problem]:
    return [problem for one in verify(config) for problem in one.problems]


def newest_in(config) -> Path:
    return max(
        (Path(config.run_dir) / "training" / "checkpoints").glob("checkpoint-*"),
        key=lambda path: int(path.name.removeprefix("checkpoint-")),
    )


def flip(file: Path) -> None:
    """Turn one bit in the middle of a file over."""
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def test_all_of_a_run_is_looked_at(config):
    found = verify(config)
    names = {one.name for one in found}
    assert names >= {"dataset", "adapter", "merged", newest_in(config).name}
    assert all(one.files for one in found)


@pytest.mark.parametrize(
    "name", ["adapter/adapter_model.safetensors", "merged/model.safetensors", "dataset/train.jsonl"]
)
def test_a_flipped_bit_in_an_artifact(config, name):
    flip(Path(config.run_dir) / name)
    (problem,) = problems(config)
    assert (problem.code, problem.where) == (
        "E_ARTIFACT_INVALID",
        str(Path(config.run_dir) / name),
    )


@pytest.mark.parametrize("name", ["optimizer.safetensors", "course.json", "MANIFEST.json"])
def test_a_flipped_bit_in_a_checkpoint(config, name):
    checkpoint = newest_in(config)
    flip(checkpoint / name)
    (problem,) = problems(config)
    assert (problem.code, problem.where) == ("E_NO_VALID_CHECKPOINT", str(checkpoint))
    assert name in problem.message


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_a_folder_without_its_manifest(config, kind):
    folder = Path(config.run_dir) / kind
    (folder / "manifest.json").unlink()
    (problem,) = problems(config)
    assert (problem.code, problem.where) == ("E_ARTIFACT_INVALID", str(folder))
    assert "manifest.json is missing" in problem.message


def test_what_is_in_place_of_a_folder(config, tmp_path):
    folder = Path(config.run_dir) / "merged"
    folder.rename(tmp_path / "away")
    folder.symlink_to(tmp_path / "gone")
    assert [p.code for p in problems(config)] == ["E_UNSAFE_PATH"]
    folder.unlink()
    folder.write_text("a file")
    assert [(p.code, p.where) for p in problems(config)] == [
        ("E_IO", str(folder / "manifest.json"))
    ]


def test_pickles_are_told_as_training_tells_them(config):
    checkpoint = newest_in(config)
    (checkpoint / "optimizer.pt").write_bytes(b"pickled")
    (problem,) = problems(config)
    with pytest.raises(TunewrightError) as caught:
        newest(checkpoint.parent)
    assert (problem,) == caught.value.problems
    assert problem.code == "E_UNSAFE_FORMAT"


def otherwise(text: str) -> str:
    return json.dumps(json.loads(text) | {"seed": 4711})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:-20], "damaged"),
        (lambda text: "[" * 100_000, "damaged"),
        (lambda text: "{}", "not all in the file"),
        (lambda text: "[1]", "not all in the file"),
        (otherwise, "otherwise than the newest checkpoint"),
    ],
)
def test_a_broken_identity(config, change, said):
    file = Path(config.run_dir) / "training" / "identity.json"
    file.write_text(change(file.read_text()))
    (problem,) = problems(config)
    assert (problem.code, problem.where) == ("E_ARTIFACT_INVALID", str(file))
    assert said in problem.message
    assert "Remove it" in problem.fix


def test_an_identity_that_is_gone_or_leaving(config):
    training = Path(config.run_dir) / "training"
    file = training / "identity.json"
    file.write_text('{"set_aside": true}')
    assert problems(config) == []
    file.unlink()
    (problem,) = problems(config)
    assert problem.where == str(file)
    shutil.rmtree(training / "checkpoints")
    assert problems(config) == []
    file.write_text("{")
    (problem,) = problems(config)
    assert "--restart" in problem.fix


def test_the_command_fails_with_the_code_of_what_is_wrong(config, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        f"name: run\noutput_dir: {config.run_dir}\nprepare: {{source: sample:manuscript}}\n"
    )
    line = ["verify", str(tmp_path / "run.yaml"), "--json"]
    assert main(line) == 0
    assert all(one["whole"] for one in json.loads(capsys.readouterr().out)["verified"])
    (Path(config.run_dir) / "adapter" / "manifest.json").unlink()
    assert main(line) == 4
    told = {one["name"]: one["whole"] for one in json.loads(capsys.readouterr().out)["verified"]}
    assert [name for name, whole in told.items() if not whole] == ["adapter"]
