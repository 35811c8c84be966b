"""Requests: every field is understood or refused by name."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.serve.asked import RefusedError, asked_chat, asked_text, parsed

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        *("model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature"),
        *("top_p", "top_k", "seed", "stop", "stream", "stream_options", "logprobs", "n", "echo"),
        *("top_logprobs", "chat_template", "tools", "response_format"),
    ]
)


def chat(**given):
    return asked_chat(HELLO | given, max_messages=100)


def test_what_is_left_out_is_left_to_the_server():
    asked = chat()
    assert asked.messages == ({"role": "user", "content": "Hello"},)
    assert (asked.model, asked.max_tokens, asked.temperature, asked.seed) == (None,) * 4
    assert (asked.stops, asked.logprobs, asked.stream) == ((), None, False)


def test_all_that_can_be_asked_for():
    asked = chat(
        model="m",
        max_completion_tokens=7,
        temperature=0,
        top_p=0.5,
        top_k=-1,
        seed=2**40,
        stop=["a", "b"],
        logprobs=True,
        top_logprobs=3,
        stream=True,
        stream_options={"include_usage": True},
        user="someone",
        n=1,
        presence_penalty=0.0,
        tools=None,
    )
    assert (asked.model, asked.max_tokens, asked.temperature, asked.top_p) == ("m", 7, 0.0, 0.5)
    assert (asked.top_k, asked.seed, asked.stops, asked.logprobs) == (0, 2**40, ("a", "b"), 3)
    assert asked.stream
    assert asked.include_usage


def test_contents_in_parts_and_the_newer_name_of_a_role():
    parts = [{"type": "text", "text": "Be"}, {"type": "text", "text": " brief."}]
    asked = asked_chat(
        {"messages": [{"role": "developer", "content": parts}, *HELLO["messages"]]}, max_messages=9
    )
    assert asked.messages[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"chat_template": "x"}, "chat_template"),
        ({"chat_template": None}, "chat_template"),
        ({"chat_template_kwargs": {}}, "chat_template_kwargs"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"grammar": "x"}, "grammar"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens"),
        ({"seed": -1}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"model": 5}, "model"),
        ({"prompt": "x"}, "prompt"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages[0].tool_calls"),
        ({"messages": [*HELLO["messages"], {"role": "assistant", "content": "x"}]}, "messages[1].role"),
        ({"messages": HELLO["messages"] * 101}, "messages"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(given, param):
    with pytest.raises(RefusedError) as caught:
        chat(**given)
    assert caught.value.param == param
    assert caught.value.status == 400


def test_texts_that_are_to_be_continued():
    assert asked_text({"prompt": "x"}).prompt == "x"
    assert asked_text({"prompt": ["x"]}).prompt == "x"
    assert asked_text({"prompt": [5, 6], "logprobs": 2}).prompt == (5, 6)
    assert asked_text({"prompt": [[5, 6]]}).prompt == (5, 6)
    assert asked_text({"prompt": [5]}).prompt == (5,)
    for wrong in ([], ["a", "b"], [[1], [2]], None, 5, {}, [True], [1.5]):
        with pytest.raises(RefusedError, match="prompt"):
            asked_text({"prompt": wrong})
    with pytest.raises(RefusedError, match="echo"):
        asked_text({"prompt": "x", "echo": True})


@settings(max_examples=50)
@given(st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=6))
def test_no_request_is_anything_but_understood_or_refused(body):
    for read in (lambda b: asked_chat(b, max_messages=3), asked_text):
        try:
            asked = read(body)
        except RefusedError as refused:
            assert 400 <= refused.status < 500
            json.dumps({"message": str(refused), "param": refused.param}).encode()
        else:
            assert asked.messages or asked.prompt is not None


@given(st.binary(max_size=40))
def test_no_body_is_anything_but_an_object_or_refused(raw):
    try:
        assert isinstance(parsed(raw), dict)
    except RefusedError as refused:
        assert refused.status == 400


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": -Infinity}', b"\xff", b"[" * 100_000, b"1" * 5000],
)
def test_bodies_that_are_refused(raw):
    with pytest.raises(RefusedError, match="body"):
        parsed(raw)
