import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.formats.lines import (
    BrokenError,
    Ends,
    as_text,
    as_utf8,
    marked,
    physical_lines,
)

TEXT = st.text(alphabet="ab\r\n\u2028\u0085\x0b\x0c\x1c\u00e9\U0001f600", max_size=60)


def cut(data, sizes):
    """Return the bytes in blocks of these sizes, over and over."""
    blocks, at, n = [], 0, 0
    while at < len(data):
        size = sizes[n % len(sizes)]
        blocks.append(data[at : at + size])
        at, n = at + size, n + 1
    return blocks


@given(TEXT, st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_lines_do_not_depend_on_blocks(text, sizes):
    data = text.encode()
    ends = Ends()
    found = list(physical_lines(cut(data, sizes), ends))
    plain = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    wanted = plain[:-1] if plain[-1] == b"" else plain
    assert found == list(enumerate(wanted, 1))
    assert ends.crlf == data.count(b"\r\n")
    assert ends.cr == data.count(b"\r") - data.count(b"\r\n")


@given(TEXT, st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_text_does_not_depend_on_blocks(text, sizes):
    found = "".join(as_text(cut(text.encode(), sizes), Ends()))
    assert found == text.replace("\r\n", "\n").replace("\r", "\n")


@given(TEXT, st.sampled_from(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]))
def test_other_encodings(text, encoding):
    data = "\ufeff".encode(encoding) + text.encode(encoding)
    name, skip = marked(data)
    assert name == encoding
    assert b"".join(as_utf8(cut(data[skip:], [3, 1]), name)).decode() == text


@given(
    st.lists(st.integers(0, 30), max_size=8), st.lists(st.integers(1, 9), min_size=1, max_size=3)
)
def test_long_lines_are_named_and_passed_over(lengths, sizes):
    for end in (b"\n", b"\r\n", b"\r"):
        data = b"".join(b"x" * length + end for length in lengths)
        found = list(physical_lines(cut(data, sizes), Ends(), limit=10))
        assert found == [(n, b"x" * k if k <= 10 else None) for n, k in enumerate(lengths, 1)]


def test_what_was_right_comes_before_the_fault():
    blocks = iter([b"one\ntw\xff\nthree"])
    texts = as_text(blocks, Ends())
    assert next(texts) == "one\ntw"
    with pytest.raises(BrokenError, match="0xFF"):
        next(texts)


def test_the_place_of_a_fault_in_another_encoding():
    data = "ab".encode("utf-16-le") + b"\x00\xdc" + b"c\0"
    out = as_utf8(cut(data, [3]), "utf-16-le")
    with pytest.raises(BrokenError, match="byte 5 of the text is not UTF-16-LE"):
        list(out)


def test_without_a_mark_it_is_utf8():
    assert marked(b"{}") == ("utf-8", 0)
    assert marked(codecs.BOM_UTF8 + b"{}") == ("utf-8", 3)


def test_counts_in_words():
    assert Ends(crlf=1200, cr=2, blank=1).notes() == [
        "1,200 lines end in CRLF, read as LF",
        "2 lines end in a lone CR, read as LF",
        "1 blank line passed over",
    ]
    assert Ends().notes() == []
