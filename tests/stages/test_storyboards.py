"""Storyboards through the stages: many variations, nothing on both sides, the template in every later stage."""

import json
import random

import pytest
from datasketch import MinHash, MinHashLSH

from tunewright import check, prepare
from tunewright.artifacts import load_artifact, writing
from tunewright.errors import TunewrightError

FACTOR = 20
OPTIONS = (
    "prepare.source=sample:storyboards",
    f"prepare.storyboard.augmentation_factor={FACTOR}",
    "prepare.eval_split=0.15",
    "model.chat_template=style-prompt",
    "train.max_length=384",
)


@pytest.fixture(scope="module")
def made(make_config):
    config = make_config(*OPTIONS)
    return config, prepare(config)


def rows_of(dataset, side):
    return [json.loads(x) for x in (dataset.path / f"{side}.jsonl").read_text().splitlines()]


def shingles(row):
    words = f"{row['prompt']} {row['completion']}".lower().split()
    return {" ".join(words[n : n + 5]) for n in range(len(words) - 4)}


def near_pairs_across(train, held, threshold=0.8):
    """Near copies by a library's index, independent of the code under test."""
    index = MinHashLSH(threshold=0.6, num_perm=128)

    def signature(row):
        found = MinHash(num_perm=128)
        found.update_batch([s.encode() for s in shingles(row)])
        return found

    for number, row in enumerate(train):
        index.insert(number, signature(row))
    return [
        (other, number)
        for number, row in enumerate(held)
        for other in index.query(signature(row))
        if len(shingles(row) & shingles(train[other]))
        >= threshold * len(shingles(row) | shingles(train[other]))
    ]


def test_no_source_and_no_near_copy_is_on_both_sides_of_the_split(made):
    _, dataset = made
    train, held = rows_of(dataset, "train"), rows_of(dataset, "eval")
    shots = {row["source_id"] for row in train + held}
    assert len(shots) >= 90
    assert len(train) + len(held) >= 0.95 * FACTOR * len(shots)
    assert not {row["source_id"] for row in train} & {row["source_id"] for row in held}
    assert near_pairs_across(train, held) == []
    assert 0.1 <= dataset.facts["held_out_share"] <= 0.225


def test_a_plain_random_split_of_the_same_rows_leaks_and_is_refused(made, make_config):
    config, dataset = made
    rows = rows_of(dataset, "train") + rows_of(dataset, "eval")
    random.Random(7).shuffle(rows)
    border = len(rows) - dataset.facts["eval_rows"]
    train, held = rows[:border], rows[border:]
    both = {row["source_id"] for row in train} & {row["source_id"] for row in held}
    assert len(both) >= 0.9 * len({row["source_id"] for row in rows})
    path = dataset.path.parent / "random"
    with writing(path, "dataset", settings=0, parents={}) as draft:
        for side, part in (("train", train), ("eval", held)):
            text = "".join(json.dumps(row) + "\n" for row in part)
            (draft.path / f"{side}.jsonl").write_text(text)
    with pytest.raises(TunewrightError) as caught:
        check(config, load_artifact(path, "dataset"))
    assert {problem.code for problem in caught.value.problems} == {"E_LEAK"}
    assert caught.value.details["sources_on_both_sides"] >= 0.9 * len(held)


def test_the_split_that_was_made_passes_the_check(made):
    config, dataset = made
    found = check(config, dataset).facts
    assert found["leaks"] == found["sources_on_both_sides"] == 0
    assert found["rows_with_end"] == found["rows"]


def test_rows_are_the_same_when_made_again_and_read_as_the_format_says(made, make_config):
    _, dataset = made
    assert prepare(make_config(*OPTIONS)).files == dataset.files
    config, _ = made
    text = check(config, dataset)
    shown = json.loads((text.path / "rendered.jsonl").read_text().splitlines()[0])
    whole = "".join(run["text"] for run in shown["runs"])
    headings = ("Instruction", "Style", "Response", "Negative Prompt", "Tags")
    places = [whole.index(f"### {heading}:\n") for heading in headings]
    assert places == sorted(places)
    learned = "".join(run["text"] for run in shown["runs"] if run["learned"])
    assert whole[places[2] + len("### Response:\n") :].startswith(learned[:40])
    assert "### Instruction" not in learned
