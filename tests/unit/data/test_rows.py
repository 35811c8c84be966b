import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.rows import MAX_PROBLEMS, read_rows
from tunewright.errors import TunewrightError

GOOD = b'{"prompt": "a", "completion": "b"}'


def problems(tmp_path, data: bytes):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(data)
    with pytest.raises(TunewrightError) as caught:
        read_rows(file)
    assert caught.value.exit_code == 3
    return [(p.where.rsplit(":", 1)[-1], p.message) for p in caught.value.problems]


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
def test_physical_lines_of_every_kind(tmp_path, line):
    found = problems(tmp_path, line.join([GOOD, b"", b"{bad", GOOD, b"[1]"]))
    assert [number for number, _ in found] == ["3", "5"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"prompt": "a", "completion": "b"', "not JSON"),
        (b'{"prompt": "a", "prompt": "b"}', "twice"),
        (b'{"prompt": "a", "completion": NaN}', "NaN"),
        (b"null", "a row is an object"),
        (b'{"prompt": "caf\xe9", "completion": "b"}', "not UTF-8"),
        (b'{"prompt": "\\ud800", "completion": "b"}', "surrogate"),
        (b'{"prompt": "a", "completion": "b",}', "not JSON"),
        (b'{"a": ' * 100_000, "nested"),
        (b"PK\x03\x04", "not JSON"),
        (b'{"prompt": "", "completion": "b"}', "empty"),
        (b'{"text": "x"}', "no known form"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, line, words):
    ((number, message),) = problems(tmp_path, GOOD + b"\n" + line)
    assert number == "2"
    assert words in message


def test_many_problems_are_counted(tmp_path):
    found = problems(tmp_path, b"\n".join([b"x"] * 50))
    assert len(found) == MAX_PROBLEMS + 1
    assert "30 more" in found[-1][1]


def test_byte_order_mark_and_line_separators_in_text(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = json.dumps({"prompt": "a\u2028b", "completion": "c"}, ensure_ascii=False)
    file.write_bytes(b"\xef\xbb\xbf" + row.encode())
    (found,) = read_rows(file)
    assert found.data["prompt"] == "a\u2028b"


@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_our_error(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("r") / "rows.jsonl"
    file.write_bytes(data)
    try:
        read_rows(file)
    except TunewrightError as error:
        assert error.exit_code == 3
