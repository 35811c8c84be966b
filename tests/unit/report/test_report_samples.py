"""Answers cut at what was copied, and which of them are on the page."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.artifacts import Artifact
from tunewright.report.samples import FOLDED, SHOWN, pieces, read_samples

TEXT = "The tide went out as it had every morning."
SPANS = st.lists(
    st.tuples(st.integers(-3, 60), st.integers(-3, 60), st.just(8), st.just("a.txt")), max_size=6
)


def evaluation(folder: Path, rows: list[dict]) -> Artifact:
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Artifact("evaluation", folder, "", "", {}, {}, {}, "")


def row(number: int, **more: object) -> dict:
    return {"prompt": f"p{number}", "base": "b", "tuned": TEXT, "author": None, **more}


def test_a_copy_is_a_piece_of_its_own():
    found = pieces(TEXT, [[4, 8, 1, "a.txt"], [9, 17, 2, "b.txt"]])
    assert [(piece.text, piece.note) for piece in found] == [
        ("The ", 0),
        ("tide", 1),
        (" ", 0),
        ("went out", 2),
        (" as it had every morning.", 0),
    ]
    assert (found[3].words, found[3].source) == (2, "b.txt")


def test_no_copy_no_cut():
    assert [piece.text for piece in pieces(TEXT, [])] == [TEXT]
    assert pieces("", []) == []


@pytest.mark.parametrize(
    "span", [[40, 99, 8, "a"], [-1, 4, 8, "a"], [6, 6, 8, "a"], [9, 4, 8, "a"]]
)
def test_a_span_outside_the_text_is_left_out(span):
    assert [piece.note for piece in pieces(TEXT, [span])] == [0]


def test_a_span_within_another_is_left_out():
    assert [piece.note for piece in pieces(TEXT, [[0, 8, 8, "a"], [4, 12, 8, "b"]])] == [1, 0]


@given(text=st.text(max_size=50), spans=SPANS)
def test_the_pieces_are_the_text(text, spans):
    assert "".join(piece.text for piece in pieces(text, spans)) == text


def test_the_user_s_own_prompts_come_first(tmp_path):
    rows = [row(n, scored=True) for n in range(9)] + [row(9, scored=False)]
    found = read_samples(evaluation(tmp_path, rows))
    assert [sample.number for sample in found.first] == [10, 1, 2, 3, 4, 5]
    assert [sample.own for sample in found.first] == [True] + [False] * 5
    assert (found.total, found.elsewhere) == (10, 0)
    assert [list(sample.sides) for sample in found.first[:2]] == [
        ["base", "tuned"],
        ["base", "tuned", "author"],
    ]


def test_of_the_folded_ones_those_with_copies_come_first(tmp_path):
    copied = {"tuned": [[0, 8, 8, "a.txt"]]}
    rows = [row(n, copied=copied if n == 50 else {}) for n in range(60)]
    found = read_samples(evaluation(tmp_path, rows))
    assert [sample.number for sample in found.folded][:2] == [51, SHOWN + 1]
    assert (len(found.first), len(found.folded), found.total) == (SHOWN, FOLDED, 60)
    assert found.elsewhere == 60 - SHOWN - FOLDED
    assert found.has_copy
    assert found.looked_up


def test_an_older_evaluation_did_not_look_copies_up(tmp_path):
    found = read_samples(evaluation(tmp_path, [row(1)]))
    assert not found.looked_up
    assert not found.has_copy


def test_without_a_file_there_are_none(tmp_path):
    artifact = Artifact("evaluation", tmp_path, "", "", {}, {}, {}, "")
    assert read_samples(artifact).total == read_samples(None).total == 0
    assert not read_samples(None).looked_up
