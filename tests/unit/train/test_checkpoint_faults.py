"""Checkpoints when the process is killed, the disk is full, or the system refuses."""

import builtins
import ctypes
import errno
import io
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from tunewright.artifacts import sha256
from tunewright.errors import TunewrightError
from tunewright.train import _checkpoints, _files
from tunewright.train._checkpoints import newest, quarantine, retain, save, scan

TAKES_FORK = pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits file sizes")
CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open", "io.open")


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    adapter = {"a": torch.full((8, 4), float(step)), "b": torch.arange(5.0) + step}
    return {"adapter_model": adapter, "optimizer": {"a": torch.full((40, 12), step / 7)}}


def write(folder: Path, step: int, *, keep: int | None = None) -> None:
    save(folder, step, tensors=tensors_of(step), documents={"state": step}, identity={"seed": 1})
    if keep:
        retain(folder, keep=keep, best=None)


def whole(folder: Path) -> int:
    """Return the step of the newest checkpoint, which is bit for bit what was saved."""
    one, _ = newest(folder)
    assert one is not None
    assert one.document("state") == one.step
    for name, group in tensors_of(one.step).items():
        found = one.tensors(name)
        assert found.keys() == group.keys()
        assert all(torch.equal(found[key], group[key]) for key in group)
    return one.step


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256(p) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def two(tmp_path_factory) -> Path:
    """Checkpoints of steps 1 and 2; to be copied."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    write(folder, 1)
    write(folder, 2)
    return folder


@pytest.fixture
def folder(two, tmp_path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "checkpoints"))


def in_child(action: Callable[[], object]) -> int:
    """Run in a forked process and return how it ended, as os.waitpid tells."""
    with warnings.catch_warnings():
        # Other threads of the test process hold nothing that a save needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def kill_at(point: int) -> None:
    """Make this process kill itself right before the n-th call that touches the disk."""
    left = [point]

    def wrap(call):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    # What a killed process has written is in the system's memory all the same.
    os.fsync = lambda _: None
    for name in CALLS:
        module = io if name.startswith("io.") else os
        plain = name.removeprefix("io.")
        setattr(module, plain, wrap(getattr(module, plain)))
    builtins.open = io.open


def killed_at(point: int, action: Callable[[], object]) -> bool:
    def body():
        kill_at(point)
        action()

    status = in_child(body)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status != 0


@TAKES_FORK
def test_a_kill_at_every_call_of_a_save_and_its_retention_loses_nothing(two, tmp_path):
    steps, point = Counter(), 0
    while True:
        point += 1
        folder = tmp_path / str(point)
        shutil.copytree(two, folder)
        before = digests(folder)
        killed = killed_at(point, lambda folder=folder: write(folder, 3, keep=2))
        step = whole(folder)
        steps[step] += 1
        valid, invalid = scan(folder)
        assert invalid == []
        if step == 2:
            assert digests(folder).items() >= before.items()
        else:
            assert [one.step for one in valid][:2] == [3, 2]
        torn = quarantine(folder)
        names = sorted(p.name for p in folder.iterdir())
        assert not any(name.startswith(".tmp") for name in names)
        assert sum(name.startswith("checkpoint-") for name in names) <= 2 + 1 + len(torn)
        assert len(torn) <= (step == 2)
        # The same again, to its end: as if nothing had happened.
        write(folder, 3, keep=2)
        assert [one.step for one in scan(folder)[0]] == [3, 2]
        if not killed:
            break
    assert steps[2] >= 12
    assert steps[3] >= 6


@TAKES_FORK
def test_a_kill_at_every_call_of_a_save_that_replaces_another(two, tmp_path):
    point = 0
    while True:
        point += 1
        folder = tmp_path / str(point)
        shutil.copytree(two, folder)
        killed = killed_at(point, lambda folder=folder: write(folder, 2))
        assert whole(folder) in (1, 2)
        assert scan(folder)[1] == []
        quarantine(folder)
        assert not list(folder.glob(".tmp*"))
        if not killed:
            break
    assert whole(folder) == 2
    assert point > 15


@TAKES_FORK
@pytest.mark.parametrize("first", [3, 8, 13, 18, 23])
def test_five_kills_in_a_row_do_not_fill_the_disk(folder, first):
    def resumed(point):
        newest(folder)
        quarantine(folder)
        retain(folder, keep=2, best=None)
        kill_at(point)
        write(folder, whole(folder) + 1, keep=2)

    for point in range(first, first + 5):
        status = in_child(partial(resumed, point))
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
        assert whole(folder) >= 2
        assert sum(1 for _ in folder.iterdir()) <= 2 + 1 + 1
    quarantine(folder)
    kept = [p.name for p in folder.iterdir()]
    assert sum(name.endswith(".torn") for name in kept) <= 1
    assert sum(not name.endswith(".torn") for name in kept) <= 2 + 1


@TAKES_FORK
def test_a_limit_on_file_size_at_twenty_offsets(folder):
    write(folder, 3)
    largest = max(p.stat().st_size for p in (folder / "checkpoint-3").iterdir())
    shutil.rmtree(folder / "checkpoint-3")
    before = digests(folder)
    for offset in range(0, largest, -(-largest // 20)):

        def limited(offset=offset):
            resource.setrlimit(resource.RLIMIT_FSIZE, (offset, offset))
            (problem,) = refusal(folder, 3).problems
            assert problem.code == "E_IO"
            assert problem.where.startswith(str(folder / ".tmp-3-"))

        assert in_child(limited) == 0, offset
        assert digests(folder) == before
        assert sorted(p.name for p in folder.iterdir()) == ["checkpoint-1", "checkpoint-2"]


@TAKES_FORK
def test_a_disk_that_is_full_read_only_or_out_of_inodes(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    folder = disk / "checkpoints"

    def body():
        mount(disk, "size=96k,nr_inodes=60")
        write(folder, 1)
        write(folder, 2)
        before = digests(folder)

        def refused(code: str) -> None:
            error = refusal(folder, 3)
            assert (error.problems[0].code, error.exit_code) == (code, 5)
            assert digests(folder) == before
            assert sorted(p.name for p in folder.iterdir()) == ["checkpoint-1", "checkpoint-2"]

        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(1024))
        for free in (0, 4096, 8192):
            os.truncate(filler, filler.stat().st_size - free)
            refused("E_DISK_SPACE")
        filler.unlink()
        with pytest.raises(OSError, match="No space"):
            for i in range(100):
                (disk / f"inode-{i}").touch()
        (disk / "inode-0").unlink()
        refused("E_DISK_SPACE")
        for file in disk.glob("inode-*"):
            file.unlink()
        mount(disk, "", MS_REMOUNT | MS_RDONLY)
        refused("E_IO")
        mount(disk, "", MS_REMOUNT)
        write(folder, 3)
        assert whole(folder) == 3

    # Mounted in a namespace of its own, which ends with the child.
    in_namespace = in_child(separate)
    if in_namespace != 0:
        pytest.skip("no mounts here")
    assert in_child(lambda: (separate(), body())) == 0


MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def separate() -> None:
    """Give this process mounts of its own."""
    libc = ctypes.CDLL(None)
    flags = CLONE_NEWNS | (CLONE_NEWUSER if os.geteuid() else 0)
    if libc.unshare(flags) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        os._exit(77)


def mount(place: Path, options: str, flags: int = 0) -> None:
    failed = ctypes.CDLL(None).mount(
        b"tmpfs", str(place).encode(), b"tmpfs", flags, options.encode()
    )
    assert not failed


def refusal(folder: Path, step: int) -> TunewrightError:
    with pytest.raises(TunewrightError) as caught:
        write(folder, step)
    return caught.value


@TAKES_FORK
def test_everything_is_on_disk_before_it_is_seen(tmp_path, monkeypatch):
    folder = tmp_path / "run" / "checkpoints"
    calls: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "rename")}

    def fsync(handle):
        calls.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink().name))
        real["fsync"](handle)

    def rename(before, after):
        calls.append(("rename", Path(after).name))
        real["rename"](before, after)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    write(folder, 1)
    assert calls[0] == ("fsync", "run")
    files = {name for call, name in calls[1:4] if call == "fsync"}
    assert files == {"adapter_model.safetensors", "optimizer.safetensors", "state.json"}
    assert calls[4] == ("fsync", "MANIFEST.json")
    assert calls[5][1].startswith(".tmp-1-")
    assert calls[6:] == [("rename", "checkpoint-1"), ("fsync", "checkpoints")]


REFUSALS = [
    (errno.ENOSPC, "E_DISK_SPACE"),
    (errno.EDQUOT, "E_DISK_SPACE"),
    (errno.EIO, "E_IO"),
    (errno.EROFS, "E_IO"),
]


@pytest.mark.parametrize(("number", "code"), REFUSALS)
@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_what_the_system_refuses_is_told_and_changes_nothing(
    folder, monkeypatch, call, number, code
):
    write(folder, 3)
    before = digests(folder)
    real, calls = getattr(os, call), 0
    total = {"fsync": 6, "rename": 2, "mkdir": 1}[call]
    for nth in range(1, total + 1):

        def refuse(*args, nth=nth, **kwargs):
            nonlocal calls
            calls += 1
            if calls == nth:
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        calls = 0
        monkeypatch.setattr(os, call, refuse)
        error = refusal(folder, 3)
        monkeypatch.undo()
        (problem,) = error.problems
        assert (problem.code, error.exit_code) == (code, 5)
        assert problem.where.startswith(str(folder))
        if code == "E_DISK_SPACE":
            assert "needs 0.0 MB" in problem.message
            assert "MB are free" in problem.message
        # An fsync that failed was not tried again to make it a success; undoing needs renames.
        assert call == "rename" or calls == nth
        assert digests(folder) == before
        assert sorted(p.name for p in folder.iterdir()) == [f"checkpoint-{i}" for i in (1, 2, 3)]
    write(folder, 3)
    assert whole(folder) == 3


def test_a_new_checkpoint_that_may_not_be_on_disk_is_not_seen(folder, monkeypatch):
    real = os.fsync

    def refuse(handle):
        if (folder / "checkpoint-3").exists():
            raise OSError(errno.EIO, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(TunewrightError, match="E_IO"):
        write(folder, 3)
    assert whole(folder) == 2
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint-1", "checkpoint-2"]


def test_an_interrupt_leaves_no_trace(folder, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    before = digests(folder)
    monkeypatch.setattr(_checkpoints, "sealed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(folder, 2)
    monkeypatch.undo()
    assert digests(folder) == before
    assert not list(folder.glob(".tmp*"))


@pytest.mark.parametrize("place", ["file/checkpoints", "closed/checkpoints"])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0o500)
    if place.startswith("closed") and os.geteuid() == 0:
        real = os.mkdir

        def refuse(path, *args, **kwargs):
            if Path(path).is_relative_to(tmp_path / "closed"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            real(path, *args, **kwargs)

        monkeypatch.setattr(os, "mkdir", refuse)
    error = refusal(tmp_path / place, 1)
    (problem,) = error.problems
    assert (problem.code, error.exit_code) == ("E_IO", 5)
    assert problem.where.startswith(str(tmp_path / place))


def test_what_cannot_be_read_or_removed_is_told(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(args[0]))

    (folder / ".tmp-9-00112233").mkdir()
    monkeypatch.setattr(os, "rename", refuse)
    for action in (lambda: quarantine(folder), lambda: retain(folder, keep=1, best=None)):
        with pytest.raises(TunewrightError, match="E_IO"):
            action()
    monkeypatch.undo()
    monkeypatch.setattr(_files, "sha256", refuse)
    _, skipped = scan(folder)
    assert [one.reason for one in skipped] == ["adapter_model.safetensors: Permission denied"] * 2
    monkeypatch.undo()
    assert whole(folder) == 2
