"""JSON as people write it."""

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunewright.data.storyboards.loose import LooseError, read

NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(VALUES, st.sampled_from([None, 2]), st.booleans())
@example("\ud83d\ude00 \ud800 \\ /", None, True)
def test_strict_json_reads_as_json_loads(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert read(text).value == json.loads(text)


@settings(deadline=None)
@given(st.text(alphabet="{}[]\"':,/*#\\ \n0a1e-.+utrn", max_size=60) | st.text(max_size=40))
def test_any_text_is_read_or_refused_with_a_line(text):
    try:
        read(text)
    except LooseError as fault:
        assert 1 <= fault.line <= text.count("\n") + 1
        assert fault.message


@settings(deadline=None)
@given(st.text(alphabet="{}[]\"':, \n01.-", max_size=30))
def test_whatever_json_accepts_is_accepted(text):
    try:
        strict = json.loads(text)
    except ValueError:
        return
    assert read(text).value == strict


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("// a\n{'a': 1, /* b\n */ b: 2, # c\n}", {"a": 1, "b": 2}),
        ("{0: 'x', 40: \"it's\"}", {"0": "x", "40": "it's"}),
        ("[True, False, None, true, .5, +3, 4.]", [True, False, None, True, 0.5, 3, 4.0]),
        ('{"a": 1\n "b": 2}', {"a": 1, "b": 2}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ('{"url": "http://x#y"}', {"url": "http://x#y"}),
        ('\ufeff{"a": -Infinity}', {"a": -math.inf}),
        ("{'a': 'don\\'t'}", {"a": "don't"}),
    ],
)
def test_loose_forms(text, value):
    assert read(text).value == value


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{\n"a": 1 "b": 2}', 2, "missing before"),
        ('{\n\n"a" 1}', 3, "':' is missing"),
        ('{"a":\n"never', 2, "never closed"),
        ('{"a": [1,\n2', 1, "never closed"),
        ("{} {}", 1, "after the end"),
        ('{"a":\nword}', 2, "needs quotes"),
        ("", 1, "ends where"),
        ("[" * 3000, 1, "levels"),
        ("9" * 5000, 1, "digits"),
        ('"\\u12"', 1, "hexadecimal"),
        ("/* {", 1, "where a value"),
    ],
)
def test_refusals_name_the_line(text, line, words):
    with pytest.raises(LooseError, match=words) as caught:
        read(text)
    assert caught.value.line == line


def test_lines_of_members_and_repeated_keys():
    found = read('{\n"p": {\n"0": "a",\n\n"0": "b"},\n"l": [\n1,\n2]}')
    assert found.value == {"p": {"0": "b"}, "l": [1, 2]}
    assert found.lines["p", "0"] == 5
    assert found.lines["l", 1] == 8
    assert found.repeated == ((("p", "0"), 5, 3),)
