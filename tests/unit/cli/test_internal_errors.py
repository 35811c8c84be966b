"""An error that is ours: one block on the screen, the trace in the run folder."""

import re
import sys
from pathlib import Path

import pytest

from tunewright.cli import main
from tunewright.pipeline import steps

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7xY9zA1cD3e"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    Path("c.yaml").write_text("name: mine\nprepare: {source: rows.jsonl}\n")

    def broken(*args, **kwargs):
        raise ZeroDivisionError(f"with {TOKEN}")

    monkeypatch.setattr(steps, "prepare", broken)
    return "c.yaml"


def test_the_trace_goes_into_the_run_folder_without_tokens(config, capsys):
    assert main(["run", config]) == 70
    said = capsys.readouterr().err
    assert said.splitlines()[-3].startswith("ERROR E_INTERNAL: ZeroDivisionError")
    assert "Traceback" not in said
    (log,) = Path("runs/mine/logs").glob("tunewright-*.log")
    assert f"where: {log}" in said
    trace = log.read_text()
    assert "Traceback" in trace
    assert "in broken" in trace
    lines = Path("runs/mine/logs/run.log").read_text()
    assert "E_INTERNAL: ZeroDivisionError" in lines
    assert TOKEN not in trace + said + lines


def test_colours_do_not_cut_a_token_into_pieces_that_pass(config, monkeypatch, capsys):
    """S10: what a terminal shows, its colours taken away again."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["run", config]) == 70
    shown = "".join(capsys.readouterr())
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "ERROR E_INTERNAL: ZeroDivisionError" in plain
    assert TOKEN[8:20] not in plain


def test_where_there_is_no_run_it_goes_elsewhere(monkeypatch, capsys, tmp_path):
    def broken(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["tunewright.cli"].cli, "main", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["run", "none.yaml"]) == 70
    (log,) = tmp_path.iterdir()
    assert f"where: {log}" in capsys.readouterr().err
