import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.manuscripts.sentence import spans


def split(text):
    return [text[start:end] for start, end, _ in spans(text)]


@pytest.mark.parametrize(
    "parts",
    [
        ["Mr. Smith met Dr. Jones at 5 p.m. in St. Ives.", "J. R. Low came too."],
        ['"Stop!" he said.', "He ran."],
        ['"Stop!" Mr. Low said.', "He ran."],
        ['"Why?" I asked.', "She wept."],
        ['"Is it you?"', '"It is."'],
        ["It is I.", "He left."],
        ["It cost 3.50 in 1851.", "He paid."],
        ["No.", "He would not."],
        ["See No. 5 in vol. IV. of the set.", "It is red."],
        ["On Feb. 3 he came, with Wm. Hay, Esq. of York.", "They ate."],
        ["I... I do not know.", "Perhaps."],
        ["John... John, wake up!", "Now."],
        ["He waited...", "Then he left."],
        ["He said (it was late. It was dark.) that he knew.", "So did we."],
        ["1. The first point is this.", "Here is more."],
        ["Tea, milk, etc. were there.", "We ate."],
        ["He works for the U.S. Army in D.C. these days.", "He likes it."],
        ["Élan is all.", "Était-ce vrai?", "Ünal sagte ja."],
        ["これは本です。", "あれも本です。"],
        ["_Never!_", "_Always._"],
    ],
)
def test_sentences_end_where_a_reader_would_say(parts):
    joint = "" if parts[0].startswith("これ") else " "
    assert split(joint.join(parts)) == parts


def test_sentences_of_one_speech_are_told_from_others():
    text = '"Go now. Take this." He went. She stayed.'
    assert [quoted for _, _, quoted in spans(text)] == [False, True, False, False]


@given(st.text(max_size=200) | st.text(alphabet='aA.!?… "”()[]\n。Mr1', max_size=80))
def test_sentences_hold_every_character_in_order(text):
    assert "".join("".join(split(text)).split()) == "".join(text.split())
    ends = [0, *(end for _, end, _ in spans(text))]
    assert all(start >= end for (start, _, _), end in zip(spans(text), ends, strict=False))


def test_a_long_paragraph_takes_linear_time():
    text = "( He saw it. " * 40_000
    assert len(split(text)) == 40_000
