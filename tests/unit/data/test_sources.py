import json
import os
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.artifacts import writing
from tunewright.config.load import config_of_source
from tunewright.config.schema import PrepareSection, SourceSection
from tunewright.data._sources import against_digests, input_digests
from tunewright.data.sources import Fetched, find, natural
from tunewright.errors import TunewrightError, failure

ROW = '{"prompt": "a", "completion": "b"}\n'


def nothing(entry: SourceSection) -> Fetched:
    raise failure("E_HUB", "There is no network here.", where=entry.path)


def options(*sources: object) -> PrepareSection:
    return PrepareSection.model_validate({"source": list(sources)})


def names(*sources: object, **more):
    return [file.name for file in find(options(*sources), nothing, **more).files]


def codes(*sources: object, **more) -> list[str]:
    with pytest.raises(TunewrightError) as caught:
        find(options(*sources), nothing, **more)
    return [problem.code for problem in caught.value.problems]


def fill(folder: Path, *files: str, text: str = ROW) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def artifact(path: Path, kind: str = "dataset", files: tuple[str, ...] = ()) -> None:
    with writing(path, kind, settings=0, parents={}) as draft:
        for name in files:
            (draft.path / name).write_text(ROW)


def test_numbers_in_names_count_as_numbers_and_no_two_keys_are_equal(tmp_path):
    fill(tmp_path, "c10.jsonl", "c2.jsonl", "c01.jsonl", "c1.jsonl", "a/c3.jsonl")
    expected = ["a/c3.jsonl", "c01.jsonl", "c1.jsonl", "c2.jsonl", "c10.jsonl"]
    assert names(str(tmp_path)) == expected


@given(st.lists(st.text(alphabet="ab019/.٣", min_size=1), min_size=2, max_size=4))
def test_the_order_of_paths_is_total(texts):
    paths = list({Path(text).as_posix(): Path(text) for text in texts}.values())
    for one, other in combinations(paths, 2):
        assert (natural(one) < natural(other)) != (natural(other) < natural(one))


def test_hub_files_are_named_by_their_place_in_the_repository(tmp_path):
    fill(tmp_path, "x", "y")
    fetched = Fetched(
        [tmp_path / "x", tmp_path / "y"], ["en/a.jsonl", "de/a.jsonl"], "0" * 40, "two files"
    )
    found = find(options({"path": "hub:o/n", "format": "rows"}), lambda entry: fetched)
    assert [(file.name, file.path.name) for file in found.files] == [
        ("en/a.jsonl", "x"),
        ("de/a.jsonl", "y"),
    ]
    assert found.notes == ("hub:o/n: commit 000000000000; two files",)


def test_names_are_unique_whatever_the_files_are_called(tmp_path):
    fill(tmp_path, "a/r.jsonl", "b/r.jsonl", "c/2:r.jsonl", "d/2:r.jsonl", "d/2:r.jsonl (2)")
    sources = [str(tmp_path / "a" / "r.jsonl"), str(tmp_path / "b" / "r.jsonl")]
    assert names(*sources) == ["1:r.jsonl", "2:r.jsonl"]
    found = names(*sources, str(tmp_path / "c" / "2:r.jsonl"))
    assert found == ["1:r.jsonl", "2:r.jsonl", "2:r.jsonl (2)"]
    odd = {"path": str(tmp_path / "d" / "2:r.jsonl (2)"), "format": "rows"}
    found = names(*sources, str(tmp_path / "c" / "2:r.jsonl"), odd)
    assert found == ["1:r.jsonl", "2:r.jsonl", "2:r.jsonl (3)", "2:r.jsonl (2)"]
    same = [sources[0]] * 3
    assert names(*same) == ["1:r.jsonl", "2:r.jsonl", "3:r.jsonl"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("a" * 256, "E_NAME"),
        ("a/" * 3000, "E_NAME"),
        ("~nosuchuserhere/x", "E_NOT_FOUND"),
        ("none.jsonl", "E_NOT_FOUND"),
        ("sample:none", "E_NOT_FOUND"),
        ("a\0b", "E_NAME"),
        ({"path": "a.jsonl", "split": "test"}, "E_CONFIG_VALUE"),
        ({"path": "a.jsonl", "name": "x"}, "E_CONFIG_VALUE"),
        ({"path": "sample:shell-helper.jsonl", "revision": "main"}, "E_CONFIG_VALUE"),
    ],
)
def test_sources_that_cannot_be(tmp_path, monkeypatch, source, code):
    monkeypatch.chdir(fill(tmp_path, "a.jsonl"))
    assert codes(source) == [code]


def test_names_that_are_not_utf8_are_refused_together(tmp_path):
    fill(tmp_path, "good.jsonl")
    for name in (b"caf\xe9.jsonl", b"na\xefve.jsonl", b"left\xff.weights"):
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_text(ROW)
    with pytest.raises(TunewrightError) as caught:
        find(options(str(tmp_path)), nothing)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E_NAME", str(tmp_path / "caf\\xe9.jsonl"))
    assert "2 files" in problem.message


def test_what_is_left_out_of_a_folder_is_named(tmp_path):
    data = fill(tmp_path / "data", "r.jsonl", "a.bin", "README.md", ".hidden.jsonl", "x/y.jsonl")
    fill(tmp_path / "else", "z.jsonl")
    (data / "folder").symlink_to(tmp_path / "else")
    (data / "dangling.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    (data / "inside.jsonl").symlink_to(data / "x" / "y.jsonl")
    os.mkfifo(data / "pipe.jsonl")
    found = find(options(str(data)), nothing)
    assert [file.name for file in found.files] == ["inside.jsonl", "r.jsonl", "x/y.jsonl"]
    said = {note.removeprefix(f"{data}: left out: ") for note in found.notes}
    assert said == {
        "linked folders: folder",
        "links to nothing: dangling.jsonl",
        "special files: pipe.jsonl",
        "other files: README.md, a.bin",
    }


def test_many_files_that_are_left_out_are_counted(tmp_path):
    fill(tmp_path, "r.jsonl", *(f"{n}.bin" for n in range(1005)))
    (note,) = find(options(str(tmp_path)), nothing).notes
    assert note.endswith("left out: other files: 0.bin, 1.bin, 2.bin and 1,002 more")


def test_a_file_that_a_link_brings_from_elsewhere_is_refused(tmp_path):
    data = fill(tmp_path / "data", "r.jsonl")
    fill(tmp_path, "secret.jsonl")
    (data / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    assert codes(str(data)) == ["E_UNSAFE_PATH"]


def test_what_tunewright_has_made_is_no_data(tmp_path):
    data = fill(
        tmp_path / "data", "r.jsonl", "out/manifest.json", "run/notes.jsonl", "mine/x.jsonl"
    )
    artifact(data / "runs" / "one" / "dataset", files=("train.jsonl", "rejected.jsonl"))
    artifact(data / "checks" / "check", "check", ("rendered.jsonl",))
    (data / "runs" / "one" / "run.yaml").write_text("")
    fill(data, "runs/one/other.jsonl")
    found = find(options(str(data)), nothing, run_dir=data / "run")
    assert [file.name for file in found.files] == ["mine/x.jsonl", "out/manifest.json", "r.jsonl"]
    (note,) = found.notes
    assert "folders that Tunewright has made: checks/check, run, runs/one" in note


def test_lists_beside_rows_are_left_out_and_those_of_a_user_are_not(tmp_path):
    fixed = fill(tmp_path / "fixed", "rows.jsonl", "changes.jsonl", "rejected.jsonl")
    assert names(str(fixed)) == ["rows.jsonl"]
    artifact(tmp_path / "d", files=("train.jsonl", "eval.jsonl", "dropped.jsonl", "rejected.jsonl"))
    assert names(str(tmp_path / "d")) == ["eval.jsonl", "train.jsonl"]
    (tmp_path / "d" / "manifest.json").unlink()
    assert names(str(tmp_path / "d")) == ["eval.jsonl", "train.jsonl"]
    user = fill(tmp_path / "user", "rejected.jsonl", "rows.jsonl", "manifest.json")
    assert names(str(user)) == ["manifest.json", "rejected.jsonl", "rows.jsonl"]


def test_splits_that_are_put_together_are_named(tmp_path):
    fill(tmp_path / "two", "train.jsonl", "test.jsonl", "dev-1.jsonl", "train-2.jsonl")
    (note,) = find(options(str(tmp_path / "two")), nothing).notes
    expected = "dev-1.jsonl, test.jsonl and train-2.jsonl are read together and split anew"
    assert expected in note
    fill(tmp_path / "one", "train-1.jsonl", "train-2.jsonl", "other.jsonl")
    assert find(options(str(tmp_path / "one")), nothing).notes == ()
    fill(tmp_path / "prose", "train.txt", "test.txt", text="A day on the rails.")
    assert find(options(str(tmp_path / "prose")), nothing).notes == ()


def test_sources_that_are_gone_are_an_error_only_where_they_are_needed(tmp_path):
    fill(tmp_path, "r.jsonl", "a.docx.weights")
    sources = (str(tmp_path / "r.jsonl"), "none.jsonl", "hub:o/n")
    assert codes(*sources) == ["E_NOT_FOUND", "E_HUB"]
    found = find(options(*sources), nothing, lenient=True)
    assert ([file.name for file in found.files], found.gone) == (
        ["r.jsonl"],
        ("none.jsonl", "hub:o/n"),
    )
    assert codes(str(tmp_path / "a.docx.weights"), lenient=True) == ["E_DATA_ROW"]


def test_digests_of_what_determines_a_dataset_and_a_check(tmp_path):
    fill(tmp_path, "r.jsonl", "bench.jsonl", "t.jinja")
    config = config_of_source(str(tmp_path / "r.jsonl"))
    before = input_digests(config)
    assert list(before) == ["r.jsonl"]
    assert against_digests(config) == {}
    fill(tmp_path, "r.jsonl", text=ROW + ROW)
    assert input_digests(config) != before
    both = config_of_source(
        str(tmp_path / "r.jsonl"),
        [
            f"check.against={json.dumps(str(tmp_path / 'bench.jsonl'))}",
            f"model.chat_template={tmp_path / 't.jinja'}",
        ],
    )
    assert list(against_digests(both)) == ["bench.jsonl"]
    assert set(input_digests(both)) == {"r.jsonl", "model.chat_template"}
    (tmp_path / "r.jsonl").unlink()
    assert input_digests(config) == {str(tmp_path / "r.jsonl"): ""}
    (tmp_path / "bench.jsonl").unlink()
    with pytest.raises(TunewrightError):
        against_digests(both)
