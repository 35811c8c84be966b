"""Every stage but train, killed and broken: its output is whole or not there, and a rerun gives the same.

By default a few points of each stage; `make faults` takes every one.
"""

import errno
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from faults.harness import Call, Case, Fault, Forks, Result
from faults.stages import STAGES, command_line, digests, quick

from tunewright.artifacts import load_artifact, writing
from tunewright.errors import TunewrightError
from tunewright.models._folders import resolve_model
from tunewright.models._tokenizer import load_tokenizer, save_tokenizer
from tunewright.models._weights import save_tensors
from tunewright.publish.versions import layout, store

DISK_FULL_BYTES = 1000
QUICK = ("prepare", "merge", "publish")
"""Stages of the default run: the others write in the same way and take longer."""
stages = pytest.mark.parametrize("stage", STAGES)
quick_stages = pytest.mark.parametrize("stage", QUICK)


class Broken:
    """A run of which one stage is disturbed again and again."""

    def __init__(self, forks: Forks, whole: Path, folder: Path, stage: str) -> None:
        self._forks = forks
        self._kept = whole / "kept"
        self._stage = stage
        self._folder = folder
        self._output = folder / "run" / STAGES[stage]
        done = self.run()
        assert done.code == 0, done.stderr
        self.calls = done.calls
        self._expected = digests(folder, stage)
        self._published = len(store.list_versions(folder / "store"))

    def run(self, **options) -> Result:
        line = command_line(self._stage, self._folder)
        return self._forks.run(Case(quick, (line, self._kept), under=self._folder, **options))

    def made(self) -> list[Path]:
        """Everything that the stage has made."""
        published = self._stage == "publish"
        folder = store.resolve(self._folder / "store", "tests") if published else self._output
        return list(folder.rglob("*"))

    def remove(self) -> None:
        """Let there be no output from before, and no version either."""
        shutil.rmtree(self._output, ignore_errors=True)
        if self._stage == "publish":
            shutil.rmtree(self._folder / "store", ignore_errors=True)
            self._published = 0

    def requires_whole_or_none(self) -> None:
        """What can be seen is whole, and as it would have been."""
        if self._output.exists():
            assert digests(self._folder, self._stage) == self._expected
        assert store.verify(self._folder / "store") == []

    def requires_none(self) -> None:
        """Nothing is left that could be taken for an output, and no rest of one."""
        assert not self._output.exists()
        assert not self.rests()
        assert store.verify(self._folder / "store") == []
        assert len(store.list_versions(self._folder / "store")) == self._published

    def requires_same_again(self) -> None:
        """The next run makes what an unbroken one makes, and clears away what was left."""
        done = self.run()
        assert done.code == 0, done.stderr
        assert digests(self._folder, self._stage) == self._expected
        assert store.verify(self._folder / "store") == []
        assert not self.rests()
        self._published = len(store.list_versions(self._folder / "store"))

    def rests(self) -> list[Path]:
        return [
            path
            for root in (self._folder / "run", self._folder / "store")
            for path in (*root.glob(".tmp-*"), *root.glob(".*.new"))
        ]


@pytest.fixture
def broken(forks, whole, copy, stage) -> Broken:
    return Broken(forks, whole, copy(), stage)


def killed_at(broken: Broken, points: Iterable[int]) -> None:
    """Kill at each point, in turn with and without an output that is there from before."""
    for point in points:
        if point % 2:
            broken.remove()
        done = broken.run(fault=Fault(point))
        # Without an output from before there are fewer calls.
        assert done.was_killed or len(done.calls) <= point, done.stderr
        broken.requires_whole_or_none()
        broken.requires_same_again()


@quick_stages
def test_killed_where_it_is_made_visible(broken):
    visible = max(n for n, call in enumerate(broken.calls) if is_renamed(call))
    killed_at(broken, [visible // 2, visible - 1, visible, visible + 1])


@pytest.mark.faults
@stages
def test_killed_everywhere(broken):
    killed_at(broken, range(len(broken.calls)))


HALF = "target = pathlib.Path(sys.argv[2]); target.write_bytes(pathlib.Path(sys.argv[1]).read_bytes()[:9999])"
ENDS = {
    "kill": "os.killpg(0, signal.SIGKILL)",
    "fail": "sys.exit('no room')",
    "die": "os.kill(os.getpid(), 9)",
}
"""How a program that quantises comes to its end, the file half written: with all the others, or alone."""


@pytest.mark.parametrize("end", ENDS)
def test_killed_while_another_program_quantises(forks, whole, copy, tmp_path, end):
    """K4. Nothing of the file is seen, and the file from before stays."""
    folder = copy()
    before = digests(folder, "export")
    program = tmp_path / "programs" / "llama-quantize"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport os, pathlib, signal, sys\n{HALF}\n{ENDS[end]}\n"
    )
    program.chmod(0o755)
    line = [*command_line("export", folder), "--set", "export.quantization=[Q4_K_M]"]
    done = forks.run(Case(with_a_quantiser, (line, whole / "kept", program.parent), under=folder))
    if end == "kill":
        assert done.was_killed, done.stderr
    else:
        done.require("E_QUANTIZE")
        assert not list((folder / "run").glob(".tmp-*"))
    assert digests(folder, "export") == before
    again = forks.run(Case(quick, (command_line("export", folder), whole / "kept"), under=folder))
    assert again.code == 0, again.stderr
    assert digests(folder, "export") == before
    assert not list((folder / "run").glob(".tmp-*"))


def with_a_quantiser(line: list[str], kept: Path, programs: Path) -> int:
    """Run a command where `llama-quantize` is on the PATH, and llama-cpp-python is not installed."""
    from tunewright.models import gguf_types

    setattr(gguf_types, "find_spec", lambda name: None)  # noqa: B010 - another signature
    os.environ["PATH"] = str(programs)
    return quick(line, kept)


@pytest.mark.faults
@quick_stages
def test_killed_at_any_time(broken):
    usual_s = broken.run().seconds
    for n in range(25):
        broken.run(kill_after_s=usual_s * n / 25)
        broken.requires_whole_or_none()
    broken.requires_same_again()


def is_map(call: Call) -> bool:
    return call.path.endswith(f".{layout.MAP}.new")


def is_renamed(call: Call) -> bool:
    return call.name == "rename" and "/.tmp-" in call.path


def limited(broken: Broken, sizes: Iterable[int]) -> None:
    for size in sizes:
        broken.remove()
        done = broken.run(file_limit=size)
        done.require("E_IO")
        assert done.problems[0][1] == "File too large."
        assert Path(done.problems[0][2]).is_absolute()
        broken.requires_none()
    broken.requires_same_again()


@quick_stages
def test_files_that_may_not_grow(broken):
    limited(broken, offsets(broken, 3))


@pytest.mark.parametrize("stage", ["export"])
def test_the_last_byte_counts(broken):
    limited(broken, offsets(broken, 2)[1:])


def save(folder: Path, name: str) -> None:
    with writing(folder / "adapter", "adapter", settings=None, parents={}) as draft:
        if name == "tokenizer.json":
            save_tokenizer(load_tokenizer(resolve_model("tunewright/tiny")), draft.path)
        else:
            save_tensors(draft.path / name, {"a": torch.zeros(1000)})


@pytest.mark.parametrize("name", ["tokenizer.json", "a.safetensors"])
def test_a_library_that_cannot_write_says_what_the_system_said(forks, tmp_path, name):
    forks.run(Case(save, (tmp_path, name), file_limit=3000)).require("E_IO")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.faults
@stages
def test_files_that_may_not_grow_at_twenty_sizes(broken):
    limited(broken, offsets(broken, 20))


def offsets(broken: Broken, count: int) -> list[int]:
    """Return sizes from none to just too little for the largest file that the stage writes."""
    largest = max(path.stat().st_size for path in broken.made() if path.is_file())
    return sorted({(largest - 1) * n // (count - 1) for n in range(count)})


def failing(broken: Broken, faults: Iterable[Fault]) -> None:
    for fault in faults:
        broken.remove()
        done = broken.run(fault=fault)
        done.require("E_IO")
        if done.calls[-1].path.endswith(".new") or any(is_map(call) for call in done.calls):
            broken.requires_whole_or_none()  # it was made, and what failed is a pointer to it
        else:
            broken.requires_none()
    broken.requires_same_again()


def fsyncs(calls: Iterable[Call]) -> int:
    return sum(call.name == "fsync" for call in calls)


@quick_stages
def test_what_cannot_be_forced_to_disk_is_no_success(broken):
    count = fsyncs(broken.calls)
    failing(broken, [Fault(n, "fsync", errno.EIO) for n in (0, count // 2, count - 1)])


@pytest.mark.faults
@stages
def test_nothing_that_cannot_be_forced_to_disk_is_a_success(broken):
    failing(broken, [Fault(n, "fsync", errno.EIO) for n in range(fsyncs(broken.calls))])


@pytest.mark.faults
@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["open", "mkdir", "rename"])
@stages
def test_a_folder_that_takes_nothing(broken, call, error):
    done = broken.run(fault=Fault(0, call, error, forever=True))
    done.require("E_IO")
    assert done.problems[0][1].startswith(os.strerror(error))
    broken.requires_whole_or_none()


@pytest.mark.parametrize("stage", ["merge", "export", "publish"])
def test_a_full_disk_is_seen_before_work(forks, whole, copy, stage):
    folder = copy()
    before = digests(folder, stage)
    line = command_line(stage, folder)
    done = forks.run(Case(quick, (line, whole / "kept", DISK_FULL_BYTES), under=folder))
    done.require("E_DISK_SPACE")
    assert " are needed and 0 MB are free" in done.problems[0][1]
    assert digests(folder, stage) == before


def test_an_output_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    from tunewright import artifacts

    def make(text: str):
        with artifacts.writing(tmp_path / "d", "plan", settings=None, parents={}) as draft:
            (draft.path / "a").write_text(text)

    make("old")
    fsync, folders = artifacts.fsync, []

    def failing_fsync(path: Path) -> None:
        folders.append(path)
        if path == tmp_path:
            raise OSError(errno.EIO, "Input/output error")
        fsync(path)

    monkeypatch.setattr(artifacts, "fsync", failing_fsync)
    with pytest.raises(TunewrightError):
        make("new")
    assert folders[-1] == tmp_path
    assert (load_artifact(tmp_path / "d", "plan").path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["d"]
