"""What a checkpoint keeps, which one is used, and what is refused."""

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tunewright.errors import TunewrightError
from tunewright.train._checkpoints import Saved, load, newest, quarantine, retain, save, scan
from tunewright.train._files import MANIFEST, sealed

IDENTITY = {"seed": 1, "versions": {"torch": "2"}, "shape": (1, 2)}


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(step)
    weights = {f"layer.{i}": torch.randn(4, 3, generator=random) for i in range(3)}
    return {
        "adapter_model": weights,
        "optimizer": {f"{name}.exp_avg": value * 2 for name, value in weights.items()},
        "rng": {"cpu": torch.arange(step, step + 16, dtype=torch.uint8)},
    }


def documents_of(step: int) -> dict[str, object]:
    return {"trainer_state": {"step": step, "best": None}, "adapter_config": {"r": step}}


def saved(folder: Path, step: int) -> Saved:
    return save(
        folder,
        step,
        tensors=tensors_of(step),
        documents=documents_of(step),
        identity=IDENTITY,
    )


def same(one: Saved, step: int) -> bool:
    expected = tensors_of(step)
    return one.step == step and all(
        one.document(name) == value for name, value in documents_of(step).items()
    ) and all(
        found.keys() == group.keys() and all(torch.equal(found[k], group[k]) for k in group)
        for name, group in expected.items()
        for found in [one.tensors(name)]
    )  # fmt: skip


@pytest.fixture(scope="session")
def three(tmp_path_factory) -> Path:
    """Checkpoints of steps 1, 2 and 3; to be copied."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    for step in (1, 2, 3):
        saved(folder, step)
    return folder


@pytest.fixture
def folder(three, tmp_path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "checkpoints"))


def refused(action) -> TunewrightError:
    with pytest.raises(TunewrightError) as caught:
        action()
    return caught.value


def forge(path: Path, name: str, raw: bytes) -> None:
    """Replace a file, and make the manifest vouch for it."""
    (path / name).write_bytes(raw)
    fields = json.loads((path / MANIFEST).read_text())
    fields.pop("seal")
    fields["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    (path / MANIFEST).write_bytes(sealed(fields))


def test_what_is_saved_comes_back(folder):
    one = load(folder / "checkpoint-2")
    assert same(one, 2)
    assert one.identity == {"seed": 1, "versions": {"torch": "2"}, "shape": [1, 2]}
    assert one.files.keys() == {p.name for p in one.path.iterdir()} - {MANIFEST}
    for name, digest in one.files.items():
        assert hashlib.sha256((one.path / name).read_bytes()).hexdigest() == digest
    assert refused(lambda: one.tensors("scheduler")).exit_code == 4


def test_a_save_is_known_as_it_will_be_loaded_and_is_the_same_bytes_each_time(tmp_path):
    first, second = saved(tmp_path / "a", 7), saved(tmp_path / "b", 7)
    assert first.files == second.files
    assert load(first.path) == first
    assert str(tmp_path) not in (first.path / MANIFEST).read_text()


DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64,
    torch.uint32, torch.uint16, torch.uint8, torch.bool,
)  # fmt: skip


def test_tensors_of_every_form_and_type(tmp_path):
    shared = torch.randn(6, 4)
    group = {str(dtype): torch.tensor([0, 1, 1]).to(dtype) for dtype in DTYPES} | {
        "turned": shared.t(),
        "part": shared[1:5:2, ::3],
        "whole": shared,
        "one number": torch.tensor(3.5),
        "none": torch.zeros(0, 3),
        "trained": torch.nn.Parameter(torch.randn(2)),
        "spread": torch.tensor([1.0]).expand(5),
        "not finite": torch.tensor([float("nan"), float("-inf"), -0.0]),
    }
    one = save(tmp_path, 0, tensors={"state": group}, documents={}, identity={})
    found = one.tensors("state")
    assert found.keys() == group.keys()
    for name, value in group.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert bits(found[name]) == bits(value), name
    # Another reader of the format agrees.
    for name, value in load_file(one.path / "state.safetensors").items():
        assert bits(value) == bits(group[name])


def bits(value: torch.Tensor) -> bytes:
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_newest_is_the_highest_step_whatever_the_clock_says(folder):
    saved(folder, 10)
    for step, seconds in ((10, 1), (3, 2), (2, 2_000_000_000), (1, 3)):
        os.utime(folder / f"checkpoint-{step}", (seconds, seconds))
    one, skipped = newest(folder)
    assert one is not None
    assert same(one, 10)
    assert skipped == []
    assert [c.step for c in scan(folder)[0]] == [10, 3, 2, 1]


def test_nothing_there_is_no_error(tmp_path):
    assert newest(tmp_path / "none") == (None, [])
    assert quarantine(tmp_path / "none") == []
    for name in (".tmp-3-00112233", "checkpoint-x", "checkpoint-03", "checkpoint-3.torn", "other"):
        (tmp_path / name).mkdir()
    assert newest(tmp_path) == (None, [])


NAMES = (
    "adapter_model.safetensors", "optimizer.safetensors", "rng.safetensors", "trainer_state.json",
    "adapter_config.json", MANIFEST,
)  # fmt: skip


def damage(file: Path, how: str) -> None:
    raw = file.read_bytes()
    if how == "deleted":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "half":
        file.write_bytes(raw[: len(raw) // 2])
    elif how == "bit":
        at = len(raw) // 3
        file.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
    else:
        other = file.parent.with_name("checkpoint-2") / file.name
        if other.read_bytes() == raw:
            pytest.skip("the same in both steps")
        file.write_bytes(other.read_bytes())


@pytest.mark.parametrize("how", ["deleted", "empty", "half", "bit", "swapped"])
@pytest.mark.parametrize("name", NAMES)
def test_every_damage_to_every_file_is_seen_and_the_one_before_is_used(folder, name, how):
    damage(folder / "checkpoint-3" / name, how)
    one, (skipped,) = newest(folder)
    assert one is not None
    assert same(one, 2)
    assert skipped.path == folder / "checkpoint-3"
    assert skipped.reason.startswith(f"{name}: ")
    error = refused(lambda: load(skipped.path))
    assert (error.exit_code, error.problems[0].code) == (4, "E_NO_VALID_CHECKPOINT")
    assert name in error.problems[0].message


def test_every_bit_of_a_manifest_counts(folder):
    file = folder / "checkpoint-1" / MANIFEST
    raw = file.read_bytes()
    for at in range(0, len(raw), 7):
        file.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :])
        assert refused(lambda: load(file.parent)).exit_code == 4, at
    file.write_bytes(raw)
    assert same(load(file.parent), 1)


def test_where_none_is_whole_each_is_named_and_none_is_put_aside(folder):
    for step, how in ((1, "deleted"), (2, "half"), (3, "bit")):
        damage(folder / f"checkpoint-{step}" / NAMES[step], how)
    before = sorted(folder.rglob("*"))
    for action in (newest, quarantine):
        error = refused(lambda action=action: action(folder))
        assert [p.code for p in error.problems] == ["E_NO_VALID_CHECKPOINT"] * 3
        assert [Path(p.where).name[-1] for p in error.problems] == ["3", "2", "1"]
        assert [NAMES[3 - i] in p.message for i, p in enumerate(error.problems)] == [True] * 3
    assert sorted(folder.rglob("*")) == before


def test_checkpoints_under_the_name_of_another_step_or_behind_a_link(folder, tmp_path):
    (folder / "checkpoint-3").rename(folder / "checkpoint-9")
    (folder / "checkpoint-12").symlink_to(folder / "checkpoint-2")
    target = folder / "checkpoint-2" / "rng.safetensors"
    target.rename(tmp_path / "rng")
    target.symlink_to(tmp_path / "rng")
    one, skipped = newest(folder)
    assert one is not None
    assert same(one, 1)
    assert [s.path.name for s in skipped] == ["checkpoint-12", "checkpoint-9", "checkpoint-2"]
    # One that was copied away, under a name of the user's own, is as good.
    shutil.copytree(folder / "checkpoint-9", tmp_path / "mine")
    assert same(load(tmp_path / "mine"), 3)
    for missing in (tmp_path / "nothing", tmp_path / "rng"):
        assert refused(lambda missing=missing: load(missing)).exit_code == 4


def safetensors(header: str, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + data


ONE = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("optimizer.safetensors", safetensors(f"{{{ONE},{ONE}}}", bytes(4)), "'a' is there twice"),
        ("optimizer.safetensors", safetensors(f"{{{ONE}}}", bytes(3)), "cut off in 'a'"),
        ("optimizer.safetensors", safetensors(f"{{{ONE}", bytes(4)), "not JSON"),
        ("optimizer.safetensors", (2**40).to_bytes(8, "little"), "more than 100,000,000"),
        ("optimizer.safetensors", b"", "cut off before"),
        ("optimizer.safetensors", safetensors('{"a":' * 9000), "not JSON"),
        ("trainer_state.json", b"[" * 90_000, "recursion"),
        ("trainer_state.json", b'{"step": 1, "step": 2}', "'step' occurs twice"),
        ("trainer_state.json", b'{"step": {"a": 1, "a": 1}}', "'a' occurs twice"),
        ("trainer_state.json", b'\xff{"step": 1}', "codec"),
        ("adapter_model.safetensors", safetensors(f"{{{ONE}}}", b"\0\0\xc0\x7f"), "'a' has values"),
        ("adapter_model.safetensors", safetensors(f"{{{ONE}}}", b"\0\0\x80\xff"), "'a' has values"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_files_that_the_manifest_vouches_for_are_looked_at_too(folder, name, raw, reason):
    forge(folder / "checkpoint-3", name, raw)
    one, (skipped,) = newest(folder)
    assert one is not None
    assert one.step == 2
    assert skipped.reason.startswith(f"{name}: ")
    assert reason in skipped.reason


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e5m2])
def test_an_adapter_that_is_no_number_is_refused_in_every_type(tmp_path, dtype):
    good = {"a": torch.tensor([1, 3e38], dtype=torch.float64).to(dtype)}
    if dtype == torch.float64:
        good["a"][1] = 1e300
    else:
        good["a"][1] = 1
    assert save(tmp_path, 1, tensors={"adapter_model": good}, documents={}, identity={})
    load(tmp_path / "checkpoint-1")
    bad = {"a": torch.tensor([1, float("nan")]).to(dtype), "n": torch.tensor([1])}
    save(tmp_path, 2, tensors={"adapter_model": bad}, documents={}, identity={})
    assert "'a'" in str(refused(lambda: load(tmp_path / "checkpoint-2")))


def test_manifests_of_another_format_or_form(folder):
    path = folder / "checkpoint-3"
    fields = json.loads((path / MANIFEST).read_text())
    fields.pop("seal")
    files = fields["files"]
    for change, reason in (
        ({"format": 2}, "format 2"),
        ({"files": files | {"../x": {"sha256": "0", "bytes": 0}}}, "changed"),
        ({"files": files | {"..": {"sha256": "0", "bytes": 0}}}, "missing"),
        ({"files": files | {"a\0b": {"sha256": "0", "bytes": 0}}}, "missing"),
        ({"files": {"a": 3}}, "cannot be read"),
        ({"files": [1]}, "cannot be read"),
        ({"identity": None}, "changed"),
        ({"step": "3"}, "changed"),
    ):
        (path / MANIFEST).write_bytes(sealed(fields | change))
        assert reason in str(refused(lambda: load(path))), change
    for raw in (b"[]", b"3", b"{}", b"[" * 100_000, b"\xff"):
        (path / MANIFEST).write_bytes(raw)
        assert "cannot be read" in str(refused(lambda: load(path)))


class Canary:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "training_args.BIN", "x.pkl"])
def test_pickles_are_refused_and_never_run(folder, tmp_path, name):
    canary = tmp_path / "canary"
    poison = pickle.dumps(Canary(canary))
    foreign = folder / "checkpoint-50"
    foreign.mkdir()
    (foreign / name).write_bytes(poison)
    for action in (lambda: load(foreign), lambda: newest(folder), lambda: quarantine(folder)):
        error = refused(action)
        assert (error.exit_code, error.problems[0].code) == (9, "E_UNSAFE_FORMAT")
        assert name in error.problems[0].message
    # In a checkpoint of ours, beside good files, it is no better.
    shutil.copy(foreign / name, folder / "checkpoint-2")
    assert refused(lambda: load(folder / "checkpoint-2")).exit_code == 9
    assert [c.step for c in scan(folder)[0]] == [3, 1]
    # Nor is it under a name of ours.
    forge(folder / "checkpoint-3", "optimizer.safetensors", poison)
    assert refused(lambda: load(folder / "checkpoint-3")).exit_code == 4
    assert not canary.exists()
    pickle.loads(poison)
    assert canary.exists()


def test_quarantine_keeps_one_torn_folder_and_touches_nothing_else(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / ".tmp-mine").mkdir()
    (folder / "checkpoint-2.torn").mkdir()
    for step in (7, 5):
        (folder / f".tmp-{step}-0011223{step}").mkdir()
    (folder / ".tmp-old-1-00112233" / "sub").mkdir(parents=True)
    (aside,) = quarantine(folder)
    assert aside.name.startswith("checkpoint-7-")
    assert aside.name.endswith(".torn")
    damage(folder / "checkpoint-3" / NAMES[0], "half")
    (aside,) = quarantine(folder)
    assert aside.name.startswith("checkpoint-3-")
    assert (aside / NAMES[1]).is_file()
    assert quarantine(folder) == []
    assert {p.name for p in folder.iterdir()} == {
        "notes.txt", ".tmp-mine", "checkpoint-2.torn", "checkpoint-1", "checkpoint-2", aside.name,
    }  # fmt: skip


def test_retention_keeps_the_newest_and_the_best(folder):
    for step in (4, 5, 10):
        saved(folder, step)
    retain(folder, keep=2, best=2)
    assert sorted(c.step for c in scan(folder)[0]) == [2, 5, 10]
    retain(folder, keep=1, best=None)
    assert [p.name for p in folder.iterdir()] == ["checkpoint-10"]
    retain(folder, keep=1, best=10)
    retain(folder.parent / "none", keep=1, best=None)
    assert [p.name for p in folder.iterdir()] == ["checkpoint-10"]


def test_a_step_that_is_saved_again_is_replaced(folder):
    damage(folder / "checkpoint-3" / NAMES[1], "half")
    (folder / "checkpoint-3" / "stray.txt").touch()
    assert same(saved(folder, 3), 3)
    assert not (folder / "checkpoint-3" / "stray.txt").exists()
    assert [c.step for c in scan(folder)[0]] == [3, 2, 1]
    assert sorted(p.name for p in folder.iterdir()) == [f"checkpoint-{i}" for i in (1, 2, 3)]


STATES = st.dictionaries(
    st.integers(0, 2000),
    st.one_of(
        st.just("good"),
        st.tuples(st.sampled_from(NAMES), st.sampled_from(["deleted", "empty", "half", "bit"])),
    ),
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(states=STATES)
def test_the_newest_whole_one_is_found_in_every_mixture(tmp_path_factory, states):
    folder = tmp_path_factory.mktemp("mixture")
    for step, state in states.items():
        with pytest.MonkeyPatch.context() as patched:
            # Nothing is cut off here, and the disk is slow.
            patched.setattr(os, "fsync", lambda _: None)
            one = save(
                folder, step, tensors=tensors_of(1), documents=documents_of(1), identity={"s": step}
            )
        if state != "good":
            damage(one.path / state[0], state[1])
    good = sorted((step for step, state in states.items() if state == "good"), reverse=True)
    found, skipped = scan(folder)
    assert [one.step for one in found] == good
    assert len(skipped) == len(states) - len(good)
    if states and not good:
        assert len(refused(lambda: newest(folder)).problems) == len(states)
        return
    first, above = newest(folder)
    assert (first.step if first else None) == (good[0] if good else None)
    assert len(above) == sum(step > good[0] for step in states) if good else above == []
    assert len(quarantine(folder)) == min(1, len(above))
    assert newest(folder) == (first, [])
