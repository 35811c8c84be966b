from hypothesis import given
from hypothesis import strategies as st

from tunewright.models.chat import Message
from tunewright.serve.history import fitting


def words(messages):
    return sum(len(m["content"].split()) for m in messages)


def test_the_oldest_exchange_goes_first():
    chat = [
        Message(role="system", content="s"),
        Message(role="user", content="a b"),
        Message(role="assistant", content="c d"),
        Message(role="user", content="e f"),
    ]
    assert fitting(chat, 7, words) == chat
    assert fitting(chat, 6, words) == [chat[0], chat[3]]
    assert fitting(chat, 1, words) == [chat[0], chat[3]]


@given(st.integers(0, 9), st.integers(0, 40), st.booleans())
def test_what_is_left_begins_and_ends_with_the_user(exchanges, limit, with_system):
    chat = [Message(role="system", content="s")] if with_system else []
    for n in range(exchanges):
        chat += [
            Message(role="user", content=f"q {n}"),
            Message(role="assistant", content=f"a {n}"),
        ]
    chat.append(Message(role="user", content="last one"))
    kept = fitting(chat, limit, words)
    turns = kept[1:] if with_system else kept
    assert turns[0]["role"] == "user"
    assert kept[-1] == chat[-1]
    assert words(kept) <= limit or len(turns) == 1
