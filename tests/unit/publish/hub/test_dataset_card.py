"""The card of a dataset: metadata that the Hub's own library reads, and a page without surprises."""

import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunewright.publish.hub.dataset_card import DatasetFacts, Split, dataset_card, size_category
from tunewright.publish.hub.markdown import text_plot

FACTS = DatasetFacts(
    repo_id="me/rows",
    splits=(
        Split("train", "data/train-00000-of-00001.parquet", 90, 9000, 12000, 70000, 30000),
        Split("validation", "data/validation-00000-of-00001.parquet", 10, 1000, 1300, 8000, 4000),
    ),
    features=(
        {"name": "instruction", "dtype": "string"},
        {"name": "tags", "list": "string"},
        {"name": "line", "dtype": "int64"},
    ),
    shape="instruction",
    version="0.1.0",
    digest="ab" * 32,
    license="cc-by-4.0",
    languages={"en": 0.9, "fr": 0.1},
    sources=("one.txt", "/home/somebody/secret folder/two.txt", "part/three.md"),
    lengths={"edges": [0.0, 100.0, 200.0, 300.0], "counts": [1, 80, 19]},
    left_out={"lines of text that are in no row": 12, "rows: 'output' is empty": 3, "none": 0},
    notes=("one.txt: read as cp1252",),
    template="/opt/templates/house.jinja",
    gates=({"gate": "no leaks", "value": "0 leaks", "limit": "0", "passed": True},),
    warnings={"W_EMAIL": 4},
)


def split_card(card: str) -> tuple[dict, str]:
    match = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", card, re.DOTALL)
    assert match
    return yaml.safe_load(match[1]), match[2]


def test_the_metadata_are_what_the_hub_reads():
    front, _ = split_card(dataset_card(FACTS))
    assert front["license"] == "cc-by-4.0"
    assert front["language"] == ["en", "fr"]
    assert front["tags"] == ["tunewright"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-00000-of-00001.parquet"},
                {"split": "validation", "path": "data/validation-00000-of-00001.parquet"},
            ],
        }
    ]
    info = front["dataset_info"]
    assert info["splits"][1] == {"name": "validation", "num_bytes": 8000, "num_examples": 10}
    assert (info["download_size"], info["dataset_size"]) == (34000, 78000)


def test_the_metadata_load_in_datasets():
    from datasets import DatasetInfo, Features, Value
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    card = DatasetCard(dataset_card(FACTS))
    configs = MetadataConfigs.from_dataset_card_data(card.data)
    assert list(configs) == ["default"]
    info = DatasetInfo._from_yaml_dict(card.data.dataset_info)
    assert info.splits["validation"].num_examples == 10
    assert isinstance(info.features, Features)
    assert info.features["line"] == Value("int64")


def test_the_page_tells_everything_and_no_path_of_this_machine():
    _, page = split_card(dataset_card(FACTS))
    for expected in (
        "# me/rows",
        "| `train` | 90 | 9,000 | 12,000 |",
        "100 rows",
        "* two.txt",
        "* part/three.md",
        "100 to 200 | 80 ####",
        "* 12: lines of text that are in no row",
        "* 3: rows: 'output' is empty",
        "| no leaks | 0 leaks | 0 | yes |",
        "`house.jinja`",
        "W\\_EMAIL: 4 times",
        'load_dataset("me/rows")',
        "source: hub:me/rows",
        "near-duplicate cluster",
        "one.txt: read as cp1252",
        "`cc-by-4.0`",
    ):
        assert expected in page
    assert "somebody" not in page
    assert "/opt" not in page
    assert "none" not in page


def test_the_yaml_of_the_page_is_a_source_that_our_config_takes():
    from tunewright.config.schema import PrepareSection

    _, page = split_card(dataset_card(FACTS))
    found = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert found
    section = PrepareSection(**yaml.safe_load(found[1])["prepare"])
    assert section.source[0].path == "hub:me/rows"


def test_no_licence_is_said_so():
    for given_ in (None, "unknown"):
        front, page = split_card(dataset_card(replace(FACTS, license=given_)))
        assert front["license"] == "unknown"
        assert "No licence has been chosen yet" in page
        assert "publish.license=" in page


def test_what_is_not_known_is_left_out_or_said():
    bare = DatasetFacts("me/x", FACTS.splits[:1], FACTS.features, "messages", "0.1.0", "00")
    front, page = split_card(dataset_card(bare))
    assert "language" not in front
    assert "Tokens a row" not in page
    assert "Nothing was left out." in page
    assert "was not checked" in page
    assert "one of them" not in page
    assert "JSON text" not in page
    assert "several forms" not in page


def test_mixed_forms_and_json_columns_are_said():
    mixed = replace(FACTS, mixed=True, shape="messages", json_columns=("seed",))
    _, page = split_card(dataset_card(mixed))
    assert "all are written as conversations" in page
    assert "`seed` are JSON text" in page
    _, page = split_card(dataset_card(replace(mixed, shape="several")))
    assert "one of several forms; the columns of the others are null" in page
    assert "all are written as conversations" not in page


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**10, "n>1B")],
)
def test_size_categories(rows, name):
    assert size_category(rows) == name


def test_a_bin_with_rows_has_a_bar_and_an_empty_one_none():
    lines = text_plot([0, 1000, 2000, 3000], [10_000, 1, 0]).splitlines()
    assert [line.count("#") for line in lines] == [40, 1, 0]
    assert [line.index("|") for line in lines] == [lines[0].index("|")] * 3
    assert lines[0].startswith("    0 to 1,000 | 10,000")


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_text_breaks_the_card(source, note):
    facts = replace(
        FACTS, sources=(source,), notes=(note,), gates=({"gate": note, "value": source},)
    )
    front, page = split_card(dataset_card(facts))
    assert front["tags"] == ["tunewright"]
    table = [line for line in page.splitlines() if line.startswith("| ") and "| no |" in line]
    assert len(table) == 1
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 5
    assert "<script" not in page
    assert page.count("\n## ") == 8


def test_long_lists_are_shortened():
    _, page = split_card(dataset_card(replace(FACTS, sources=[f"f{n}.txt" for n in range(50)])))
    assert "* f19.txt" in page
    assert "* f20.txt" not in page
    assert "* and 30 more" in page
