"""Positions, arrows, gates and commands of the page."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config, PrepareSection
from tunewright.report import view
from tunewright.report.numbers import as_number

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.none()


def test_the_scale_runs_from_base_to_author():
    found = view.scale({"score": 50.0, "low": 40.0, "high": 60.0}, 60.0)
    assert found
    assert (found.base, found.score, found.author) == (7.0, 50.0, 93.0)
    assert found.low < found.score < found.high == found.target


@given(score=NUMBERS, low=NUMBERS, high=NUMBERS)
def test_the_scale_stays_inside_its_drawing(score, low, high):
    found = view.scale({"score": score, "low": low, "high": high}, 60.0)
    if found:
        places = [found.base, found.author, found.target, found.score, found.low, found.high]
        assert all(0 <= place <= 100 for place in places)
    else:
        assert as_number(score) is None


def test_no_score_no_scale():
    assert view.scale(None, 60) is None
    assert view.scale({"score": None}, 60) is None


@pytest.mark.parametrize(
    ("row", "arrow", "closer"),
    [
        ({"base": 1.0, "tuned": 2.0, "author": 3.0}, "↑", True),
        ({"base": 3.0, "tuned": 2.0, "author": 4.0}, "↓", False),
        ({"base": 3.0, "tuned": 3.0, "author": 4.0}, "=", None),
        ({"base": 1.0, "tuned": 2.0, "author": 3.0, "towards": False}, "↑", False),
        ({"base": None, "tuned": 2.0}, "", None),
    ],
)
def test_markers(row, arrow, closer):
    (marker,) = view.markers([row])
    assert (marker["arrow"], marker["closer"]) == (arrow, closer)


@pytest.mark.parametrize(
    ("verdict", "tone"),
    [("improved", "good"), ("memorised", "bad"), ("undecided", "open"), (None, "open")],
)
def test_tone(verdict, tone):
    assert view.tone(verdict) == tone


@pytest.mark.parametrize(
    ("sentence", "reasons", "shown"),
    [
        ("It is better. A. B.", ["A.", "B."], "It is better."),
        ("It is better. A, and B.", ["A.", "B."], "It is better. A, and B."),
        ("A. B.", ["A.", "B."], "A. B."),
        ("It is better.", [], "It is better."),
    ],
)
def test_the_headline_leaves_out_the_reasons(sentence, reasons, shown):
    assert view.headline({"sentence": sentence, "reasons": reasons}) == shown


def artifact(kind, *, passed=True):
    gate = {"gate": "g", "value": "", "limit": "", "passed": passed}
    return Artifact(kind, Path(), "", "", {}, {"gates": [gate]}, {}, "")


def test_a_stage_counts_its_own_gates_that_failed():
    found = view.stages(
        {"dataset": artifact("dataset"), "adapter": artifact("adapter", passed=False)}
    )
    assert [(stage.done, stage.failed) for stage in found[:3]] == [(True, 0), (True, 1), (False, 0)]


def test_gates_come_in_the_pipeline_s_order():
    kinds = ("exported", "plan", "dataset", "check", "adapter")
    found = view.gates({kind: artifact(kind) for kind in kinds})
    assert [gate["stage"] for gate in found] == ["data", "check", "plan", "training", "export"]


def test_commands_are_quoted_for_the_shell():
    config = Config(output_dir="my runs/{name}", prepare=PrepareSection(source="x"))
    exported = Artifact("exported", Path(), "", "", {}, {"ollama_template": True}, {}, "")
    found = dict(view.commands(config, {"exported": exported}))
    assert found["Ollama"].startswith(
        "ollama create tunewright/run -f 'my runs/run/exported/Modelfile'"
    )
    assert found["Chat in the terminal"] == "tunewright chat 'my runs/run'"
