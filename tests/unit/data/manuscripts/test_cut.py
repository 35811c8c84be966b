import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.manuscripts.cut import OPEN, chunk, faults, sentences
from tunewright.data.manuscripts.layout import Dropped
from tunewright.data.manuscripts.matter import find_matter


def words(texts):
    return [len(text.split()) for text in texts]


def letters(texts):
    return [len(text) for text in texts]


def cut(text, low=5, high=12, count=words):
    parts, dropped = sentences(text, find_matter(text))
    return chunk(parts, count, min_tokens=low, max_tokens=high), dropped


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
            "CONTENTS\n",
            "\n12\n",
            "The Title\n",
            "by Ann Low\n",
            "[Illustration]\n",
            '"Go," she said. ',
            "x " * 30,
            "y" * 40,
            "é… ",
            "full-\ngrown, ",
            "\u2028",
            "\x0c",
            "。",
        ]
    ),
    max_size=60,
).map("".join)


@given(prose | st.text(max_size=300), st.sampled_from([words, letters]))
def test_every_character_is_in_one_chunk_or_in_a_dropped_line(text, count):
    text = text.replace("\r", " ")
    result, dropped = cut(text, count=count)
    assert faults(text, result.chunks, dropped) == []
    assert [d.line for d in dropped] == sorted({d.line for d in dropped})
    ends = [0]
    for piece in result.chunks:
        assert ends[-1] <= piece.start < piece.end
        assert text[piece.start :].startswith(piece.text[0])
        assert text[: piece.start].count("\n") + 1 == piece.line
        ends.append(piece.end)


@given(prose | st.text(max_size=300))
def test_no_chunk_is_over_the_window_and_none_is_cut_inside_a_sentence_unsaid(text):
    text = text.replace("\r", " ")
    parts, _ = sentences(text, find_matter(text))
    result = chunk(parts, letters, min_tokens=20, max_tokens=60)
    assert all(piece.tokens == len(piece.text) <= 60 for piece in result.chunks)
    starts = {part.start for part in parts if part.level > OPEN}
    inside = [piece.line for piece in result.chunks if piece.start not in starts]
    assert [item.line for item in result.inside] == inside


def test_faults_tell_what_is_lost_doubled_or_moved():
    text = "One two three. Four five six.\n\nSeven eight nine ten."
    result, dropped = cut(text, low=3, high=6)
    first, second = result.chunks
    assert faults(text, [first, second], dropped) == []
    assert "4 characters" not in str(faults(text, [first], dropped))
    assert "in no chunk" in faults(text, [first], dropped)[0]
    assert "chunk 1" in faults(text, [first, first, second], dropped)[0]
    assert "chunk 0" in faults(text, [second, first], dropped)[0]
    assert "dropped as" in faults(text, [first, second], [Dropped(1, "One", "heading")])[0]


def test_cut_prefers_chapter_then_paragraph_then_sentence():
    text = "One two three four five. Six seven.\n\nEight nine ten eleven. Twelve thirteen fourteen."
    assert [c.text for c in cut(text)[0].chunks] == [
        "One two three four five. Six seven.",
        "Eight nine ten eleven. Twelve thirteen fourteen.",
    ]
    text = "CHAPTER I\n\nA b c d e.\n\nF g.\n\nCHAPTER II\n\nHats and Boots\n\nH i j k l m n."
    result, dropped = cut(text)
    assert [(d.line, d.text) for d in dropped] == [
        (1, "CHAPTER I"),
        (7, "CHAPTER II"),
        (9, "Hats and Boots"),
    ]
    assert [(c.section, c.chapter, c.line) for c in result.chunks] == [
        (0, "CHAPTER I", 3),
        (1, "CHAPTER II / Hats and Boots", 11),
    ]


def test_no_chunk_ends_between_a_colon_and_what_is_said():
    text = "She wrote this down for me:\n\n'Come at once to the house.'\n\nI went there then."
    assert cut(text, low=3, high=13)[0].chunks[0].text.endswith("house.'")


def test_a_sentence_over_the_window_is_cut_at_a_clause_and_named():
    text = "He ran.\n\n" + "One two three; four five six, " * 4 + "the end."
    result, _ = cut(text, low=2, high=8)
    assert [item.line for item in result.inside] == [3, 3, 3]
    assert "longer than the window" in result.inside[0].how
    assert all(re.search(r"[;,.]$", piece.text) for piece in result.chunks)
    text = " ".join(["word"] * 40)
    result, _ = cut(text, low=2, high=8)
    assert len(result.chunks) == 5
    assert len(result.inside) == 4
    result, _ = cut("z" * 50, low=2, high=8, count=letters)
    assert [piece.tokens for piece in result.chunks] == [8] * 6 + [2]


def test_tokens_are_those_of_the_text_itself():
    def greedy(texts):  # a tokenizer that needs more tokens for the whole than for its parts
        return [len(text.split()) + 3 * text.count(". ") for text in texts]

    text = "Aa bb cc. " * 30
    result, _ = cut(text, low=4, high=14, count=greedy)
    assert all(piece.tokens == greedy([piece.text])[0] <= 14 for piece in result.chunks)


def test_remainder_is_not_left_too_short():
    text = " ".join(f"Word{n} is here." for n in range(9))
    assert min(c.tokens for c in cut(text, low=6, high=12)[0].chunks) >= 6
    text = "\n\n".join(["CHAPTER I", *["Aa bb cc dd."] * 4, "CHAPTER II", "Ee ff gg hh ii jj kk."])
    result, _ = cut(text, low=6, high=12)
    assert [c.tokens for c in result.chunks] == [8, 8, 7]
    assert [c.section for c in result.chunks] == [0, 0, 1]


def test_nothing_in_nothing_out():
    assert cut("")[0].chunks == ()
    assert cut("\n\n \n")[0].chunks == ()


@pytest.mark.parametrize("mark", ["* * *", "***", "---", "#", "~", "• • •", "⁂", "___"])
def test_scene_marks_are_dropped(mark):
    _, dropped = cut(f"He left.\n\n{mark}\n\nShe came.")
    assert [(d.text, d.reason) for d in dropped] == [(mark, "scene mark")]


@pytest.mark.parametrize(
    ("line", "heading"),
    [
        ("Chapter One", True),
        ("CHAPTER XIV. Of hats", True),
        ("Book the Second - Reaping", True),
        ("# Part", True),
        ("THE MONK.  CALAIS.", True),
        ("A NIGHT IN JUNE", True),
        ("Epilogue", True),
        ("Part of me wanted to leave.", False),
        ("Act natural, she said.", False),
        ("book in her hand. However, I don't want to vex you,' added she,", False),
        ("BANG!", False),
        ("OK.", False),
        ("Letter after letter came.", False),
        ("12", False),
        ("I", False),
    ],
)
def test_headings_are_told_from_prose(line, heading):
    _, dropped = cut(f"He left.\n\n{line}\n\nShe came.")
    assert [d.reason for d in dropped] == ["heading"] * heading


def test_chapters_that_are_numbers_only():
    chapter = "\n\n".join(["He ran to the house and back again without a word."] * 20)
    text = "\n\n".join(f"{number}\n\n{chapter}" for number in ("I", "II", "III"))
    result, dropped = cut(text, low=50, high=120)
    assert [d.text for d in dropped] == ["I", "II", "III"]
    assert {c.chapter for c in result.chunks} == {"I", "II", "III"}
    listed = "\n\n".join(f"{n}\n\nA short point." for n in ("1", "2", "3"))
    assert cut(listed)[1] == []


def test_underlined_headings_of_markdown():
    _, dropped = cut("The Lift\n========\n\nIt is stuck.\n\nHe left.\n---\nShe came.")
    assert [(d.text, d.reason) for d in dropped] == [
        ("The Lift", "heading"),
        ("========", "heading"),
        ("---", "scene mark"),
    ]


def test_wrapped_lines_are_joined():
    line = "the quick brown fox jumps over the lazy dog and runs into the"
    text = (
        "\n".join([line] * 3)
        + "\nend.\nNew paragraph begins here and goes on for quite a while more\nuntil it is full-"
        + "\ngrown and so--\nperhaps--done."
    )
    parts, _ = sentences(text)
    assert "\n" not in parts[0].text
    assert parts[0].text.count("fox") == 3
    assert parts[1].text.endswith("it is full-grown and so--perhaps--done.")
    assert parts[1].gap == "\n\n"


def test_a_line_that_a_program_cut_off_goes_on():
    text = "\n".join(["A" + " word" * 60, "and more of it.", "A new paragraph.", "Third one here."])
    parts, _ = sentences(text)
    assert [p.gap for p in parts] == ["\n\n"] * 3
    assert parts[0].text.endswith("word and more of it.")
