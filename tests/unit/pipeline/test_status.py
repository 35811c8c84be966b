"""How a run stands: done, missing, outdated and why, running, interrupted, refused; several runs a line each."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunewright.cli import main
from tunewright.pipeline import STAGES, run
from tunewright.pipeline.announcing import announced, running
from tunewright.pipeline.status import as_json, status, statuses
from tunewright.train.journal import line_of


def states(config) -> dict[str, str]:
    return {one.stage: one.state for one in status(config, "c.yaml").stages}


def test_from_nothing_to_all_of_it(fakes, configured):
    config = configured()
    empty = status(config, "c.yaml")
    assert {one.state for one in empty.stages} == {"missing"}
    assert empty.next == "tunewright run c.yaml"
    assert not Path(config.run_dir).exists()
    run(config, until="train")
    half = status(config, "my run.yaml")
    assert [one.stage for one in half.stages if one.state == "done"] == [*STAGES[:4]]
    assert half.next == "tunewright run 'my run.yaml'"
    run(config)
    whole = status(config, "c.yaml")
    assert {one.state for one in whole.stages} == {"done"}
    assert whole.next == f"tunewright chat {config.run_dir}"
    assert whole.verdict == "improved"
    merged = whole.stages[STAGES.index("merge")]
    assert (merged.gates_passed, merged.gates) == (1, 1)
    assert merged.size_bytes == sum(
        f.stat().st_size for f in Path(config.run_dir, "merged").iterdir()
    )
    assert merged.seconds is not None
    assert merged.created.startswith("20")


def test_what_is_outdated_says_why_and_what_follows_it(fakes, configured):
    run(configured())
    config = configured("merge.max_mean_kl=0.002")
    found = {one.stage: one for one in status(config, "c.yaml").stages}
    assert found["merge"].state == "outdated"
    assert found["merge"].reasons == ("merge.max_mean_kl changed",)
    assert found["export"].reasons == ("its merged model is to be made first",)
    assert found["compare"].state == "done"
    shutil.rmtree(Path(config.run_dir) / "merged")
    assert states(configured())["merge"] == "missing"
    assert states(configured())["export"] == "outdated"


def test_a_publication_that_gates_refuse(fakes, configured):
    fakes.facts["compare"] = {"verdict": "overfitted", "sentence": "It copies."}
    fakes.broken["publish"] = "E_GATE_VERDICT"
    with pytest.raises(Exception, match="E_GATE_VERDICT"):
        run(configured())
    found = status(configured(), "c.yaml")
    assert states(configured())["publish"] == "refused"
    assert found.stages[-2].reasons == ("The verdict is overfitted: It copies",)
    assert found.next == f"tunewright report {configured().run_dir}"


def test_an_interrupted_training(fakes, configured):
    config = configured()
    run(config, until="plan")
    folder = Path(config.run_dir) / "training"
    folder.mkdir()
    progress = {"step": 3, "steps": 9, "seconds": 1.0, "time": time.time()}
    (folder / "progress.jsonl").write_bytes(line_of(progress))
    found = {one.stage: one for one in status(config, "c.yaml").stages}
    assert found["train"].state == "interrupted"
    assert found["train"].reasons == ("stopped at step 3 of 9",)


def test_the_process_that_runs_is_named(fakes, configured):
    config = configured()
    run(config, until="train")
    with announced(Path(config.run_dir), "compare"):
        found = status(config, "c.yaml")
    (busy,) = (one for one in found.stages if one.state == "running")
    assert (busy.stage, busy.process.pid) == ("compare", os.getpid())
    assert found.next is None
    assert json.loads(json.dumps(as_json(found)))["stages"][4]["process"]["stage"] == "compare"
    with announced(Path(config.run_dir), "train"):
        assert status(config, "c.yaml").next == f"tunewright watch {config.run_dir}"


def test_a_dead_process_does_nothing(tmp_path):
    """Killed, it could take nothing back; the system has freed its lock."""
    code = (
        "import os, sys, signal, pathlib; from tunewright.pipeline.announcing import announced\n"
        "with announced(pathlib.Path(sys.argv[1]), 'merge'): print('on', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        process.stdout.readline()
        (one,) = running(tmp_path)
        assert (one.stage, one.pid) == ("merge", process.pid)
        process.kill()
    assert running(tmp_path) == []
    assert list(tmp_path.glob(".running-*"))
    with announced(tmp_path, "export"):
        assert [one.stage for one in running(tmp_path)] == ["export"]
    assert not list(tmp_path.glob(".running-*"))


@pytest.mark.parametrize("text", ["", "[]", '{"stage": 1}', '{"stage": "x", "pid": "y"}'])
def test_a_damaged_announcement_is_none(tmp_path, text):
    (tmp_path / ".running-1.json").write_text(text)
    assert running(tmp_path) == []


def test_several_runs_a_line_each(fakes, configured, tmp_path, capsys):
    config = configured()
    run(config)
    other = config.model_copy(update={"output_dir": str(tmp_path / "second")})
    run(other, until="train")
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "run.yaml").write_text("prepare: {source: x, nonsense: 1}\n")
    found = statuses(tmp_path)
    assert [Path(one.run).name for one in found] == ["run", "second", "third"]
    assert found[2].fault == "'prepare.nonsense' is not an option."
    assert main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "9 of 9" in out
    assert "missing: compare" in out
    assert "is not an option" in out
    assert main(["status", str(tmp_path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 3


def test_the_table_and_its_json(fakes, configured, tmp_path, capsys):
    run(configured())
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert main(["status", str(tmp_path / "c.yaml")]) == 0
    out = capsys.readouterr().out
    assert "prepare is outdated: rows.jsonl changed." in out
    assert f"Next: tunewright run {tmp_path / 'c.yaml'}" in out
    assert main(["status", configured().run_dir, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stages"][0]["reasons"] == ["rows.jsonl changed"]
    assert found["stages"][4]["state"] == "outdated"
    assert main(["status", str(tmp_path / "none")]) == 2


def test_looking_writes_nothing(fakes, configured, tmp_path):
    run(configured())

    def files():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = files()
    status(configured("seed=2"), "c.yaml")
    assert files() == before
