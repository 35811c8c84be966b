"""The harness itself: what is killed dies where it is said to, and nothing else does."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from faults.harness import Case, Fault, command

from tunewright.errors import failure


def write(folder: Path, size: int = 10) -> None:
    folder.mkdir()
    with (folder / "new").open("wb") as stream:
        stream.write(b"x" * size)
        stream.flush()
        os.fsync(stream)
    (folder / "new").rename(folder / "done")


def refuse() -> None:
    raise failure("E_MODEL", "There is no model.", where="here")


def break_down() -> None:
    raise KeyError("ours")


def sleep() -> None:
    # In steps: a signal just before a sleep is not told until after it.
    for _ in range(600):
        time.sleep(0.1)


def sleep_together() -> None:
    os.fork()
    sleep()


def test_calls_are_seen_in_order(forks, tmp_path):
    done = forks.run(Case(write, (tmp_path / "a",), under=tmp_path))
    assert done.code == 0
    assert [call.name for call in done.calls] == ["mkdir", "open", "fsync", "rename"]
    assert done.calls[2].path == str(tmp_path / "a" / "new")
    assert not forks.run(Case(write, (tmp_path / "b",), under=tmp_path / "other")).calls


@pytest.mark.parametrize(
    ("point", "left"), [(0, None), (1, []), (2, ["new"]), (3, ["new"]), (4, ["done"])]
)
def test_a_process_is_killed_before_the_call(forks, tmp_path, point, left):
    done = forks.run(Case(write, (tmp_path / "a",), under=tmp_path, fault=Fault(point)))
    assert done.was_killed == (point < 4)
    folder = tmp_path / "a"
    assert left == (sorted(p.name for p in folder.iterdir()) if folder.exists() else None)


def test_a_call_fails(forks, tmp_path):
    fault = Fault(0, "fsync", errno.EIO)
    done = forks.run(Case(write, (tmp_path / "a",), under=tmp_path, fault=fault))
    assert done.code == 1
    assert "Input/output error" in done.stderr
    assert (tmp_path / "a" / "new").exists()


def test_no_file_grows_beyond_a_limit(forks, tmp_path):
    done = forks.run(Case(write, (tmp_path / "a", 5000), file_limit=1000))
    assert "File too large" in done.stderr
    torn = forks.run(Case(write, (tmp_path / "b", 5000), torn_at=1000))
    assert torn.was_killed
    assert not torn.stderr
    assert [(tmp_path / n / "new").stat().st_size for n in "ab"] == [1000, 1000]


def test_a_group_is_killed_in_time(forks):
    begun = time.monotonic()
    assert forks.run(Case(sleep_together, kill_after_s=0.2)).code == -signal.SIGKILL
    assert time.monotonic() - begun < 5
    child = forks.start(Case(sleep))
    child.signal(signal.SIGINT)
    assert "KeyboardInterrupt" in child.wait().stderr
    with pytest.raises(TimeoutError):
        forks.run(Case(sleep_together, timeout_s=0.2))


def test_the_contract_of_an_error_is_asserted(forks):
    refused = forks.run(Case(refuse))
    refused.require("E_MODEL")
    assert refused.problems[0][1:3] == ("There is no model.", "here")
    with pytest.raises(AssertionError):
        refused.require("E_IO")
    with pytest.raises(AssertionError, match="KeyError"):
        forks.run(Case(break_down)).require("E_IO")
    forks.run(Case(command, (["plan", "nowhere.yaml"],))).require("E_NOT_FOUND")
    assert "Usage" in forks.run(Case(command, (["--help"],))).stdout


def test_a_start_takes_milliseconds(forks, tmp_path):
    seconds = [forks.run(Case(write, (tmp_path / str(n),))).seconds for n in range(10)]
    assert min(seconds) < 0.1
