"""The long form of test_training.py, for `make faults`: every point of a run, and five hundred random kills."""

import errno
import random
import shutil

import pytest
from faults.harness import Case, Fault, Forks
from faults.training import make, result, train_in

pytestmark = pytest.mark.faults

PARTS = 5
"""Of the longest cases, so that several processes can share them."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def whole(root, forks: Forks):
    run = root / "whole"
    shutil.copytree(root / "run" / "dataset", run / "dataset")
    done = forks.run(Case(train_in, (root, run), under=run))
    assert done.code == 0, done.stderr
    return result(run), done.calls


def require_finished(forks, root, run, wanted):
    done = forks.run(Case(train_in, (root, run)))
    assert done.code == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert result(run) == wanted
    shutil.rmtree(run)


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_once_at_every_call_to_the_system(root, whole, forks, tmp_path, part):
    """K1, K2, K4: each place of the whole run where a file changes, in a run of its own."""
    wanted, calls = whole
    run = tmp_path / "run"
    for point in range(part, len(calls), PARTS):
        shutil.copytree(root / "run" / "dataset", run / "dataset")
        killed = forks.run(Case(train_in, (root, run), under=run, fault=Fault(point)))
        assert killed.was_killed, (point, killed.stderr)
        require_finished(forks, root, run, wanted)


@pytest.mark.parametrize("seed", range(PARTS))
def test_five_hundred_kills_at_random_times(root, whole, forks, tmp_path, seed):
    """Ten kills a run, ten runs for each seed: all of them end with the same bytes."""
    chosen = random.Random(seed)
    for number in range(10):
        run = tmp_path / f"run{number}"
        for _ in range(10):
            forks.run(Case(train_in, (root, run), kill_after_s=chosen.uniform(0.1, 3.0)))
        require_finished(forks, root, run, whole[0])


def test_a_full_disk_at_twenty_places(root, whole, forks, tmp_path):
    """D2. The disk fills at a save and stays full; with space again it goes on."""
    wanted, calls = whole
    run = tmp_path / "run"
    saves = run / "training" / "checkpoints"
    opened = sum(call.name == "open" and "/checkpoints/" in call.path for call in calls)
    for place in range(0, opened, -(-opened // 20)):
        full = Fault(place, "open", errno.ENOSPC, forever=True)
        stopped = forks.run(Case(train_in, (root, run), under=saves, fault=full))
        stopped.require("E_DISK_SPACE")
        assert not list(saves.glob(".tmp-*"))
        require_finished(forks, root, run, wanted)


def test_files_that_may_not_grow_at_twenty_sizes(root, whole, forks, tmp_path):
    """D3. Up to just too little for the largest file; one run, so each goes on where the last one stopped."""
    run = tmp_path / "run"
    shutil.copytree(root / "run" / "dataset", run / "dataset")
    largest = max(p.stat().st_size for p in (root / "whole").rglob("*") if p.is_file())
    for n in range(20):
        stopped = forks.run(Case(train_in, (root, run), file_limit=(largest - 1) * n // 19))
        stopped.require("E_IO")
    require_finished(forks, root, run, whole[0])
