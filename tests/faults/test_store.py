"""P1 to P6 and P9: publishers that race and die, pointers that move, file systems that cannot do what is needed.

Every process is forked from one that has the store loaded and nothing heavy. `make faults` takes the long forms.
"""

import errno
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults import store as cases
from faults.harness import Case, Child, Fault, Forks, Result
from published import make_run

from tunewright.artifacts import sha256
from tunewright.publish.versions import layout, store
from tunewright.publish.versions.cleaning import gc


@pytest.fixture(scope="module")
def light() -> Iterator[Forks]:
    """A server of processes that load no torch."""
    with Forks(*cases.MODULES) as server:
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run, small enough that hundreds can be published. Shared: read only."""
    return make_run(tmp_path_factory.mktemp("made"), weights=b"\x01" * 3000)


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "store"


def rests(root: Path) -> list[str]:
    return [p.name for p in root.glob(".*") if not p.name.endswith(".lock")]


def racing(forks: Forks, cases_: list[Case]) -> list[Result]:
    """Return what became of cases that run at a time, all read at once: a full pipe would stop one with a lock."""
    children = [forks.start(case) for case in cases_]
    with ThreadPoolExecutor(len(children)) as readers:
        return list(readers.map(Child.wait, children))


def raced(forks: Forks, root: Path, made: Path, tmp_path: Path, publishers: int, each: int) -> None:
    begun = [
        Case(cases.publish_many, (root, made, tmp_path / f"run{n}", each), timeout_s=600)
        for n in range(publishers)
    ]
    done = racing(forks, begun)
    assert [(r.code, r.stderr) for r in done] == [(0, "")] * publishers
    versions = [version for r in done for version in cases.acknowledged(r.stdout)]
    assert len(set(versions)) == publishers * each
    assert set(cases.folders(root)) == set(versions)
    assert store.verify(root) == []
    assert store.resolve(root, "writer").name in versions
    assert store.resolve(root, "writer@latest").name in versions
    assert rests(root) == []
    # The same content lies on the disk once, whoever came first.
    weights = list(root.glob("writer/voice/*/adapter/adapter_model.safetensors"))
    assert len({file.stat().st_ino for file in weights}) == 1
    assert weights[0].stat().st_nlink == publishers * each + 1


def test_racing_publishers_lose_nothing(light, root, made, tmp_path):
    """P1."""
    raced(light, root, made, tmp_path, 8, 5)


@pytest.mark.faults
def test_eight_publishers_with_fifty_versions_each(light, root, made, tmp_path):
    raced(light, root, made, tmp_path, 8, 50)


@pytest.mark.faults
def test_sixteen_publishers_with_a_hundred_versions_each(light, root, made, tmp_path):
    raced(light, root, made, tmp_path, 16, 100)


def test_the_same_content_published_at_once_lies_there_once(light, root, made, tmp_path):
    """P2: two versions, one blob a content."""
    for attempt in range(5):
        store_root, start = root / str(attempt), time.time() + 0.15
        done = racing(
            light,
            [
                Case(cases.publish_at, (store_root, made, tmp_path / f"{attempt}-{n}", start))
                for n in range(2)
            ],
        )
        assert [(r.code, r.stderr) for r in done] == [(0, "")] * 2
        assert len(cases.folders(store_root)) == 2
        blobs = list((store_root / layout.BLOBS).iterdir())
        assert len(blobs) == 5
        assert {blob.stat().st_nlink for blob in blobs} == {3}
        assert all(sha256(blob) == blob.name.removeprefix("sha256-") for blob in blobs)
        assert store.verify(store_root) == []


def test_of_several_that_want_a_version_one_gets_it(light, root, made, tmp_path):
    """P4."""
    rivals = [make_run(tmp_path / f"made{n}", weights=bytes([n]) * 500) for n in range(4)]
    for attempt in range(3):
        start = time.time() + 0.15
        done = racing(
            light,
            [
                Case(
                    cases.publish_named,
                    (root, rival, tmp_path / f"{rival.name}-r", f"v{attempt}", start),
                )
                for rival in rivals
            ],
        )
        winners = [n for n, result in enumerate(done) if result.code == 0]
        assert len(winners) == 1, [r.stderr for r in done]
        for result in done:
            if result.code:
                result.require("E_VERSION_EXISTS")
                assert result.code == 6
        weights = (
            root / "writer" / "voice" / f"v{attempt}" / "adapter" / "adapter_model.safetensors"
        )
        assert weights.read_bytes() == bytes(winners) * 500
    assert store.verify(root) == []
    assert rests(root) == []


class Killed:
    """A store in which processes die, and what they had acknowledged by then."""

    def __init__(self, forks: Forks, root: Path, made: Path, tmp_path: Path) -> None:
        self.forks, self.root, self.made, self.receipts = forks, root, made, tmp_path
        whole = forks.run(self.case())
        assert whole.code == 0, whole.stderr
        self.calls, self.usual_s = whole.calls, whole.seconds
        self.acknowledged = cases.acknowledged(whole.stdout)

    def case(self, **options) -> Case:
        given = (self.root, self.made, self.receipts)
        return Case(cases.work, given, under=self.root, **options)

    def kill(self, **options) -> None:
        done = self.forks.run(self.case(**options))
        assert done.was_killed or done.code == 0, done.stderr
        self.acknowledged += cases.acknowledged(done.stdout)
        assert store.verify(self.root) == []
        there = set(cases.folders(self.root))
        assert there >= set(self.acknowledged)
        # At most what was put in place just before the end is there and was not told.
        unheard = there - set(self.acknowledged)
        assert len(unheard) <= 1
        self.acknowledged += unheard
        assert store.resolve(self.root, "writer").name in there

    def forget(self) -> None:
        """Begin with an empty store, so that what is verified stays small."""
        shutil.rmtree(self.root)
        self.acknowledged = []

    def requires_clean(self) -> None:
        gc(self.root, grace_hours=0)
        assert rests(self.root) == []
        assert not [p.name for p in self.root.glob(".tmp-*")]
        assert set(cases.folders(self.root)) == set(self.acknowledged)
        assert store.verify(self.root) == []


def test_killed_at_any_time(light, root, made, tmp_path):
    """P3, the short form."""
    killed, chance = Killed(light, root, made, tmp_path), random.Random(0)
    for _ in range(12):
        killed.kill(kill_after_s=chance.uniform(0, killed.usual_s))
    killed.requires_clean()


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
def test_killed_ten_thousand_times(light, root, made, tmp_path, seed):
    """P3: a thousand for each seed."""
    killed, chance = Killed(light, root, made, tmp_path), random.Random(seed)
    for number in range(1, 1001):
        killed.kill(kill_after_s=chance.uniform(0, killed.usual_s))
        if number % 50 == 0:
            killed.requires_clean()
            killed.forget()
            killed.kill()


def test_killed_at_some_calls(light, root, made, tmp_path):
    """P3: just before every twenty-second change of a file, from the founding of the store to the last rename."""
    killed = Killed(light, root, made, tmp_path)
    for point in range(0, len(killed.calls), 22):
        killed.kill(fault=Fault(point))
    killed.requires_clean()


@pytest.mark.faults
def test_killed_at_every_call(light, root, made, tmp_path):
    killed = Killed(light, root, made, tmp_path)
    for point in range(len(killed.calls)):
        killed.kill(fault=Fault(point))
        if point % 20 == 0:
            killed.requires_clean()
            killed.forget()
            killed.kill()


OPERATIONS: dict[str, Callable[[Path], tuple]] = {
    "alias": lambda tmp: (cases.alias, (tmp / "store", "v1")),
    "rollback": lambda tmp: (cases.rollback, (tmp / "store", "v1")),
    "collect": lambda tmp: (cases.collect, (tmp / "store", 1)),
    "copy_out": lambda tmp: (cases.copy_out, (tmp / "store", tmp / "out")),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_changes_a_store_killed_at_every_call(light, root, made, tmp_path, name):
    """P3: aliases, the map, removals and copies are old or new, at every call."""
    from published import publish_once

    for version in ("v1", "v2", "v3"):
        publish_once(root, made, tmp_path / "receipt", version=version)
    store.alias(root, "writer", "stable", "v2")
    spare = shutil.copytree(root, tmp_path / "spare")
    function, arguments = OPERATIONS[name](tmp_path)
    whole = light.run(Case(function, arguments, under=tmp_path))
    assert whole.code == 0, whole.stderr
    assert len(whole.calls) >= 3
    for point in range(len(whole.calls)):
        shutil.rmtree(root)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(spare, root)
        done = light.run(Case(function, arguments, under=tmp_path, fault=Fault(point)))
        assert done.was_killed
        assert store.verify(root) == []
        assert store.resolve(root, "writer").name in ("v1", "v3")
        assert store.resolve(root, "writer@stable").name in ("v1", "v2")
        assert {"v2", "v3"} <= set(cases.folders(root))
        if name == "copy_out" and (tmp_path / "out").exists():
            assert {p.name for p in (tmp_path / "out").iterdir()} == {
                "README.md",
                "adapter",
                "gguf",
                "manifest.json",
            }


def cleaned_beside(
    forks: Forks, root: Path, tmp_path: Path, keep: int | None, *, publishers: int = 2, each: int
) -> tuple[set[str], dict[str, int]]:
    """Return what publishers of three runs have acknowledged, and what was removed meanwhile."""
    made = [make_run(tmp_path / f"made{n}", weights=bytes([n]) * 3000) for n in range(3)]
    receipts = [tmp_path / f"receipts{n}" for n in range(publishers)]
    begun = [
        Case(cases.publish_in_turn, (root, made, folder, each), timeout_s=600)
        for folder in receipts
    ]
    cleaner = Case(cases.collect_beside, (root, receipts, keep), timeout_s=600)
    forks.run(Case(cases.publish_many, (root, made[0], tmp_path / "first", 1)))
    *done, cleaned = racing(forks, [*begun, cleaner])
    assert [(r.code, r.stderr) for r in (*done, cleaned)] == [(0, "")] * (publishers + 1)
    versions = [version for r in done for version in cases.acknowledged(r.stdout)]
    assert len(set(versions)) == len(versions) == publishers * each * len(made)
    assert store.verify(root) == []
    assert rests(root) == []
    return set(versions), json.loads(cleaned.stdout)


def test_cleaning_up_while_others_publish_takes_nothing_from_them(light, root, tmp_path):
    """P5: a cleaner without grace, and publishers whose contents come and go."""
    versions, removed = cleaned_beside(light, root, tmp_path, None, each=2)
    assert removed["rounds"] >= 5
    assert removed["versions"] == 0
    assert set(cases.folders(root)) > versions


def kept_one(forks: Forks, root: Path, tmp_path: Path, publishers: int, each: int) -> None:
    versions, removed = cleaned_beside(forks, root, tmp_path, 1, publishers=publishers, each=each)
    assert removed["versions"] >= len(versions) / 4
    assert removed["blobs"] >= 3
    # The last one of all is there, whoever made it, and the map names it or another that is whole.
    assert store.resolve(root, "writer@latest").name in versions
    assert store.resolve(root, "writer").name in versions
    gc(root, grace_hours=0, keep=1)
    assert 1 <= len(cases.folders(root)) <= 2
    assert store.verify(root) == []


def test_a_publish_comes_out_whole_while_old_versions_are_removed(light, root, tmp_path):
    """P5, with versions of several contents that go while others of the same contents come."""
    kept_one(light, root, tmp_path, 3, 3)


@pytest.mark.faults
def test_hundreds_come_out_whole_while_old_versions_are_removed(light, root, tmp_path):
    kept_one(light, root, tmp_path, 6, 15)


@pytest.mark.parametrize("reads", [300, pytest.param(1000, marks=pytest.mark.faults)])
def test_a_thousand_reads_while_what_they_read_moves(light, root, made, tmp_path, reads):
    """P6."""
    from published import publish_once

    other = make_run(tmp_path / "other", weights=b"\x02" * 100)
    for version, run in (("v1", made), ("v2", other)):
        publish_once(root, run, tmp_path / version, version=version)
    store.alias(root, "writer", "prod", "v1")
    moving = tmp_path / "moving"
    moving.touch()
    moves = Case(cases.move_for, (root, ["v1", "v2"], moving))
    done, moved = racing(light, [Case(cases.read, (root, reads, moving)), moves])
    assert (done.code, moved.code) == (0, 0), done.stderr + moved.stderr
    assert int(moved.stdout) >= reads / 50
    assert done.stdout.count("v1") == done.stdout.count("v2") == 1


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV])
def test_without_hard_links_each_version_has_copies(light, root, made, tmp_path, error):
    """P9: found out when the store is made."""
    fault = Fault(0, "link", error, forever=True)
    done = light.run(
        Case(cases.publish_many, (root, made, tmp_path / "run", 2), under=root, fault=fault)
    )
    assert done.code == 0, done.stderr
    assert layout.read_info(root)["files"] == "copy"
    assert not (root / layout.BLOBS).exists()
    assert {p.stat().st_nlink for p in root.glob("writer/voice/*/*/*")} == {1}
    assert store.verify(root) == []


def test_a_store_that_was_copied_to_where_there_are_no_links_goes_on(light, root, made, tmp_path):
    """P9: the store says that it shares files, and cannot any more."""
    light.run(Case(cases.publish_many, (root, made, tmp_path / "run", 1)))
    moved = shutil.copytree(root, tmp_path / "moved")
    fault = Fault(0, "link", errno.EPERM, forever=True)
    done = light.run(
        Case(cases.publish_many, (moved, made, tmp_path / "run", 1), under=moved, fault=fault)
    )
    assert done.code == 0, done.stderr
    assert len(cases.folders(moved)) == 2
    assert store.verify(moved) == []


@pytest.mark.parametrize("call", ["rename", "mkdir", "fsync", "link", "open"])
def test_a_call_that_fails_is_no_success(light, root, made, tmp_path, call):
    """What cannot be written is refused, and what is there stays."""
    light.run(Case(cases.publish_many, (root, made, tmp_path / "run", 1)))
    before = cases.folders(root)
    fault = Fault(0, call, errno.EIO, forever=True)
    done = light.run(
        Case(cases.publish_many, (root, made, tmp_path / "run", 1), under=root, fault=fault)
    )
    done.require("E_IO")
    assert cases.folders(root) == before
    assert store.verify(root) == []
