import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.artifacts import fingerprints, kind_of, load_artifact, make_key, writing
from tunewright.errors import TunewrightError


def make(path: Path, text: str = "hello", settings: object = None):
    with writing(path, "dataset", settings=settings, parents={}) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "a.txt").write_text(text)
        draft.facts["rows"] = 3
    return load_artifact(path, "dataset")


def code_of(action) -> str:
    with pytest.raises(TunewrightError) as caught:
        action()
    return caught.value.problems[0].code


def test_round_trip(tmp_path):
    artifact = make(tmp_path / "d", settings={"a": 1})
    assert artifact.facts == {"rows": 3}
    assert list(artifact.files) == ["sub/a.txt"]
    assert artifact.key == make_key("dataset", {"a": 1}, {})
    assert str(tmp_path) not in (tmp_path / "d" / "manifest.json").read_text()
    assert load_artifact(tmp_path / "d", "dataset", verify=True) == artifact


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_or_interrupt_leaves_what_was_there(tmp_path, error):
    make(tmp_path / "d", "old")
    with (
        pytest.raises(error),
        writing(tmp_path / "d", "dataset", settings=None, parents={}) as draft,
    ):
        (draft.path / "half.txt").write_text("half")
        raise error
    assert (tmp_path / "d" / "sub" / "a.txt").read_text() == "old"
    assert not list(tmp_path.glob(".tmp-*"))


def test_made_anew_replaces_and_changes_the_digest(tmp_path):
    first = make(tmp_path / "d", "old")
    second = make(tmp_path / "d", "new")
    assert (tmp_path / "d" / "sub" / "a.txt").read_text() == "new"
    assert first.digest != second.digest


def test_made_anew_alike_it_is_the_same(tmp_path):
    """Neither the time nor the wish is what an artifact is; files, facts, parents and kind are."""
    first = make(tmp_path / "d", settings={"a": 1})
    second = make(tmp_path / "d", settings={"a": 2})
    assert first.digest == second.digest
    assert first.created != second.created
    assert first.key != second.key
    assert first.options != second.options
    file = tmp_path / "d" / "manifest.json"
    fields = json.loads(file.read_text())
    for change in (
        {"facts": {"rows": 4}},
        {"files": {}},
        {"parents": {"check": "x"}},
        {"tunewright": "9"},
    ):
        file.write_text(json.dumps(fields | change))
        assert load_artifact(tmp_path / "d", "dataset").digest != first.digest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text("xyz", min_size=1), JSON), JSON)
def test_fingerprints_tell_by_name_what_differs(settings, value):
    before = fingerprints(settings)
    now = fingerprints(settings | {"name": {"of": value}})
    changed = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    assert changed
    assert all(key == "name.of" or key.startswith("name.of.") for key in changed)
    assert fingerprints(json.loads(json.dumps(settings))) == before


def test_fingerprints_hold_no_value():
    found = fingerprints({"prepare": {"source": [{"path": "/home/me/secret"}]}, "seed": 7})
    assert found.keys() == {"prepare.source", "seed"}
    assert "secret" not in str(found)
    assert all(len(digest) == 12 for digest in found.values())


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    stale = tmp_path / ".tmp-d-dead"
    stale.mkdir()
    make(tmp_path / "d")
    assert not stale.exists()


def test_two_writers_of_one_artifact(tmp_path):
    with writing(tmp_path / "d", "dataset", settings=None, parents={}):
        assert code_of(lambda: make(tmp_path / "d")) == "E_RUN_LOCKED"


def test_missing_torn_and_altered(tmp_path):
    path = tmp_path / "d"
    assert code_of(lambda: load_artifact(path, "dataset")) == "E_ARTIFACT_MISSING"
    make(path)
    assert code_of(lambda: load_artifact(path, "merged")) == "E_ARTIFACT_INVALID"
    (path / "sub" / "a.txt").write_text("hellO")
    with pytest.raises(TunewrightError) as caught:
        load_artifact(path, "dataset", verify=True)
    (problem,) = caught.value.problems
    assert problem.code == "E_ARTIFACT_INVALID"
    assert problem.fix == f"tunewright prepare {tmp_path} makes it again"
    (path / "sub" / "a.txt").unlink()
    assert code_of(lambda: load_artifact(path, "dataset", verify=True)) == "E_ARTIFACT_INVALID"
    (path / "manifest.json").write_text('{"kind": "data')
    assert code_of(lambda: load_artifact(path, "dataset")) == "E_ARTIFACT_INVALID"
    (path / "manifest.json").write_text(json.dumps([1]))
    assert code_of(lambda: load_artifact(path, "dataset")) == "E_ARTIFACT_INVALID"


def test_refusal_of_the_system_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    assert code_of(lambda: make(tmp_path / "file" / "d")) == "E_IO"


def test_key_depends_on_everything_that_determines():
    keys = {
        make_key("dataset", {"a": 1}, {}),
        make_key("check", {"a": 1}, {}),
        make_key("dataset", {"a": 2}, {}),
        make_key("dataset", {"a": 1}, {"dataset": "x"}),
    }
    assert len(keys) == 4


def test_a_link_in_place_of_an_artifact_is_refused_before_work_begins(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "mine.txt").write_text("keep")
    (tmp_path / "d").symlink_to(tmp_path / "real")
    assert code_of(lambda: make(tmp_path / "d")) == "E_UNSAFE_PATH"
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["mine.txt"]
    make(tmp_path / "e")
    (tmp_path / "f").symlink_to(tmp_path / "e")
    assert code_of(lambda: load_artifact(tmp_path / "f", "dataset")) == "E_UNSAFE_PATH"


def test_files_that_lead_out_of_an_artifact_are_refused(tmp_path):
    path = tmp_path / "d"
    make(path)
    (tmp_path / "secret.txt").write_text("hello")
    (path / "sub" / "a.txt").unlink()
    (path / "sub" / "a.txt").symlink_to(tmp_path / "secret.txt")
    assert code_of(lambda: load_artifact(path, "dataset")) == "E_UNSAFE_PATH"
    make(path)
    (path / "sub" / "b.txt").write_text("hello")
    (path / "sub" / "a.txt").unlink()
    (path / "sub" / "a.txt").symlink_to(path / "sub" / "b.txt")
    assert load_artifact(path, "dataset", verify=True).facts == {"rows": 3}
    manifest = path / "manifest.json"
    named = json.loads(manifest.read_text())
    named["files"]["../secret.txt"] = named["files"]["sub/a.txt"]
    manifest.write_text(json.dumps(named))
    assert code_of(lambda: load_artifact(path, "dataset", verify=True)) == "E_UNSAFE_PATH"
    manifest.write_text("[" * 100_000)
    assert code_of(lambda: load_artifact(path, "dataset")) == "E_ARTIFACT_INVALID"


def test_what_a_folder_holds_is_told_by_its_manifest(tmp_path):
    make(tmp_path / "d")
    assert kind_of(tmp_path / "d") == "dataset"
    assert kind_of(tmp_path) is None
    for text in ('{"kind": "dataset"}', '{"format": 1, "kind": "car"}', "[" * 1000, ""):
        (tmp_path / "manifest.json").write_text(text)
        assert kind_of(tmp_path) is None


def test_the_key_of_another_version_can_be_made_again(tmp_path):
    artifact = make(tmp_path / "d", settings={"a": 1})
    assert make_key("dataset", {"a": 1}, {}, artifact.made_by) == artifact.key
    assert make_key("dataset", {"a": 1}, {}, "0.0.0") != artifact.key
