"""Other tools' configs and the flags of job launchers, as they are typed."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import SAMPLES

from tunewright.cli import main

COMPAT = Path(__file__).parent.parent / "unit" / "config" / "compat"
SCRIPT = {
    "model_id": "tunewright/tiny",
    "dataset_id": "rows.jsonl",
    "max_seq_length": 256,
    "lora_r": 4,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_steps": 3,
    "eval_split": 0.2,
    "output_dir": "out/shell",
    "push_to_hub": True,
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with rows and a script's config, which is the current one."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(SAMPLES / "shell-helper.jsonl", tmp_path / "rows.jsonl")
    (tmp_path / "flat.yaml").write_text(yaml.safe_dump(SCRIPT, sort_keys=False))
    return tmp_path


def run(*arguments: str, capfd) -> tuple[int, str, str]:
    code = main(list(arguments))
    shown = capfd.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize("name", ["flat_sft.yaml", "axolotl_qlora.yaml"])
def test_the_samples_are_converted_and_the_result_loads_to_the_same(name, project, capfd):
    shutil.copyfile(COMPAT / name, project / name)
    code, out, _ = run("config", "convert", name, capfd=capfd)
    assert code == 0
    assert out.startswith("# Written from ")
    assert "warmup_ratio" not in out
    assert run("config", "convert", name, "--out", "new.yaml", capfd=capfd)[1] == "new.yaml\n"
    assert (project / "new.yaml").read_text() == out
    shown = [run("config", "show", file, capfd=capfd) for file in (name, "new.yaml")]
    assert shown[0][1] == shown[1][1]
    assert "bf16 (line" in shown[0][2]
    assert shown[1][2] == ""
    code, _, err = run("config", "convert", name, "--out", "new.yaml", capfd=capfd)
    assert (code, err.split(":")[0]) == (2, "ERROR E_EXISTS")
    found = json.loads(run("config", "convert", name, "--json", capfd=capfd)[1])
    assert found["config"] == yaml.safe_load(out)
    assert len(found["notes"]) >= 2


def test_every_stage_takes_a_config_of_a_script(project, capfd):
    for stage in ("prepare", "check", "plan"):
        code, _, err = run(stage, "flat.yaml", "--set", "seed=1", capfd=capfd)
        assert code == 0, err
        assert err.count("push_to_hub (line 10)") == 1
    assert (project / "out" / "shell" / "plan" / "manifest.json").is_file()
    code, out, err = run("check", "out/shell", "--json", capfd=capfd)
    assert (code, "push_to_hub" in err) == (0, False), err
    assert json.loads(out)["rows"] == 120


def test_an_outdated_dataset_of_a_config_is_refused_and_that_of_flags_made_again(project, capfd):
    assert run("prepare", "flat.yaml", capfd=capfd)[0] == 0
    code, _, err = run("train", "flat.yaml", "--set", "prepare.eval_split=0.3", capfd=capfd)
    assert (code, "prepare.eval_split" in err) == (4, True)
    flags = ("--train-files", "rows.jsonl", "--set", "prepare.eval_split=0.3", "--dry-run")
    code, _, err = run("train", "flat.yaml", *flags, capfd=capfd)
    assert code == 0, err
    found = json.loads((project / "out" / "shell" / "dataset" / "manifest.json").read_text())
    assert found["facts"]["eval_rows"] > 30


def test_a_dry_run_of_flags_alone_takes_seconds(project):
    arguments = (
        "train --agent shell --train_files *.jsonl --max_train_samples 10 --dry-run --json "
        "--train_batch_size 2 --output_dir out/job"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "tunewright", *arguments.split()],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "plan"
    assert found["facts"]["rows"] == 10
    # Processor time, since other load on the machine does not count; 9 to 15 s were seen, most of them for imports.
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 25
    made = {p.name for p in (project / "out" / "job").iterdir()}
    assert {"dataset", "check", "plan", "run.yaml"} <= made
    assert "adapter" not in made


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train"], "--train-files or --dataset-name"),
        (["train", "--agent", "x"], "--train-files or --dataset-name"),
        (["train", "flat.yaml", "--dry-run", "--publish"], "nothing to --publish"),
        (["train", "flat.yaml", "--load-model"], "--load-model belongs to --dry-run"),
        (["train", "flat.yaml", "--resume", "--restart"], "give one of them"),
        (["train", "flat.yaml", "--epochs", "many"], "many"),
        (["train", "--train-files", "none*.jsonl"], "No file matches"),
    ],
)
def test_flags_that_say_nothing_to_do(project, capfd, arguments, says):
    code, _, err = run(*arguments, capfd=capfd)
    assert code == 2
    assert says in err
    assert not (project / "out").exists()
