"""Reading, checking and rolling back a store."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published import write_version

from tunewright.artifacts import sha256
from tunewright.config.schema import Config, PrepareSection, PublishSection
from tunewright.errors import TunewrightError
from tunewright.publish.versions import layout, manifest, store


@pytest.fixture
def root(tmp_path) -> Path:
    """A store with v1 and v2 of one adapter; the map names v2."""
    for version in ("v1", "v2"):
        write_version(tmp_path, "writer", "voice", version)
    return tmp_path


def refused(code: str):
    return pytest.raises(TunewrightError, match=code)


def test_the_root_is_the_configs_then_the_environments(monkeypatch):
    named = Config(prepare=PrepareSection(source="x"), publish=PublishSection(store="a"))
    monkeypatch.delenv("MODEL_STORE_ROOT", raising=False)
    assert layout.store_root() == Path("store")
    monkeypatch.setenv("MODEL_STORE_ROOT", "b")
    assert layout.store_root() == Path("b")
    assert layout.store_root(Config(prepare=PrepareSection(source="x"))) == Path("b")
    assert layout.store_root(named) == Path("a")


def test_an_empty_store_is_no_error(tmp_path):
    assert store.list_versions(tmp_path / "none") == []
    assert store.verify(tmp_path / "none") == []
    with refused("E_NOT_FOUND"):
        store.resolve(tmp_path / "none", "writer")


def test_rollback_moves_the_map_only(root):
    before = sorted(p for p in root.rglob("*"))
    assert store.resolve(root, "writer").name == "v2"
    assert store.rollback(root, "writer", "v1").name == "v1"
    assert store.resolve(root, "writer").name == "v1"
    assert sorted(p for p in root.rglob("*")) == before
    assert store.verify(root) == []
    assert [(v.version, v.current) for v in store.list_versions(root)] == [
        ("v1", True),
        ("v2", False),
    ]


def test_the_map_is_what_a_loader_reads(root):
    assert json.loads((root / layout.MAP).read_text()) == {
        "writer": {
            "adapter": "voice",
            "version": "v2",
            "base": "tunewright/tiny",
            "base_revision": None,
            "path": "writer/voice/v2",
            "manifest_sha256": sha256(root / "writer/voice/v2/manifest.json"),
        }
    }


def test_rollback_to_what_is_not_there_or_damaged_leaves_the_map(root):
    with refused("E_NOT_FOUND"):
        store.rollback(root, "writer", "v3")
    (root / "writer/voice/v1/adapter/weights").write_text("xx")
    with refused("E_DIGEST_MISMATCH"):
        store.rollback(root, "writer", "v1")
    assert store.resolve(root, "writer").name == "v2"


def change(path: Path) -> None:
    path.write_text("xx")


def remove(path: Path) -> None:
    path.unlink()


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("damage", [change, remove, link])
@pytest.mark.parametrize("name", ["adapter/weights", "manifest.json"])
def test_a_damaged_file_is_found_and_not_resolved(root, name, damage):
    damage(root / "writer/voice/v2" / name)
    problems = store.verify(root)
    code = "E_UNSAFE_PATH" if damage is link else "E_DIGEST_MISMATCH"
    assert problems[0].code == code
    assert all("v2" in p.where for p in problems)
    with refused(code):
        store.resolve(root, "writer")


def test_an_added_file_is_found(root):
    (root / "writer/voice/v1/extra").write_text("")
    assert [Path(p.where).name for p in store.verify(root)] == ["extra"]


def test_a_version_moved_to_another_name_is_found(root):
    (root / "writer/voice/v1").rename(root / "writer/voice/v9")
    assert [p.code for p in store.verify(root)] == ["E_DIGEST_MISMATCH"]


def test_another_whole_version_in_the_place_of_the_mapped_one_is_found(root):
    data = store.show(root, "writer", "voice", "v2")
    file = root / "writer/voice/v2/manifest.json"
    file.write_bytes(manifest.dump({**data, "verdict": "degraded"}))
    with refused("E_DIGEST_MISMATCH"):
        store.resolve(root, "writer")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1}', '{"../x": {}}', '{"a": {"adapter": 1}}']
)
def test_a_damaged_map_is_named(root, text):
    (root / layout.MAP).write_text(text)
    assert [p.where for p in store.verify(root)] == [str(root / layout.MAP)]
    with refused("E_DIGEST_MISMATCH"):
        store.resolve(root, "writer")


def test_a_damaged_manifest_is_listed_as_such(root):
    (root / "writer/voice/v1/manifest.json").write_text("{}")
    assert [v.verdict for v in store.list_versions(root)] == ["damaged", "improved"]
    with refused("E_DIGEST_MISMATCH"):
        store.show(root, "writer", "voice", "v1")


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "", "-x", "CON", "a" * 300, layout.MAP])
def test_names_that_are_no_names_are_refused(root, name):
    with refused("E_NAME"):
        store.resolve(root, name)
    with refused("E_NAME"):
        store.show(root, "writer", "voice", name)
    with refused("E_NOT_FOUND" if name == "a/b" else "E_NAME"):
        store.rollback(root, "writer", name)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> bytes:
    """A manifest."""
    folder = write_version(tmp_path_factory.mktemp("raw"), "a", "b", "v1")
    return (folder / "manifest.json").read_bytes()


@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_every_flipped_bit_of_a_manifest_is_found(raw, position, bit):
    raw = bytearray(raw)
    assert manifest.parse(bytes(raw))["agent"] == "a"
    raw[position % len(raw)] ^= 1 << bit
    with pytest.raises(ValueError, match=r".+"):
        manifest.parse(bytes(raw))
