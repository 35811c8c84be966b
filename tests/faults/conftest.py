"""The server that every fault test forks its processes from, and a run to break."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.harness import Case, Forks, command
from faults.stages import command_line, describe, quick, write_rows


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A server of processes that can be killed; see harness.py."""
    if sys.platform != "linux":
        pytest.skip("the calls of a process are watched through /proc")
    with Forks() as server:
        yield server


@pytest.fixture(scope="session")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished small run and its store, and in `kept` what models computed for it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "kept").mkdir()
    describe(folder, write_rows(folder / "rows.jsonl"))
    for stage in ("prepare", "train", "compare", "merge", "export", "publish"):
        line = command_line(stage, folder)
        case = Case(command, (line,)) if stage == "train" else Case(quick, (line, folder / "kept"))
        done = forks.run(case)
        assert done.code == 0, f"{stage}: {done.stderr}"
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Callable[[], Path]:
    """Return a function that gives a copy of the run, with a config of its own."""

    def make() -> Path:
        folder = tmp_path / "copy"
        for name in ("run", "store"):
            shutil.copytree(whole / name, folder / name)
        describe(folder, whole / "rows.jsonl")
        return folder

    return make
