"""The docs say what the code does: reference current, examples run, every code and option documented."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import ROOT, SAMPLES, SMALL

from tunewright.cli import main
from tunewright.cli.commands import cli
from tunewright.config.load import load_config
from tunewright.errors import CODES

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
FENCE = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The guides' own lengths stay: whether their rows fit is part of what is tested.
QUICK = [option for option in SMALL if not option.startswith(("prepare.", "train.max_length"))]
TAKES_CONFIG = {"run", "prepare", "check", "plan", "train", "compare", "merge", "export"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return kind and text of each block; the title of a file is its first line."""
    return [
        (kind, f"# {title}\n{body}" if title else body)
        for kind, title, body in FENCE.findall(page.read_text())
    ]


def commands_in(page: Path) -> list[list[str]]:
    return [
        shlex.split(line[2:], comments=True)
        for kind, body in blocks(page)
        if kind == "console"
        for line in body.splitlines()
        if line.startswith("$ ")
    ]


def test_reference_is_current():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "reference.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_there_is_a_guide_for_each_kind_of_user():
    users = {"prompt-artist", "author", "platform-team", "learner"}
    data = {"from-a-manuscript", "from-storyboards", "bring-your-own-dataset"}
    assert {g.stem for g in GUIDES} == users | data


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_shown_exists(page):
    for words in commands_in(page):
        if words[0] != "tunewright":
            assert words[0] in ("make", "git", "cd", "ollama", "curl", "pip"), words
            continue
        command = cli
        for word in words[1:]:
            if not hasattr(command, "commands") or word.startswith("-"):
                break
            assert word in command.commands, f"{page.name}: {' '.join(words)}"
            command = command.commands[word]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.stem)
def test_guides_can_be_followed(page, tmp_path, monkeypatch, capfd):
    """Each guide's files are written and its commands run in order, on small settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_STORE_ROOT", raising=False)
    for kind, body in blocks(page):
        name = re.match(r"# (\S+)\n", body)
        if kind in ("jsonl", "csv", "text") and name:
            Path(name[1]).write_text(body.split("\n", 1)[1])
        if kind == "yaml" and name:
            yaml.safe_load(body)
            Path(name[1]).write_text(body)
            load_config(name[1])
    ran = 0
    for words in commands_in(page):
        if words[0] != "tunewright" or words[1] in ("chat", "serve", "demo"):
            continue
        takes_options = words[1] in TAKES_CONFIG and words[2].endswith((".yaml", ".yml"))
        extra = [f"--set={option}" for option in QUICK] if takes_options else []
        code = main([*words[1:], *extra])
        assert code == 0, f"{' '.join(words)}\n{capfd.readouterr().err}"
        ran += 1
    assert ran >= 3


def test_python_in_the_readme_runs(tmp_path):
    (code,) = [body for kind, body in blocks(ROOT / "README.md") if kind == "python"]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("plan runs/python/plan")


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
