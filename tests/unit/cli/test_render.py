"""What a user reads: names of stages, the next command, lines that a narrow terminal can hold."""

from pathlib import Path

import pytest
from rich.console import Console

from tunewright.artifacts import Artifact
from tunewright.cli import lines, main, render
from tunewright.cli.progress import Lines
from tunewright.recipes import bases

GATE = {"gate": "held-out loss", "value": "1.2", "limit": "lower than before", "passed": True}


def made(kind, **facts):
    return Artifact(kind, Path("runs/faq") / kind, "k", "d", {}, facts, {}, "now")


def test_a_stage_has_one_name_and_is_followed_by_the_next(capsys):
    render.artifact(made("adapter", gates=[GATE]), as_json=False)
    out = capsys.readouterr().out
    assert "train" in out.splitlines()[1].split()
    assert out.endswith("adapter: runs/faq/adapter\nNext: tunewright compare runs/faq\n")


@pytest.mark.parametrize(
    "facts", [{"gates": [GATE | {"passed": False}]}, {"verdict": "overfitted"}]
)
def test_nothing_follows_what_has_failed(facts, capsys):
    render.artifact(made("evaluation", **facts), as_json=False)
    assert "Next" not in capsys.readouterr().out


def test_a_narrow_terminal_gets_gates_as_a_list(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    render.artifact(made("adapter", gates=[GATE]), as_json=False)
    assert "✓ train: held-out loss: 1.2, limit" in capsys.readouterr().out


def test_a_terminal_breaks_prose_between_words_and_no_path(capsys):
    path = "runs/" + "long-name/" * 5 + "adapter"
    text = f"One sentence that is longer than the terminal is wide, and {path} in it."
    console = Console(width=30, force_terminal=True)
    lines.print_prose(console, text)
    lines.print_line(console, path)
    *prose, last = capsys.readouterr().out.splitlines()
    assert path in prose
    assert all(len(part) <= 30 for part in prose if part != path)
    assert " ".join(prose) == text
    assert last == path
    lines.print_prose(Console(width=30), text)
    assert capsys.readouterr().out == text + "\n"


def test_rows_are_explained_and_apart(capsys):
    runs = [{"text": "Q", "learned": False}, {"text": "A", "learned": True}]
    row = {"where": "a.csv:1", "tokens_lost": 0, "runs": runs}
    render.checked({"rendered": [row, row]}, show=2)
    legend, *rest = capsys.readouterr().out.strip().splitlines()
    assert "[[double brackets]]" in legend
    assert rest == ["", "a.csv:1", "Q[[A]]"] * 2


def test_one_is_singular(capsys):
    told = Lines(Console())
    told.started("train", 1, "steps")
    told.started("export", 2, "files")
    told.started("merge", 2_500_000_000, "bytes")
    out = capsys.readouterr().out
    assert "train (1 step)\n" in out
    assert "export (2 files)\n" in out
    assert "merge (2.5 GB)\n" in out


def test_init_lists_every_base(capsys):
    assert main(["init", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(base in out for base in bases())


def test_one_option_is_suggested(capsys):
    assert main(["check", "rows.jsonl", "--onse"]) == 2
    assert capsys.readouterr().err.count("--") == 3
