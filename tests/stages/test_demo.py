"""The demo, and real novels."""

import json
import shutil
import time

import pytest
import yaml
from commands import here, tunewright, write_config
from support import SHARED

pytestmark = pytest.mark.slow


@pytest.mark.faults
@pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs ../shared/corpora, which a user's machine lacks"
)
def test_a_real_novel_goes_through_every_stage(tmp_path):
    """All of it is prepared and checked; a part of its rows is trained on and compared."""
    write_config(tmp_path, SHARED / "Sterne_Sentimental.txt")
    fewer = ("--set=train.max_train_samples=80", "--set=prepare.eval_split=0.05")
    done = here("run", "c.yaml", *fewer, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "small").glob("*/manifest.json"))) == 9


def test_the_demo_keeps_its_promise(tmp_path):
    start = time.monotonic()
    done = tunewright("demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 360
    stages = json.loads(done.stdout)["stages"]
    assert all(gate["passed"] for stage in stages for gate in stage["gates"])
    evaluation = json.loads((tmp_path / "runs/demo/evaluation/manifest.json").read_text())
    assert evaluation["facts"]["verdict"] == "improved"
    score = evaluation["facts"]["transfer_score"]
    assert score["score"] >= 60
    assert score["low"] > 40


@pytest.mark.faults
@pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs ../shared/corpora, which a user's machine lacks"
)
@pytest.mark.parametrize("mode", ["standalone", "continuation"])
def test_novels_are_prepared_in_both_modes(tmp_path, mode):
    """Prepare refuses what is not covered; here: windows, whole files held out, inputs that fit."""
    (tmp_path / "in").mkdir()
    for file in sorted(SHARED.glob("*.txt"), key=lambda novel: novel.stat().st_size)[:6]:
        shutil.copyfile(file, tmp_path / "in" / file.name)
    config = {"name": "n", "prepare": {"source": str(tmp_path / "in"), "mode": mode}}
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(config))
    done = here("prepare", "n.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "n" / "dataset"
    rows = {}
    sides = {"train": set(), "eval": set()}
    for side, sources in sides.items():
        for line in (folder / f"{side}.jsonl").read_text().splitlines():
            row = json.loads(line)
            rows[row["source"], row["chunk"]] = row
            sources.add(row["source"])
    assert len(sides["train"] | sides["eval"]) == 6
    assert not sides["train"] & sides["eval"]
    assert json.loads((folder / "manifest.json").read_text())["facts"]["lengths"]["max"] <= 2000
    for (source, chunk), row in rows.items():
        before = rows.get((source, chunk - 1))
        wanted = before["output"] if mode == "continuation" and before else ""
        assert row["input"] == wanted
