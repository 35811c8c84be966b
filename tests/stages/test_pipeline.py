"""The whole path, as a user runs it: commands, exit codes, what they print and leave behind."""

import html
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from commands import ENVIRONMENT, Done, here, tunewright, write_config
from faults.training import make_base
from support import shallow_base

from tunewright.artifacts import load_artifact
from tunewright.cli import main


@pytest.fixture(scope="module")
def project(tmp_path_factory, manuscript) -> Path:
    """A folder with a small config, run once through every stage."""
    folder = tmp_path_factory.mktemp("project")
    base = shallow_base(tmp_path_factory.mktemp("base"))
    write_config(folder, manuscript, f"model.model_name_or_path={base}")
    done = tunewright("run", "c.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


def digests(run: Path) -> dict[str, str]:
    return {p.parent.name: p.read_text() for p in run.glob("*/manifest.json")}


def test_every_stage_leaves_its_folder_and_the_table_says_what_was_proven(project):
    run = project / "runs" / "small"
    assert set(digests(run)) == {
        "dataset", "check", "plan", "adapter", "evaluation", "merged", "exported", "published", "report",
    }  # fmt: skip
    printed = (project / "stdout").read_text()
    assert "tunewright chat runs/small" in printed
    assert "runs/small/report/report.html" in printed
    assert "✗" not in printed
    evaluation = json.loads((run / "evaluation" / "manifest.json").read_text())["facts"]
    page = html.unescape((run / "report" / "report.html").read_text())
    perplexity = evaluation["perplexity"]["heldout"]
    assert f"{perplexity['base']['value']:.1f} → {perplexity['tuned']['value']:.1f}" in page
    assert evaluation["memorisation"]["longest_text"] in page
    assert list((project / "models" / "writer" / "small").iterdir())


def test_second_run_skips_everything_and_is_fast(project):
    before = digests(project / "runs" / "small")
    start = time.monotonic()
    done = tunewright("run", "c.yaml", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    assert all(stage["skipped"] for stage in json.loads(done.stdout)["stages"])
    assert time.monotonic() - start < 5
    assert digests(project / "runs" / "small") == before


def stages_of(done: Done) -> dict[str, list[str]]:
    """Return the stages that were done, and why."""
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["stages"]
    return {row["stage"]: row["because"] for row in rows if not row["skipped"]}


def test_a_deleted_stage_is_done_again_and_nothing_after_it(project):
    """Merged anew from the same adapter it is the same, to the byte: what was made of it stays."""
    run = project / "runs" / "small"
    before, made = digests(run), load_artifact(run / "merged", "merged")
    shutil.rmtree(run / "merged")
    assert stages_of(here("run", "c.yaml", "--json", cwd=project)) == {"merge": []}
    after = digests(run)
    assert after["merged"] != before["merged"]
    assert load_artifact(run / "merged", "merged").digest == made.digest
    assert {k: v for k, v in after.items() if k != "merged"} == {
        k: v for k, v in before.items() if k != "merged"
    }
    assert main(["verify", str(run)]) == 0


def test_another_option_with_the_same_rows_does_not_train_again(project, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(project / "runs" / "small", run)
    config = project / "c.yaml"
    before = digests(run)["adapter"]
    changed = ["--set", f"output_dir={run}", "--set", "prepare.near_duplicate_threshold=0.81"]
    done = stages_of(here("run", str(config), *changed, "--json", cwd=project))
    assert list(done) == ["prepare", "check", "report"]
    assert {why[0] for why in done.values()} == {"prepare.near_duplicate_threshold changed"}
    assert digests(run)["adapter"] == before
    log = (run / "logs" / "run.log").read_text()
    assert " begin    prepare again, because: prepare.near_duplicate_threshold changed\n" in log
    assert " skip     train: nothing changed\n" in log
    # Single commands find that it belongs together, too.
    assert here("report", str(run), cwd=project).returncode == 0


REAL_MISTAKES = [
    ("compare", "compare.prompts_file=none.txt", "E_NOT_FOUND"),
    ("merge", "merge.checkpoint=99999", "E_NOT_FOUND"),
    ("export", "export.llama_cpp=none", "E_NOT_FOUND"),
    ("publish", "publish.version=taken", "E_VERSION_EXISTS"),
]


@pytest.mark.parametrize(
    ("stage", "mistake", "code"), REAL_MISTAKES, ids=[m[0] for m in REAL_MISTAKES]
)
def test_a_mistake_costs_only_its_stage(project, monkeypatch, capsys, stage, mistake, code):
    """Nothing that was done is lost: with the mistake mended, there is nothing left to do."""
    monkeypatch.chdir(project)
    (project / "models" / "writer" / "small" / "taken").mkdir(exist_ok=True)
    run = project / "runs" / "small"
    before = digests(run)
    log = run / "logs" / "run.log"
    seen = len(log.read_text())
    assert main(["run", "c.yaml", "--set", mistake]) != 0
    assert f"ERROR {code}" in capsys.readouterr().err
    new = log.read_text()[seen:]
    assert re.findall(r"^\S+ \d+ failed +(\w+)", new, re.MULTILINE) == [stage]
    assert f" error    {code}: " in new
    done = set(re.findall(r"^\S+ \d+ end +(\w+)", new, re.MULTILINE))
    assert done <= ({"plan"} if stage != "publish" else {"report"})
    assert main(["run", "c.yaml", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["stages"]
    assert {row["stage"] for row in rows if not row["skipped"]} <= {"plan", "report"}
    kept = digests(run)
    assert {k: kept[k] for k in kept if k not in ("plan", "report")} == {
        k: before[k] for k in before if k not in ("plan", "report")
    }
    (project / "models" / "writer" / "small" / "taken").rmdir()


def test_a_changed_option_redoes_what_it_determines(project):
    changed = ["--set", "merge.max_mean_kl=0.002", "--until", "merge"]
    done = here("run", "c.yaml", "--json", *changed, cwd=project)
    stages = {s["stage"]: s["skipped"] for s in json.loads(done.stdout)["stages"]}
    assert [name for name, skipped in stages.items() if not skipped] == ["merge"]


def test_an_export_option_does_not_train_again(project):
    before = digests(project / "runs" / "small")["adapter"]
    done = here("run", "c.yaml", "--json", "--set", "export.quantization=[Q8_0]", cwd=project)
    stages = {s["stage"]: s["skipped"] for s in json.loads(done.stdout)["stages"]}
    assert stages["plan"] is False
    assert [stages[s] for s in ("prepare", "check", "train", "compare")] == [True] * 4
    assert stages["export"] is False
    assert digests(project / "runs" / "small")["adapter"] == before


def test_artifacts_that_do_not_belong_together_are_refused(project, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(project / "runs" / "small", run)
    assert here("prepare", str(run), "--set", "seed=7", cwd=project).returncode == 0
    done = here("merge", str(run), cwd=project)
    assert done.returncode == 4
    assert "The adapter was made from another dataset than the one here." in done.stderr
    rows = run / "dataset" / "train.jsonl"
    rows.write_text(rows.read_text() + "\n")
    assert "ERROR E_ARTIFACT_INVALID" in here("train", str(run), cwd=project).stderr


def test_a_lost_store_is_published_to_again(project, tmp_path):
    command = ["run", "c.yaml", "--json", "--set", f"publish.store={tmp_path / 's'}"]
    done = here(*command, cwd=project)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "s")
    done = here(*command, cwd=project)
    stages = {s["stage"]: s["skipped"] for s in json.loads(done.stdout)["stages"]}
    assert stages["publish"] is False
    assert (tmp_path / "s" / "AGENT_MODEL_MAP.json").is_file()


def test_nothing_of_this_machine_travels_with_a_version(project):
    for file in (project / "models").rglob("*"):
        if file.is_file() and file.suffix in (".json", ".md", "", ".jinja"):
            text = file.read_text(errors="replace")
            assert str(project) not in text, file
            assert "site-packages" not in text, file
            assert "/assets/tiny" not in text, file


def test_no_arguments_show_the_help(project):
    done = tunewright(cwd=project)
    assert done.returncode == 0
    assert "Usage: tunewright" in done.stdout


def test_store_and_token_variables_come_from_dotenv(project, tmp_path):
    (tmp_path / ".env").write_text(f"MODEL_STORE_ROOT={project / 'models'}\n")
    done = tunewright("store", "list", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["versions"]


def test_commands_work_on_the_run_folder_alone(project):
    done = here("report", "runs/small", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    moved = project / "elsewhere"
    shutil.copytree(project / "runs" / "small", moved)
    done = here("report", "elsewhere", "--json", cwd=project)
    assert json.loads(done.stdout)["path"].startswith("elsewhere")


def test_store_commands(project):
    listed = json.loads(here("store", "list", "--store", "models", "--json", cwd=project).stdout)
    assert listed["versions"]
    assert here("store", "verify", "--store", "models", cwd=project).returncode == 0
    where = here("store", "resolve", "writer", "--store", "models", cwd=project).stdout.strip()
    assert (project / where / "manifest.json").is_file() or Path(where, "manifest.json").is_file()
    version = listed["versions"][0]["version"]
    shown = here("store", "show", f"writer@{version}", "--store", "models", "--json", cwd=project)
    assert json.loads(shown.stdout)["version"] == version
    assert (
        here("store", "rollback", "writer", version, "--store", "models", cwd=project).returncode
        == 0
    )


BAD = [
    (["run", "none.yaml"], 2, "E_NOT_FOUND"),
    (["run", "bad.yaml"], 2, "E_CONFIG_KEY"),
    (["run", "c.yaml", "--set", "train.learning_rate=fast"], 2, "E_CONFIG_VALUE"),
    (["run", "c.yaml", "--until", "nowhere"], 2, "E_USAGE"),
    (["run"], 2, "E_USAGE"),
    (["fly"], 2, "E_USAGE"),
    (["prepare", "c.yaml", "--set", "prepare.source=none.txt"], 2, "E_NOT_FOUND"),
    (["prepare", "c.yaml", "--set", "model.model_name_or_path=./none"], 4, "E_MODEL"),
    (["prepare", "c.yaml", "--set", "model.model_name_or_path=."], 4, "E_MODEL"),
    (["prepare", "c.yaml", "--set", "model.model_name_or_path=org/name"], 8, "E_HUB"),
    (["check", "none.jsonl"], 2, "E_NOT_FOUND"),
    (["check", "bad.jsonl"], 3, "E_DATA_ROW"),
    (["check", "fresh.yaml"], 4, "E_ARTIFACT_MISSING"),
    (["plan", "fresh.yaml"], 4, "E_ARTIFACT_MISSING"),
    (["train", "fresh.yaml"], 2, "E_NOT_FOUND"),
    (["compare", "fresh.yaml"], 4, "E_ARTIFACT_MISSING"),
    (["merge", "fresh.yaml"], 4, "E_ARTIFACT_MISSING"),
    (["merge", "."], 2, "E_NOT_FOUND"),
    (["export", "fresh.yaml"], 4, "E_ARTIFACT_MISSING"),
    (["export", "c.yaml", "--set", "export.quantization=[Q3_K]"], 2, "E_CONFIG_VALUE"),
    (["publish", "fresh.yaml"], 4, "E_ARTIFACT_MISSING"),
    (["publish", "c.yaml", "--set", "publish.agent=../x"], 2, "E_CONFIG_VALUE"),
    (["serve", "fresh.yaml"], 4, "E_ARTIFACT_MISSING"),
    (["serve", "c.yaml", "--port", "70000"], 2, "E_USAGE"),
    (["chat", "fresh.yaml"], 4, "E_ARTIFACT_MISSING"),
    (["report", "none"], 2, "E_NOT_FOUND"),
    (["store", "verify", "--store", "typo"], 2, "E_NOT_FOUND"),
    (["train", "c.yaml", "--set", "train.lora.target_modules=[foo]"], 2, "E_CONFIG_VALUE"),
    (["train", "c.yaml", "--set", "train.lora.target_modules=q_proj"], 2, "E_CONFIG_VALUE"),
    (["train", "c.yaml", "--set", "train.learning_rate=.inf"], 2, "E_CONFIG_VALUE"),
    (["run", "c.yaml", "--set", "publish.version=2024-13-45"], 2, "E_USAGE"),
    (["prepare", "c.yaml", "--set", "model.model_name_or_path=damaged"], 4, "E_MODEL"),
    (["merge", "c.yaml", "--set", "output_dir=c.yaml"], 5, "E_IO"),
    (["store", "resolve", "nobody", "--store", "models"], None, "E_"),
    (["store", "show", "a@b", "--store", "models"], None, "E_"),
    (["store", "rollback", "writer", "v0", "--store", "models"], None, "E_"),
    (["config", "show", "c.yaml", "--set", "traim.r=1"], 2, "E_CONFIG_KEY"),
]


@pytest.mark.parametrize(("args", "code", "name"), BAD, ids=[" ".join(a) for a, _, _ in BAD])
def test_bad_input_gives_code_place_and_fix(project, args, code, name, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (project / "bad.yaml").write_text("prepare:\n  source: x\n  mode2: y\n")
    (project / "bad.jsonl").write_text('{"prompt": "a"\n')
    (project / "damaged").mkdir(exist_ok=True)
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (project / "damaged" / file).write_text("{}")
    (project / "fresh.yaml").write_text("name: fresh\nprepare:\n  source: x\n")
    returned = main(args)
    assert returned == code if code else returned not in (0, 1, 70)
    printed = capsys.readouterr()
    # before an error stands at most what the stage has said: times and indented lines
    lines = [x for x in printed.err.splitlines() if not re.match(r"\d\d:\d\d:\d\d | {9}", x)]
    assert lines[0].startswith(f"ERROR {name}"), printed.err
    assert lines[1].startswith("where: ")
    assert lines[2].startswith("fix: ")
    assert "Traceback" not in printed.err
    assert printed.out == "" or args[0] == "check"


@pytest.mark.faults
def test_stopped_while_it_trains_it_goes_on(project, tmp_path):
    """Ctrl-C to the command itself; every other way to stop is in tests/faults."""
    config = yaml.safe_load((project / "c.yaml").read_text()) | {
        "output_dir": str(tmp_path / "run")
    }
    config["model"] = {"model_name_or_path": str(make_base(tmp_path / "base"))}
    config["train"] |= {"max_steps": 60, "eval_steps": 30, "sample_prompts": 0}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "tunewright", "run", "c.yaml", "--until", "train"],
        cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run = tmp_path / "run"
    metrics = run / "training" / "metrics.jsonl"
    with process:
        assert process.stderr is not None
        while not (metrics.exists() and '"loss"' in metrics.read_text()):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(30) == 130
    assert "Traceback" not in rest
    assert not (run / "adapter").exists()
    for name in ("dataset", "check", "plan"):
        assert (run / name / "manifest.json").is_file()
    assert not list(run.glob(".tmp-*"))
    done = here("run", "c.yaml", "--until", "train", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(run.glob(".tmp-*"))
    assert json.loads(done.stdout)["stages"][0]["skipped"]
    assert re.search(r"Going on after step \d+ of 60", done.stderr)
    log = (run / "logs" / "run.log").read_text()
    assert re.search(r" stopped  run --until train by \w+\n", log)
    assert re.search(r" failed   train after [\d.]+ s", log)
    assert re.search(r" note     Going on after step \d+ of 60", log)


def test_no_space_is_told_before_training(project, tmp_path, monkeypatch):
    """A file system of 2 MB: the plan refuses, with what is needed and what is there."""
    small = type(shutil.disk_usage(tmp_path))(9, 9, 2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: small)
    done = here("run", "c.yaml", "--set", f"output_dir={tmp_path / 'r'}", cwd=project)
    assert done.returncode == 5
    assert "ERROR E_DISK_SPACE" in done.stderr
    assert "MB are needed and 2 MB are free" in done.stderr


def test_an_overfitted_run_is_not_published_but_reported(project, tmp_path, manuscript):
    """Twenty rows for eighteen epochs, no early stopping: the verdict is overfitted and publishing refuses."""
    (tmp_path / "few").mkdir()
    for file in sorted(manuscript.glob("*.txt"))[:5]:
        (tmp_path / "few" / file.name).write_text(file.read_text(encoding="utf-8")[:1700])
    config = yaml.safe_load((project / "c.yaml").read_text())
    config["output_dir"] = str(tmp_path / "run")
    config["prepare"]["source"] = "few"
    config["model"]["model_name_or_path"] = "tunewright/tiny"
    config["train"] |= {
        "num_train_epochs": 18,
        "learning_rate": 6e-3,
        "sample_prompts": 0,
        "early_stopping_patience": None,
        "eval_steps": 10_000,
        "lora": {"r": 16, "lora_alpha": 32},
    }
    config["compare"] |= {"prompts": [], "max_new_tokens": 60}
    config["export"] = {"quantization": ["Q8_0"]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    done = here("run", "c.yaml", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "ERROR E_GATE_VERDICT" in done.stderr
    asked = json.loads((tmp_path / "run" / "decisions.json").read_text())
    assert ("verdict", "continue", "default") in [
        (row["subject"], row["answer"], row["by"]) for row in asked
    ]
    found = json.loads((tmp_path / "run" / "evaluation" / "manifest.json").read_text())["facts"]
    dataset = json.loads((tmp_path / "run" / "dataset" / "manifest.json").read_text())["facts"]
    assert 18 <= dataset["train_rows"] <= 24
    assert found["verdict"] == "overfitted"
    failed = {gate["gate"] for gate in found["gates"] if not gate["passed"]}
    assert "held-out loss while the training loss fell" in failed
    assert "word 8-grams of the answers found in training text" in failed
    assert "fewer epochs" in found["advice"]
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").glob("*/*/v*"))
    assert (tmp_path / "run" / "report" / "report.html").is_file()
    forced = here("publish", "run", "--force", cwd=tmp_path)
    assert forced.returncode == 0, forced.stderr
