"""`tunewright watch` on trainings that run, are over, were killed, or never were."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tunewright.cli import main
from tunewright.config.load import dump_config
from tunewright.train.history import IDENTITY, METRICS, PROGRESS
from tunewright.train.journal import line_of
from tunewright.train.lock import only_one


@pytest.fixture
def run_dir(tmp_path, make_config):
    """A run with ten steps of a training that nobody goes on with."""
    config = make_config().model_copy(update={"output_dir": str(tmp_path / "run")})
    folder = Path(config.run_dir) / "training"
    folder.mkdir(parents=True)
    (folder.parent / "run.yaml").write_text(dump_config(config))
    rows = [{"step": step, "loss": 3 - step / 10} for step in range(1, 11)]
    (folder / METRICS).write_bytes(b"".join(map(line_of, rows)) + b'{"step": 11, "lo')
    told = [
        {"step": row["step"], "steps": 20, "seconds": 1.0 * row["step"], "time": time.time()}
        for row in rows
    ]
    (folder / PROGRESS).write_bytes(b"".join(map(line_of, told)))
    return folder.parent


def test_a_killed_training_is_shown_once_where_there_is_no_terminal(run_dir, capsys):
    assert main(["watch", str(run_dir)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"interrupted: {run_dir}, tunewright/tiny\n")
    assert "step 10 of 20 (50%)" in out
    assert "\x1b" not in out


def test_json_is_one_object_and_tells_the_process(run_dir, capsys):
    with only_one(run_dir / "training"):
        assert main(["watch", str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "running"
    assert found["process"]["pid"] == os.getpid()
    assert found["loss"] == 2.0
    assert found["unreadable_lines"] == 1


def test_a_run_that_was_only_prepared_says_what_to_type(run_dir, capsys):
    shutil.rmtree(run_dir / "training")
    assert main(["watch", str(run_dir)]) == 4
    err = capsys.readouterr().err
    assert "ERROR E_ARTIFACT_MISSING: Nothing has been trained in this run." in err
    assert "fix: Train it: tunewright train CONFIG" in err


def test_watching_writes_nothing(run_dir):
    def files():
        return {p: p.stat().st_mtime_ns for p in run_dir.rglob("*")}

    before = files()
    assert main(["watch", str(run_dir)]) == 0
    assert files() == before


def test_a_finished_training_is_shown_with_its_curves(trained, tmp_path, capsys):
    config, _, adapter = trained
    run = tmp_path / "run"
    shutil.copytree(Path(config.run_dir) / "training", run / "training")
    (run / "run.yaml").write_text(dump_config(config))
    assert json.loads((run / "training" / IDENTITY).read_text())["finished"] is True
    assert main(["watch", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert found["train_losses"] == [list(p) for p in adapter.facts["train_losses"]]
    assert found["best_eval_loss"] == adapter.facts["best_eval_loss"]
    assert found["tokens_per_second"] > 0
    assert found["samples"][-1]["answer"]


def view_in_terminal(run_dir: Path, act) -> tuple[int, str]:
    """Run `watch` in a terminal of 24 lines of 80, let `act` act on its process, return how it ended."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tunewright", "watch", str(run_dir)],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(theirs)
    output = b""
    acted = False
    try:
        # The terminal reports an error once nobody writes to it any more.
        with suppress(OSError):
            while piece := os.read(ours, 65536):
                output += piece
                if not acted and b"step 10 of 20" in output:
                    acted = True
                    act(process)
        return process.wait(timeout=20), output.decode()
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def test_ctrl_c_ends_the_view_and_not_the_training(run_dir):
    with only_one(run_dir / "training"):
        code, output = view_in_terminal(run_dir, lambda p: p.send_signal(signal.SIGINT))
    assert code == 0
    assert f"running (process {os.getpid()}" in output
    assert "The training goes on." in output
    assert "Traceback" not in output


def test_the_view_ends_with_the_training(run_dir):
    holding = only_one(run_dir / "training")
    holding.__enter__()

    def finish(_):
        (run_dir / "training" / IDENTITY).write_text('{"finished": true}')
        holding.__exit__(None, None, None)

    code, output = view_in_terminal(run_dir, finish)
    assert code == 0
    assert f"finished: {run_dir}"[:79] in output
