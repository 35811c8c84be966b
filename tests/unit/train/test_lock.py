"""One process trains in a folder."""

import json
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tunewright.errors import TunewrightError
from tunewright.train import _process, lock
from tunewright.train.lock import holder, only_one

TAKES_PROC = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.05)


@contextmanager
def process(body: Callable[[Callable[[bytes], object]], None]) -> Generator[tuple[int, bytes]]:
    """Give a forked process and what it says first; it is killed at the end."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            body(lambda text: os.write(writer, text))
        finally:
            os._exit(1)
    os.close(writer)
    try:
        yield pid, os.read(reader, 100)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def refusal(folder: Path) -> TunewrightError:
    with pytest.raises(TunewrightError) as caught, only_one(folder):
        pass
    return caught.value


def test_held_while_the_block_runs_and_free_after(tmp_path):
    folder = tmp_path / "new" / "training"
    with only_one(folder):
        known = holder(folder)
        assert known is not None
        assert (known.pid, known.host) == (os.getpid(), socket.gethostname())
        error = refusal(folder)
        assert (error.problems[0].code, error.exit_code) == ("E_RUN_LOCKED", 6)
        assert holder(folder) == known
    assert holder(folder) is None
    with pytest.raises(ZeroDivisionError), only_one(folder):
        raise ZeroDivisionError
    with only_one(folder):
        assert holder(folder) is not None
    assert [p.name for p in folder.iterdir()] == [".lock"]


@TAKES_PROC
def test_the_second_of_two_is_told_who_holds_it_and_a_killed_one_holds_nothing(
    tmp_path, monkeypatch
):
    def hold(say):
        with only_one(tmp_path):
            say(b"held")
            time.sleep(60)

    with process(hold) as (pid, said):
        assert said == b"held"
        known = holder(tmp_path)
        assert known is not None
        (problem,) = refusal(tmp_path).problems
        for part in (str(pid), socket.gethostname(), known.since):
            assert part in problem.message
        assert problem.where == str(tmp_path)
        # A stopped process still holds it.
        os.kill(pid, signal.SIGSTOP)
        assert refusal(tmp_path).exit_code == 6
        os.kill(pid, signal.SIGKILL)
        # Not yet waited for: its number is still taken.
        deadline = time.monotonic() + 5
        while holder(tmp_path) is not None:
            assert time.monotonic() < deadline
        assert (tmp_path / "lock.json").is_file()
        # On a busy machine its end, which lets go of the lock, takes a moment.
        monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 10)
        with only_one(tmp_path):
            now = holder(tmp_path)
            assert now is not None
            assert now.pid == os.getpid()


@TAKES_PROC
def test_children_of_a_killed_process_do_not_hold_it(tmp_path, monkeypatch):
    def hold(say):
        with only_one(tmp_path):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            say(str(child).encode())
            time.sleep(60)

    with process(hold) as (pid, said):
        try:
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 5
            while holder(tmp_path) is not None:
                assert time.monotonic() < deadline
            # A child lets go of the lock as it starts, which on a busy machine takes a moment.
            monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 10)
            with only_one(tmp_path):
                pass
        finally:
            os.kill(int(said), signal.SIGKILL)


@TAKES_PROC
def test_of_many_that_start_at_once_one_goes_on(tmp_path):
    results = []

    def start(say):
        try:
            with only_one(tmp_path):
                say(b"1")
                time.sleep(60)
        except TunewrightError:
            say(b"0")

    with process(start) as (_, a), process(start) as (_, b), process(start) as (_, c):
        results = [a, b, c]
    assert sorted(results) == [b"0", b"0", b"1"]


def test_nobody_where_the_record_is_that_of_another_boot_process_or_none(tmp_path):
    file = tmp_path / "lock.json"
    assert holder(tmp_path) is None
    with only_one(tmp_path):
        good = json.loads(file.read_text())
    file.write_text(json.dumps(good))
    assert holder(tmp_path) is not None
    for change in (
        {"boot_id": "another"},
        {"process_start": "1"},
        {"pid": 2**22 + 1},
    ):
        file.write_text(json.dumps(good | change))
        assert holder(tmp_path) is None, change
    # Nothing can be said of a process of another machine.
    file.write_text(json.dumps(good | {"host": "elsewhere", "pid": 2**22 + 1}))
    known = holder(tmp_path)
    assert known is not None
    assert known.host == "elsewhere"
    for raw in (b"", b"{", b"[]", b"3", b"\xff", b"{}", b'{"pid": "x"}', b'{"pid": null}'):
        file.write_bytes(raw)
        assert holder(tmp_path) is None, raw
    # A record without a lock keeps nobody out.
    file.write_text(json.dumps(good))
    with only_one(tmp_path):
        pass
    assert not file.exists()


def test_a_lock_without_a_record_is_told_without_names(tmp_path):
    with only_one(tmp_path):
        (tmp_path / "lock.json").unlink()
        assert "Another process" in str(refusal(tmp_path))


def test_what_the_system_refuses_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    error = refusal(tmp_path / "file" / "training")
    assert (error.problems[0].code, error.exit_code) == ("E_IO", 5)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    assert refusal(tmp_path).problems[0].code == "E_IO"
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "file"]
    with only_one(tmp_path):
        pass


@TAKES_PROC
def test_the_start_of_a_process_tells_it_from_another(tmp_path):
    own = _process.start_of(os.getpid())
    assert own
    assert own == _process.start_of(os.getpid())
    assert _process.start_of(2**22 + 1) is None

    def rename_and_wait(say):
        Path("/proc/self/comm").write_text("a) Z (b")
        say(b"x")
        time.sleep(60)

    with process(rename_and_wait) as (pid, _):
        started = _process.start_of(pid)
        assert started
        assert int(started) >= int(own)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while _process.start_of(pid) is not None:
            assert time.monotonic() < deadline


def test_the_start_of_a_process_where_there_is_no_proc(monkeypatch):
    real = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda path: real(path) and not str(path).startswith("/proc")
    )
    own = _process.start_of(os.getpid())
    assert own
    assert own == _process.start_of(os.getpid())
    assert _process.start_of(2**22 + 1) is None
