"""`run`: its flags, and its questions at a terminal and elsewhere."""

import io
import json
import sys
from pathlib import Path

import fake_stages
import pytest
import yaml
from fake_stages import WARNINGS

from tunewright.cli import asking, main
from tunewright.events import SILENT
from tunewright.pipeline import SAFE


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    Path("rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    Path("c.yaml").write_text("name: mine\nprepare: {source: rows.jsonl}\n")
    return fake_stages.install(monkeypatch)


def decisions() -> list[tuple[str, str, str]]:
    rows = json.loads(Path("runs/mine/decisions.json").read_text())
    return [(row["subject"], row["answer"], row["by"]) for row in rows]


def test_a_user_is_asked_and_what_he_says_is_done(fakes, typed):
    fakes.facts |= {"check": WARNINGS, "compare": {"verdict": "undecided"}}
    screen = typed("perhaps", "continue", "stop")
    assert main(["run", "c.yaml"]) == 1
    said = screen.getvalue()
    assert "W_CUT, 2 times: Cut." in said
    assert "stop: stop here, and look at the data" in said
    assert "'perhaps' is not one of 'continue', 'stop'" in said
    assert "ERROR E_STOPPED: Stopped before 'merge'. The verdict is undecided." in said
    assert decisions() == [("warnings", "continue", "user"), ("verdict", "stop", "user")]
    assert "merge" not in fakes.taken()
    # Enter alone is the safe answer; what was answered about the data holds.
    typed("")
    assert main(["run", "c.yaml"]) == 0
    assert decisions()[2:] == [("verdict", "continue", "user")]
    assert "prepare" not in fakes.taken()


def test_ctrl_d_at_a_question_ends_as_an_interrupt(fakes, typed):
    fakes.facts["check"] = WARNINGS
    typed()
    assert main(["run", "c.yaml"]) == 130
    assert "train" not in fakes.taken()


@pytest.mark.parametrize("args", [["--yes"], ["--json"], ["--on-warnings", "continue"]])
def test_flags_keep_it_from_asking(fakes, typed, args):
    fakes.facts["check"] = WARNINGS
    screen = typed()
    assert main(["run", "c.yaml", *args]) == 0
    assert "Enter" not in screen.getvalue()
    assert decisions() == [
        ("warnings", "continue", "flag" if "--on-warnings" in args else "default")
    ]


def test_nobody_is_asked_in_ci_or_without_a_terminal(fakes, typed, monkeypatch):
    typed()
    assert asking.decider(SILENT, silent=False) is not SAFE
    assert asking.decider(SILENT, silent=True) is SAFE
    monkeypatch.setenv("CI", "true")
    assert asking.decider(SILENT, silent=False) is SAFE
    monkeypatch.delenv("CI")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert asking.decider(SILENT, silent=False) is SAFE
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert asking.decider(SILENT, silent=False) is SAFE


def test_stop_by_flag_in_a_job(fakes, capsys):
    fakes.facts |= {"check": WARNINGS, "compare": {"verdict": "degraded"}}
    assert main(["run", "c.yaml", "--on-warnings", "stop", "--json"]) == 1
    assert fakes.taken().keys() == {"prepare", "check", "report"}
    assert '"code": "E_STOPPED"' in capsys.readouterr().out
    assert main(["run", "c.yaml", "--on-verdict", "stop"]) == 1
    assert not fakes.taken().keys() & {"merge", "export", "publish"}
    assert "fix: " in capsys.readouterr().err


def test_a_dry_run_tells_and_does_nothing(fakes, capsys):
    assert main(["run", "c.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["prepare", "do"]
    assert not Path("runs").exists()
    main(["run", "c.yaml", "--until", "merge"])
    fakes.taken()
    capsys.readouterr()
    changed = ["--set", "merge.max_mean_kl=0.002"]
    assert main(["run", "c.yaml", "--dry-run", *changed, "--until", "merge"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prepare  skip (nothing changed)"
    assert lines[-1] == "merge    do again, because: merge.max_mean_kl changed"
    assert main(["run", "c.yaml", "--dry-run", "--from", "train", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["stages"]
    assert rows[0] == {"stage": "train", "would": "again", "because": ["it was asked for"]}
    assert rows[-1] == {"stage": "report", "would": "do", "because": []}
    assert fakes.taken() == {}


def test_each_line_says_what_became_of_a_stage(fakes, capsys):
    main(["run", "c.yaml", "--until", "plan"])
    assert "prepare: done in 0." in capsys.readouterr().err
    main(["run", "c.yaml", "--until", "plan", "--set", "train.learning_rate=1e-4"])
    said = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert said[0] == "prepare: skipped (nothing changed)"
    assert said[-2] == "plan: again, because: train.learning_rate changed"
    assert said[-1].startswith("plan: done in 0.")
    main(["run", "c.yaml", "--only", "plan,prepare", "--json"])
    rows = json.loads(capsys.readouterr().out)["stages"]
    assert [(row["stage"], row["because"]) for row in rows] == [
        ("prepare", ["it was asked for"]), ("plan", ["it was asked for"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        ["--only", "merge", "--until", "merge"],
        ["--only", "fly"],
        ["--from", "export", "--until", "merge"],
        ["--checkpoint", "best"],
        ["--checkpoint", "-1"],
        ["--on-verdict", "maybe"],
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_choices_that_make_no_sense(fakes, capsys, args, dry):
    assert main(["run", "c.yaml", *args, *dry]) == 2
    assert "ERROR E_USAGE" in capsys.readouterr().err
    assert fakes.taken() == {}


def test_a_named_checkpoint_is_an_option_of_the_config(fakes):
    assert main(["run", "c.yaml", "--checkpoint", "7", "--until", "merge"]) == 0
    assert "'checkpoint': 7" in Path("runs/mine/merged/made.txt").read_text()
    assert main(["run", "c.yaml", "--checkpoint", "auto", "--until", "merge"]) == 0
    assert "'checkpoint': 'auto'" in Path("runs/mine/merged/made.txt").read_text()


@pytest.mark.parametrize(
    ("file", "name"), [("My Novel.txt", "My-Novel"), ("ü.txt", "own-text"), ("a: [b.txt", "a-b")]
)
def test_the_demo_takes_a_text_of_ones_own(fakes, capsys, file, name):
    Path(file).write_text("Rain.\n" * 9)
    assert main(["demo", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == f"runs/{name}"
    assert (
        yaml.safe_load(Path("runs", name, "run.yaml").read_text())["prepare"]["source"][0]["path"]
        == file
    )


def test_the_demo_without_one_takes_the_sample(fakes):
    assert main(["demo"]) == 0
    assert "sample:manuscript" in Path("runs/demo/run.yaml").read_text()
