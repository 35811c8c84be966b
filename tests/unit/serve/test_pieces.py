"""What of a growing text may be shown."""

from hypothesis import given
from hypothesis import strategies as st

from tunewright.models.sampling import EMPTY_THOUGHT
from tunewright.serve.pieces import Shown

TEXTS = st.text(alphabet="ab<think>/\n", max_size=12)


def shown(parts, stops):
    text = Shown(stops)
    told = []
    for part in parts:
        told.append(text.add(part))
        if text.stopped:
            break
    return [*told, text.rest()], text.stopped


def reference(text, stops):
    """Letter by letter: the text up to the first stop that is complete."""
    text = text.removeprefix(EMPTY_THOUGHT)
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(
    st.lists(TEXTS | st.just(EMPTY_THOUGHT), max_size=6),
    st.lists(st.text(alphabet="ab<\n", min_size=1, max_size=4), max_size=3),
)
def test_however_it_comes_the_same_is_shown(parts, stops):
    told, stopped = shown(parts, stops)
    assert ("".join(told), stopped) == reference("".join(parts), stops)
    letters, same = shown(list("".join(parts)), stops)
    assert ("".join(letters), same) == ("".join(told), stopped)


def test_what_cannot_be_a_stop_any_more_is_shown_at_once():
    text = Shown(["STOP"])
    assert [text.add(piece) for piece in ("one ST", "ILL", " S", "TOP two")] == [
        "one ",
        "STILL",
        " ",
        "",
    ]
    assert text.stopped
    assert text.rest() == ""


def test_an_empty_thought_is_left_out_and_another_one_is_not():
    assert "".join(shown(["<thi", "nk>\n\n</think>\n\nYes"], [])[0]) == "Yes"
    assert "".join(shown(["<thi", "nk>\nwell</think>\n\nYes"], [])[0]).startswith("<think>\nwell")
    assert "".join(shown(["<thi"], [])[0]) == "<thi"
