"""The long form of test_training.py, for `make faults`: every point of a run, and five hundred random kills."""

import random
import shutil

import pytest
from faults.harness import Case, Fault, Forks
from faults.training import make, result, train_in

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def whole(root, forks: Forks):
    run = root / "whole"
    done = forks.run(Case(train_in, (root, run), under=run))
    assert done.code == 0, done.stderr
    return result(run), done.calls


def require_finished(forks, root, run, wanted):
    done = forks.run(Case(train_in, (root, run)))
    assert done.code == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert result(run) == wanted
    shutil.rmtree(run)


def test_killed_once_at_every_call_to_the_system(root, whole, forks, tmp_path):
    """K1, K2, K4: each place of the whole run where a file changes, in a run of its own."""
    wanted, calls = whole
    run = tmp_path / "run"
    for point in range(len(calls)):
        shutil.copytree(root / "run" / "dataset", run / "dataset")
        killed = forks.run(Case(train_in, (root, run), under=run, fault=Fault(point)))
        assert killed.was_killed, (point, killed.stderr)
        require_finished(forks, root, run, wanted)


def test_five_hundred_kills_at_random_times(root, whole, forks, tmp_path):
    """Ten kills a run, fifty runs: all of them end with the same bytes."""
    chosen = random.Random(11)
    for number in range(50):
        run = tmp_path / f"run{number}"
        for _ in range(10):
            forks.run(Case(train_in, (root, run), kill_after_s=chosen.uniform(0.1, 3.0)))
        require_finished(forks, root, run, whole[0])
