"""A run is resumed only as what it was."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.errors import TunewrightError
from tunewright.train.identity import ENVIRONMENT, differences, require_same

WHERE = Path("runs/mine/training")
RUN: dict[str, Any] = {
    "data": "a" * 64,
    "order": "b" * 64,
    "tokenizer": "c" * 64,
    "chat_template": "d" * 64,
    "base": {"name": "org/base", "revision": "e" * 40, "files": {"model.safetensors": "f" * 64}},
    "train": {"max_length": 512, "learning_rate": 2e-4, "lora": {"r": 16, "target_modules": ["q"]}},
    "seed": 42,
    "device": "cuda",
    "device_name": "One",
    "threads": 8,
    "world_size": 1,
    "dtype": "bfloat16",
    "versions": {"torch": "2.11.0", "python": "3.11.7"},
}


def changed(name: str, value: object) -> dict[str, Any]:
    """Return the run with one field set, by dotted name; None: taken out."""
    head, _, rest = name.partition(".")
    inner = dict(RUN)
    if rest:
        inner[head] = {**RUN[head], rest: value}
    elif value is None:
        del inner[head]
    else:
        inner[head] = value
    return inner


def refused(now: dict[str, Any], *, allow_inexact: bool) -> TunewrightError:
    with pytest.raises(TunewrightError) as caught:
        require_same(RUN, now, allow_inexact=allow_inexact, where=WHERE)
    return caught.value


def test_the_same_run_is_the_same():
    assert differences(RUN, dict(RUN)) == []
    assert require_same(RUN, dict(RUN), allow_inexact=False, where=WHERE) == []
    # As JSON gives it back.
    assert differences({"a": [1, 2], "b": {"1": 0}}, {"a": (1, 2), "b": {1: 0}}) == []


CHANGES = [
    ("data", "0" * 64, "aaaaaaaaaaaa", "000000000000"),
    ("order", "0" * 64, "bbbbbbbbbbbb", "000000000000"),
    ("tokenizer", "0" * 64, "cccccccccccc", "000000000000"),
    ("chat_template", "0" * 64, "dddddddddddd", "000000000000"),
    ("base.name", "org/other", '"org/base"', '"org/other"'),
    ("base.revision", "0" * 40, "eeeeeeeeeeee", "000000000000"),
    ("base.files", {"model.safetensors": "0" * 64}, "ffffffffffff", "000000000000"),
    ("train.max_length", 1024, "512", "1024"),
    ("train.learning_rate", 1e-3, "0.0002", "0.001"),
    ("train.lora", {"r": 8, "target_modules": ["q"]}, "16", "8"),
    ("seed", 7, "42", "7"),
    ("data", None, "aaaaaaaaaaaa", "not there"),
]


@pytest.mark.parametrize("allow_inexact", [False, True])
@pytest.mark.parametrize(("name", "value", "before", "after"), CHANGES)
def test_every_field_of_the_run_is_refused_by_name(name, value, before, after, allow_inexact):
    error = refused(changed(name, value), allow_inexact=allow_inexact)
    (problem,) = error.problems
    assert (problem.code, error.exit_code) == ("E_RESUME_MISMATCH", 7)
    leaf = {"base.files": "base.files.model.safetensors", "train.lora": "train.lora.r"}
    expected = f"'{leaf.get(name, name)}' has changed: it was {before}, now {after}."
    assert problem.message == expected
    assert problem.where == str(WHERE)
    assert "--restart" in problem.fix


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "cpu"),
        ("device_name", "Two"),
        ("threads", 4),
        ("world_size", 2),
        ("dtype", "float32"),
        ("versions.torch", "2.12.0"),
    ],
)
def test_another_machine_is_refused_unless_allowed(name, value):
    now = changed(name, value)
    error = refused(now, allow_inexact=False)
    (problem,) = error.problems
    assert (problem.code, error.exit_code) == ("E_RESUME_ENV", 7)
    assert f"'{name}'" in problem.message
    assert "--allow-inexact" in problem.fix
    assert require_same(RUN, now, allow_inexact=True, where=WHERE) == [name]


def test_everything_is_told_at_once_what_matters_most_first():
    now = changed("seed", 7) | {"device": "cpu", "extra": True, "versions": {"torch": "2.11.0"}}
    codes = [(p.code, p.message) for p in refused(now, allow_inexact=False).problems]
    assert codes == [
        ("E_RESUME_MISMATCH", "'extra' has changed: it was not there, now true."),
        ("E_RESUME_MISMATCH", "'seed' has changed: it was 42, now 7."),
        ("E_RESUME_ENV", '\'device\' has changed: it was "cuda", now "cpu".'),
        ("E_RESUME_ENV", "'versions.python' has changed: it was \"3.11.7\", now not there."),
    ]
    assert len(refused(now, allow_inexact=True).problems) == 2


def test_a_field_of_the_run_is_not_taken_for_one_of_the_machine():
    for name in ("train", "train.dtype", "base.versions", "versions", "devices"):
        head, _, rest = name.partition(".")
        now = RUN | {head: {rest: 1} if rest else 1}
        assert refused(now, allow_inexact=True).problems[0].code == "E_RESUME_MISMATCH"
    assert {"device", "threads", "world_size"} <= ENVIRONMENT


def test_long_values_differ_in_sight_and_stay_short():
    long = ["module.name"] * 300
    with pytest.raises(TunewrightError) as caught:
        require_same({"a": long}, {"a": [*long, "x"]}, allow_inexact=False, where=WHERE)
    message = caught.value.problems[0].message
    assert len(message) < 220
    before, after = message.split(", now ")
    assert before.rpartition("SHA-256")[2][:13] != after.rpartition("SHA-256")[2][:13]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None)
@given(
    saved=st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    now=st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
)
def test_no_difference_means_equal(saved, now):
    assert differences(saved, saved) == []
    assert differences(saved, now) == differences(now, saved)
    if not differences(saved, now):
        assert saved == now
