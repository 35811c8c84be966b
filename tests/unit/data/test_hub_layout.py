"""Which files of a repository are which split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.formats.hub_layout import (
    is_data,
    layout_of,
    matches,
    split_named,
    splits_by_name,
)
from tunewright.errors import TunewrightError

HOSTILE = "*/" * 20 + "**/" * 20 + "a"


def front(yaml: str) -> str:
    return f"---\n{yaml}\n---\n# Title\n"


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("data/train-0.parquet", "data/train-*", True),
        ("data/x/train-0.parquet", "data/*", False),
        ("data/x/train-0.parquet", "data/**", True),
        ("data/x/y.csv", "**/*.csv", True),
        ("y.csv", "**/*.csv", True),
        ("y.csv", "./y.csv", True),
        ("y.csv", "*.jsonl", False),
        ("y1.csv", "y[0-9].csv", True),
        ("data", "data/**", False),
        ("a/b/c/d", "a/**/d", True),
        ("a/d", "a/**/d", True),
        ("A.csv", "a.csv", False),
        ("/".join("a" * 60), HOSTILE, True),
        ("/".join("a" * 60) + "b", HOSTILE, False),
    ],
)
def test_patterns(path, pattern, expected):
    assert matches(path, pattern) is expected


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["a.jsonl", "b.jsonl"], {"train": ["a.jsonl", "b.jsonl"]}),
        (["train.csv", "test.csv", "other.csv"], {"train": ["train.csv"], "test": ["test.csv"]}),
        (
            ["x_dev.jsonl", "x-train.jsonl"],
            {"train": ["x-train.jsonl"], "validation": ["x_dev.jsonl"]},
        ),
        (["train/a.csv", "val/a.csv"], {"train": ["train/a.csv"], "validation": ["val/a.csv"]}),
        (["my train set/a.csv"], {"train": ["my train set/a.csv"]}),
        (["constraints.csv"], {"train": ["constraints.csv"]}),
        (
            ["data/train-00000-of-00001.parquet", "data/extra-00000-of-00001.parquet", "x.csv"],
            {
                "train": ["data/train-00000-of-00001.parquet"],
                "extra": ["data/extra-00000-of-00001.parquet"],
            },
        ),
        (["a.parquet", "a.csv", "b.csv"], {"train": ["a.csv", "b.csv"]}),
        (["a.parquet", "a.csv"], {"train": ["a.parquet"]}),
        (["a.jsonl.gz", "b.jsonl.zst"], {"train": ["a.jsonl.gz", "b.jsonl.zst"]}),
        (["dataset_infos.json", "rows.json"], {"train": ["rows.json"]}),
        (["readme.txt"], {"train": []}),
    ],
)
def test_splits_by_name(files, splits):
    assert splits_by_name(files) == splits


def test_names_are_read_as_datasets_reads_them(tmp_path):
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns

    for number, files in enumerate(
        (
            ["train.csv", "test.csv"],
            ["a/train/x.csv", "a/dev/x.csv", "a/eval.csv"],
            ["en_train_1.csv", "en-valid.csv", "en.test.csv"],
            ["data/train-00000-of-00001.csv", "data/mine-00000-of-00001.csv"],
            ["one.csv", "two.csv"],
        )
    ):
        base = tmp_path / str(number)
        for file in files:
            (base / file).parent.mkdir(parents=True, exist_ok=True)
            (base / file).write_text("a\n1\n")
        patterns = sanitize_patterns(get_data_patterns(str(base)))
        theirs = DataFilesDict.from_patterns(patterns, base_path=str(base))
        expected = {
            split: sorted(p.removeprefix(f"{base}/") for p in found)
            for split, found in theirs.items()
        }
        assert splits_by_name(sorted(files)) == expected


@pytest.mark.parametrize(
    ("card", "name", "splits"),
    [
        ("configs:\n- config_name: default\n  data_files: b.csv", None, {"train": ["b.csv"]}),
        (
            "configs:\n- config_name: x\n  data_files: ['*.csv']",
            None,
            {"train": ["a.csv", "b.csv"]},
        ),
        (
            "configs:\n- config_name: x\n  data_files:\n  - {split: train, path: a.csv}\n"
            "  - {split: test, path: ['b.csv', 'd/*.csv']}",
            None,
            {"train": ["a.csv"], "test": ["b.csv", "d/c.csv"]},
        ),
        (
            "configs:\n- {config_name: one, data_files: a.csv}\n"
            "- {config_name: two, data_files: b.csv, default: true}",
            None,
            {"train": ["b.csv"]},
        ),
        (
            "configs:\n- {config_name: one, data_files: a.csv}\n- {config_name: two, data_files: b.csv}",
            "one",
            {"train": ["a.csv"]},
        ),
        ("configs:\n- {config_name: x, data_dir: d}", None, {"train": ["d/c.csv"]}),
        (
            "configs:\n- {config_name: x, data_dir: ./d/, data_files: '*.csv'}",
            None,
            {"train": ["d/c.csv"]},
        ),
        (
            "configs:\n- {config_name: x, drop_labels: true}",
            None,
            {"train": ["a.csv", "b.csv", "d/c.csv"]},
        ),
        ("license: mit", None, {"train": ["a.csv", "b.csv", "d/c.csv"]}),
        ("license: mit", "default", {"train": ["a.csv", "b.csv", "d/c.csv"]}),
    ],
)
def test_the_card_decides(card, name, splits):
    files = ["a.csv", "b.csv", "d/c.csv", ".hidden.csv", "__pycache__/x.csv", "README.md"]
    assert layout_of(files, front(card), name, "hub:o/n").splits == splits


@pytest.mark.parametrize(
    ("card", "name", "message"),
    [
        ("configs:\n- {config_name: x, data_files: a.csv}", "y", "There is no subset 'y': x."),
        ("a: 1", "y", "the dataset has none"),
        (
            "configs:\n- {config_name: x, data_files: a}\n- {config_name: y, data_files: b}",
            None,
            "several subsets: x, y.",
        ),
        ("configs: 5", None, "no list of mappings"),
        ("configs: [1]", None, "no list of mappings"),
        ("configs:\n- {config_name: x, data_files: 7}", None, "does not understand"),
        ("configs:\n- {config_name: x, data_files: [{path: 7}]}", None, "does not understand"),
        ("configs:\n- {config_name: x, data_files: 'https://h.org/a.csv'}", None, "elsewhere"),
        ("a: &a [1]\nconfigs: *a", None, "cannot be read"),
        ("a: [", None, "cannot be read"),
        ("a: !!python/object:os.system x", None, "cannot be read"),
        ("a: " + "[" * 100_000, None, "cannot be read"),
        ("a: " + "x" * 500_001, None, "cannot be read"),
    ],
)
def test_a_card_that_cannot_be_used_is_an_error(card, name, message):
    with pytest.raises(TunewrightError, match=r"E_HUB") as caught:
        layout_of(["a.csv"], front(card), name, "hub:o/n")
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.where == "hub:o/n"
    assert problem.fix


@pytest.mark.parametrize(
    "file", ["a.py", "a.zip", "a.pkl", "a.parquet.gz", "a.txt", "config.json", "a.jsonl.xz", "csv"]
)
def test_what_is_no_data_file(file):
    assert not is_data(file)


@given(st.text(max_size=200))
def test_any_card_gives_a_layout_or_an_error_of_ours(card):
    for text in (card, front(card), front(f"configs: {card}")):
        try:
            assert layout_of(["a.csv"], text, None, "hub:o/n").splits
        except TunewrightError as error:
            assert error.problems[0].code == "E_HUB"


names = st.lists(
    st.sampled_from(["train", "dev", "test", "data", "x", "a b"]), min_size=1, max_size=3
).map(lambda parts: "/".join(parts) + ".csv")


@given(st.lists(names, unique=True, min_size=1))
def test_no_file_is_in_two_splits(files):
    found = [file for split in splits_by_name(files).values() for file in split]
    assert len(found) == len(set(found))
    assert set(found) <= set(files)
    assert found


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train.jsonl", "train"),
        ("data/my_test.csv", "test"),
        ("test/a.csv", None),
        ("dev-1.parquet", "validation"),
        ("latest.jsonl", None),
        ("contest.jsonl", None),
    ],
)
def test_the_split_that_a_name_tells(file, split):
    assert split_named(file) == split
