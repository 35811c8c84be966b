import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SHARED

from tunewright.data.manuscript import chunk, sentences


def words(texts):
    return [len(text.split()) for text in texts]


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def chunks_of(text, low=5, high=12):
    parts, dropped = sentences(text)
    return chunk(parts, words, min_tokens=low, max_tokens=high), dropped


prose = st.lists(
    st.sampled_from(
        [
            "He ran. ",
            "Mr. Low said no! ",
            "Why? ",
            "\n\n",
            "\n",
            "* * *\n",
            "\n\nCHAPTER II\n\n",
            '"Go," she said. ',
            "x " * 30,
            "é… ",
        ]
    ),
    max_size=60,
).map("".join)


@given(prose | st.text(max_size=300))
def test_every_character_is_in_one_chunk_or_listed_as_dropped(text):
    text = text.replace("\r", " ")
    chunks, dropped = chunks_of(text)
    kept = "".join(squeezed(c.text) for c in chunks)
    listed = "".join(squeezed(d.text) for d in dropped)
    assert sorted(kept + listed) == sorted(squeezed(text))
    ends = [0]
    for piece in chunks:
        assert piece.start >= ends[-1]
        ends.append(piece.end)
        between = [d for d in dropped if d.text in text[piece.start : piece.end]]
        inside = squeezed(text[piece.start : piece.end])
        assert squeezed(piece.text) == inside or between


@given(prose)
def test_chunks_keep_to_the_window_where_sentences_allow(text):
    parts, _ = sentences(text)
    sizes = words([p.text for p in parts])
    for piece in chunks_of(text)[0]:
        assert piece.tokens <= 12 or piece.tokens in sizes


def test_cut_prefers_chapter_then_paragraph_then_sentence():
    text = "One two three four five. Six seven.\n\nEight nine ten eleven. Twelve thirteen fourteen."
    chunks, _ = chunks_of(text)
    assert [c.text for c in chunks] == [
        "One two three four five. Six seven.",
        "Eight nine ten eleven. Twelve thirteen fourteen.",
    ]
    text = "CHAPTER I\n\nA b c d e.\n\nF g.\n\nCHAPTER II\n\nH i j k l m n."
    chunks, dropped = chunks_of(text)
    assert [d.text for d in dropped] == ["CHAPTER I", "CHAPTER II"]
    assert [c.section for c in chunks] == [0, 1]


def test_a_sentence_is_never_cut_and_abbreviations_end_none():
    parts, _ = sentences("Mr. Smith met Dr. Jones at 5 p.m. in St. Ives. J. R. Low came too.")
    assert [p.text for p in parts] == [
        "Mr. Smith met Dr. Jones at 5 p.m. in St. Ives.",
        "J. R. Low came too.",
    ]


@pytest.mark.parametrize("mark", ["* * *", "***", "---", "#", "~"])
def test_scene_marks_are_dropped(mark):
    _, dropped = sentences(f"He left.\n\n{mark}\n\nShe came.")
    assert [d.text for d in dropped] == [mark]


def test_wrapped_lines_are_joined():
    line = "the quick brown fox jumps over the lazy dog and runs into the"
    text = (
        "\n".join([line] * 3)
        + "\nend.\nNew paragraph begins here and goes on for quite a while more\nuntil here."
    )
    parts, _ = sentences(text)
    assert "\n" not in parts[0].text
    assert parts[0].text.count("fox") == 3


def test_remainder_is_not_left_too_short():
    text = " ".join(f"Word{n} is here." for n in range(9))
    chunks, _ = chunks_of(text, low=6, high=12)
    assert min(c.tokens for c in chunks) >= 6


def test_nothing_in_nothing_out():
    assert chunks_of("")[0] == []
    assert chunks_of("\n\n \n")[0] == []


@pytest.mark.parametrize(
    ("line", "heading"),
    [
        ("Chapter One", True),
        ("CHAPTER XIV. Of hats", True),
        ("Book the Second - Reaping", True),
        ("# Part", True),
        ("THE MONK.  CALAIS.", True),
        ("A NIGHT IN JUNE", True),
        ("Part of me wanted to leave.", False),
        ("Act natural, she said.", False),
        ("book in her hand. However, I don't want to vex you,' added she,", False),
        ("BANG!", False),
        ("OK.", False),
        ("Letter after letter came.", False),
    ],
)
def test_headings_are_told_from_prose(line, heading):
    _, dropped = sentences(f"He left.\n\n{line}\n\nShe came.")
    assert bool(dropped) is heading


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs ../shared/corpora, which a user's machine lacks"
)
def test_no_prose_of_the_novels_is_taken_for_a_heading():
    for file in SHARED.glob("*.txt"):
        text = file.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
        _, dropped = sentences(text)
        assert not [d for d in dropped if d.text[:1].islower()], file.name
