"""The docs say what the code does: reference current, examples run, every code and option documented.

A `console` block is run; a `shell` block is what needs a GPU, a network or several machines: its commands
and options are looked up, and not run. In a console block `^C` below a command stops it while it trains, and a
command with `# exit code 1` behind it ends with that.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest
import yaml
from support import ROOT, SAMPLES, SMALL, shallow_base

from tunewright.cli import main
from tunewright.cli.commands import cli
from tunewright.config.load import load_config
from tunewright.config.team import has_agents, load_team
from tunewright.errors import CODES
from tunewright.evaluate import _losses
from tunewright.evaluate.neutral import neutral_texts
from tunewright.export import _proof

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RUN_ELSEWHERE = ROOT / "docs" / "reference" / "errors"
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
FENCE = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The guides' own lengths stay: whether their rows fit is part of what is tested. So do evaluations, and with
# them checkpoints: a guide names one.
LEFT_OUT = ("prepare.", "train.max_length", "train.eval_steps")
QUICK = [option for option in SMALL if not option.startswith(LEFT_OUT)]
QUICK += ["train.max_train_samples=40", "train.max_eval_samples=8", "train.save_total_limit=2"]
# Of six answers one that is empty by chance is a degraded model.
QUICK += ["compare.num_prompts=20", "compare.batch_size=20", "compare.max_new_tokens=16"]
QUICK += ["export.quantization=[Q8_0]"]
TAKES_CONFIG = {
    *(
        "run",
        "prepare",
        "check",
        "plan",
        "train",
        "compare",
        "merge",
        "export",
        "publish",
        "push",
        "report",
    ),
}
STOPPED, FAILS = "^C", "# exit code 1"
OTHERS = {
    *("make", "git", "cd", "ollama", "curl", "pip", "source", "ssh", "tmux", "nvidia-smi"),
    *("accelerate", "torchrun", "tensorboard", "trackio", "vllm", "wandb"),
}
"""Programs of others that the pages name."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return kind and text of each block; the title of a file is its first line."""
    return [
        (kind, f"# {title}\n{body}" if title else body)
        for kind, title, body in FENCE.findall(page.read_text())
    ]


def commands_in(page: Path, *kinds: str) -> list[list[str]]:
    """Return the words of each command; the last word of one that is stopped is `^C`."""
    found: list[list[str]] = []
    for kind, body in blocks(page):
        for line in body.splitlines() if kind in kinds else ():
            if line.startswith("$ "):
                found.append(shlex.split(line[2:], comments=True))
                found[-1] += [FAILS] if line.endswith(FAILS) else []
            elif line == STOPPED:
                found[-1].append(STOPPED)
    return found


def test_reference_is_current():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "reference.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_there_is_a_guide_for_each_kind_of_user():
    users = {"prompt-artist", "author", "many-agents-one-base", "learner"}
    data = {"from-a-manuscript", "from-storyboards", "bring-your-own-dataset"}
    others = {"coming-from-elsewhere", "serve-with-vllm"}
    results = {"read-the-verdict", "measure-a-voice", "rubrics-for-video-prompts"}
    results |= {"which-quantisation", "push-to-the-hub"}
    training = {
        *("train-on-one-gpu", "train-on-a-cpu", "several-gpus"),
        *("when-memory-runs-out", "stop-and-resume"),
    }
    assert {g.stem for g in GUIDES} >= users | data | others | training | results


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent != RUN_ELSEWHERE], ids=lambda p: p.name
)
def test_every_command_shown_exists(page):
    for words in commands_in(page, "console", "shell"):
        program = next(word for word in words if "=" not in word)
        assert program in OTHERS | {"tunewright"}, words
        if "tunewright" not in words:
            continue
        own = words[words.index("tunewright") + 1 :]
        command: click.Command = cli
        while own and isinstance(command, click.Group) and not own[0].startswith("-"):
            assert own[0] in command.commands, f"{page.name}: {' '.join(words)}"
            command = command.commands[own.pop(0)]
        known = {name for option in command.params for name in option.opts + option.secondary_opts}
        given = {word.partition("=")[0].replace("_", "-") for word in own if word.startswith("--")}
        assert given <= known | {"--help", "--version", "--debug"}, f"{page.name}: {given - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="session")
def quick(tmp_path_factory) -> list[str]:
    """Return the options that make a guide's commands quick."""
    base = shallow_base(tmp_path_factory.mktemp("base"))
    return [f"--set={option}" for option in (*QUICK, f"model.model_name_or_path={base}")]


@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.stem)
def test_guides_can_be_followed(page, quick, tmp_path, monkeypatch, capfd):
    """Each guide's files are written and its commands run in order, on small settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_STORE_ROOT", raising=False)
    monkeypatch.setattr(_proof, "POSITIONS", 16)
    few = neutral_texts()[:12]
    monkeypatch.setattr(_losses, "neutral_texts", lambda: few)
    monkeypatch.setattr(_losses, "MAX_TRAINING_ROWS", 10)
    for kind, body in blocks(page):
        name = re.match(r"# (\S+)\n", body)
        if kind in ("jsonl", "csv", "text") and name:
            Path(name[1]).write_text(body.split("\n", 1)[1])
        if kind == "yaml" and name:
            yaml.safe_load(body)
            Path(name[1]).write_text(body)
            _ = load_team(name[1]) if has_agents(name[1]) else load_config(name[1], note=len)
    ran = 0
    for words in commands_in(page, "console"):
        if words[0] == "cd":
            monkeypatch.chdir(words[1])
        if words[0] != "tunewright" or words[1] in ("chat", "serve", "demo"):
            continue
        stopped = words[-1] == STOPPED
        if stopped:
            threading.Thread(target=press_ctrl_c, daemon=True).start()
        takes_options = words[1] in TAKES_CONFIG and words[2].endswith((".yaml", ".yml"))
        # What the page itself sets comes last, and holds.
        extra = quick if takes_options else []
        fails = words[-1] == FAILS
        given = words[1:-1] if stopped or fails else words[1:]
        code = main([*given[:2], *extra, *given[2:]])
        expected = 130 if stopped else int(fails)
        assert code == expected, f"{' '.join(words)}\n{capfd.readouterr().err}"
        ran += 1
    assert ran >= 2


def press_ctrl_c() -> None:
    """Stop the training of this process once its third step is done."""
    for _ in range(1200):
        for lock in Path("runs").glob("*/training/lock.json"):
            metrics = lock.with_name("metrics.jsonl")
            if metrics.is_file() and '"step": 3,' in metrics.read_text():
                os.kill(os.getpid(), signal.SIGINT)
                return
        time.sleep(0.05)


def test_python_in_the_readme_runs(tmp_path, monkeypatch, capfd):
    (code,) = [body for kind, body in blocks(ROOT / "README.md") if kind == "python"]
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "__main__"})
    assert capfd.readouterr().out.splitlines()[-1].startswith("plan runs/python/plan")


def test_every_error_code_raised_is_documented_and_every_documented_one_raised():
    code = "\n".join(p.read_text() for p in (ROOT / "src").rglob("*.py") if p.name != "errors.py")
    raised = set(re.findall(r'"(E_[A-Z_]+)"', code))
    assert raised == set(CODES)


def test_readme_has_no_gap_and_samples_are_what_they_are_said_to_be():
    assert "@@" not in (ROOT / "README.md").read_text()
    words = sum(len(p.read_text().split()) for p in (SAMPLES / "manuscript").glob("*.txt"))
    assert words >= 10_000
    assert len(list((SAMPLES / "manuscript").glob("*.txt"))) >= 20
    assert len(list((SAMPLES / "storyboards").iterdir())) >= 12
    for agent in ("critic", "synthesizer"):
        assert len((SAMPLES / "agents" / f"{agent}.jsonl").read_text().splitlines()) == 80
    assert len((SAMPLES / "shell-helper.jsonl").read_text().splitlines()) == 120


CASE = re.compile(r"^\| ([A-Z]\d+) \| [^|]+ \| `(\S+)::(\w+)` \|", re.MULTILINE)
NUMBERS = {"K": 11, "C": 7, "D": 6, "T": 11, "S": 11}


def test_every_case_of_the_faults_names_a_test_that_is_there():
    found = CASE.findall((ROOT / "docs" / "reliability.md").read_text())
    wanted = [f"{kind}{n + 1}" for kind, count in NUMBERS.items() for n in range(count)]
    assert [case for case, _, _ in found] == [*wanted, "W11"]
    for case, file, test in found:
        assert f"def {test}(" in (ROOT / file).read_text(), case
