import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunewright.evaluate.markers import markers
from tunewright.evaluate.style import (
    WINDOW_WORDS,
    WORD,
    count,
    distinct_share,
    normalise,
    passages,
    spans_of,
    words_of,
)


def test_sentences_survive_abbreviations_initials_and_speech():
    text = '"What?" said he. Mr. J. Brown went home... So do I. It rained.\n\nNo. She left'
    assert count(text).sentences == (3, 5, 3, 2, 1)


def test_a_fragment_counts_only_where_it_is_all():
    assert count("no stop at all here").sentences == (5,)
    assert count("One two. And then a long rest").sentences == (2,)


def test_typography_is_not_style():
    plain = count('"It\'s late" -- he said... "Yes."')
    curly = count("“It\u2019s late” — he said… “Yes.”")
    assert plain == curly


def test_speech_in_both_kinds_of_quotation_marks():
    double = count('"I do not know," she said. "Do you?"')
    single = count("'I don't know,' she said. 'Do you?'")
    assert (double.quoted, single.quoted) == (6, 5)
    assert count("It was James' hat and the boys' dog.").quoted == 0


def test_contractions_are_not_possessives():
    assert count("Don't take Anna's hat, it's mine, we'll go").contractions == 3


def test_names_are_not_in_the_grams():
    assert not any("var" in gram for gram in count("I met Ines Varga there.").grams)
    assert count("the cat").grams["the"] == 1


@given(st.lists(st.sampled_from("abcde"), min_size=WINDOW_WORDS, max_size=60))
def test_window_ratios_against_counting_anew(words):
    counted = count(" ".join(words))
    windows = [words[i : i + WINDOW_WORDS] for i in range(len(words) - WINDOW_WORDS + 1)]
    assert counted.windows == len(windows)
    assert abs(counted.window_ratios - sum(len(set(w)) / WINDOW_WORDS for w in windows)) < 1e-9


@given(st.text(), st.integers(1, 30))
def test_passages_are_disjoint_parts_no_longer_than_asked(text, length):
    plain, at = normalise(text), 0
    found = passages(text, length)
    for piece in found:
        assert 0 < len(words_of(piece)) <= length
        at = plain.index(piece, at) + len(piece)
    assert bool(found) == bool(words_of(text))
    assert count(text).words == len(words_of(text))


_TEXTS = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "ab1_*'\u2018\u2019\u02bc\u00ad\u00a0 -.\u2013\u2014\r\n\u00ab\u0130\u03a3\u0307"
        ),
    )
)


@given(_TEXTS)
@example("it\u00ad\u2019_s a*b*_c ''d'' \u0130zmir \u039f\u03a3.\u0391 x--y\r\n. . . z")
def test_words_and_their_places_are_those_of_the_normalised_text(text):
    words = words_of(text)
    assert words == [word.lower() for word in WORD.findall(normalise(text))]
    spans = spans_of(text)
    assert [words_of(text[start:end]) for start, end in spans] == [[word] for word in words]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_a_place_has_nothing_around_the_word():
    text = "*\u00ad\u2018Don\u2019t_\u2019 -- sto\u00adp"
    assert [text[start:end] for start, end in spans_of(text)] == ["Don\u2019t", "sto\u00adp"]
    assert spans_of(" -- _*\u00ad' ") == []


@pytest.mark.parametrize("filler", [" ", "_", "'", "a_", "a'"])
def test_long_runs_of_anything_take_linear_time(filler):
    text = "a" + filler * 200_000
    began = time.process_time()
    assert len(words_of(text)) == len(spans_of(text)) == 1
    assert time.process_time() - began < 5


def test_passages_begin_with_a_sentence_and_are_cut_at_the_length():
    text = "One two three. Four five six seven. Eight nine. Ten."
    assert passages(text, 4) == ["One two three. Four", "Eight nine. Ten."]
    assert passages("Short.", 50) == ["Short."]


def test_distinct_share():
    assert distinct_share(["a b c d"]) == 1
    assert distinct_share(["a b c a b c a b c"]) == 3 / 7
    assert distinct_share(["", "a b"]) == 1


def test_markers_say_who_moved():
    base = [
        "However, the committee; which met; decided upon the long and winding matter of it."
    ] * 5
    author = ["I go. I don't wait. I knock. You open."] * 5
    table = {m.marker: m for m in markers(base, author, author)}
    assert len(table) == 15
    assert table["semicolons"].towards
    assert table["contractions"].author == 111.11
    assert table["'i'"].towards
    assert table["distinct words in 30 (MATTR)"].towards is None
    assert not any(m.towards for m in markers(base, base, author))
