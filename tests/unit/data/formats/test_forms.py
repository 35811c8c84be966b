import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.formats.forms import (
    RowError,
    canonical,
    form_of,
    preference_fix,
    validate_preference,
)
from tunewright.data.formats.tally import Tally, mixed
from tunewright.data.formats.templates import fields_of, fill
from tunewright.models.chat import messages_of


def talk(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CHAT = talk(("user", "q"), ("assistant", "a"))
SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"messages": []}, "messages"),
        ({"conversations": []}, "messages"),
        ({"text": "t", "meta": 1}, "text"),
        ({"prompt": "p", "completion": "c"}, "prompt-completion"),
        ({"prompt": "p", "response": "c"}, "prompt-completion"),
        ({"instruction": "i", "input": "", "output": "o"}, "instruction"),
        ({"instruction": "i", "response": "o"}, "instruction"),
        ({"instruction": "i", "output": "o", "text": "all of it"}, "instruction"),
        ({"instruction": "i", "style": "s", "prompt": "p"}, "style-prompt"),
        ({"instruction": "i", "prompt": "p", "tags": "t"}, "style-prompt"),
        ({"instruction": "i", "style": "s", "prompt": "p", "output": "o"}, "instruction"),
        ({"chosen": "a", "rejected": "b", "prompt": "p"}, "preference"),
        ({"chosen": "a"}, None),
        ({"prompt": "p"}, None),
        ({"prompt": "p", "text": "t"}, None),
        ({"instruction": "i", "prompt": "p"}, None),
        ({"completion": "c"}, None),
        ({}, None),
        ({"messages": None, "prompt": "p", "completion": "c"}, "prompt-completion"),
        ({"messages": CHAT, "prompt": None, "completion": None}, "messages"),
        ({"prompt": "p", "completion": None}, "prompt-completion"),
        ({"messages": None}, "messages"),
    ],
)
def test_forms_are_told_by_columns(row, form):
    assert form_of(row) == form


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"messages": CHAT, "id": 7}, {"messages": CHAT, "id": 7}),
        ({"messages": [SYSTEM, *CHAT]}, {"messages": [SYSTEM, *CHAT]}),
        ({"messages": CHAT, "system": "s"}, {"messages": [SYSTEM, *CHAT]}),
        ({"messages": CHAT, "system": ""}, {"messages": CHAT}),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            {"messages": CHAT},
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "q"}], "name": None},
                    CHAT[1],
                ]
            },
            {"messages": CHAT},
        ),
        ({"text": "long"}, {"prompt": "", "completion": "long"}),
        ({"prompt": "", "completion": "long"}, {"prompt": "", "completion": "long"}),
        ({"prompt": "p", "response": "c"}, {"prompt": "p", "completion": "c"}),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, {"messages": CHAT}),
        ({"prompt": "q", "completion": "a", "system": "s"}, {"messages": [SYSTEM, *CHAT]}),
        ({"instruction": "i", "response": "o"}, {"instruction": "i", "input": "", "output": "o"}),
        (
            {"instruction": "i", "input": None, "output": "o"},
            {"instruction": "i", "input": "", "output": "o"},
        ),
        (
            {"instruction": "i", "input": "x", "output": "o", "system": "s"},
            {"messages": [SYSTEM, *talk(("user", "i\n\nx"), ("assistant", "o"))]},
        ),
        (
            {
                "instruction": "i",
                "style": "s",
                "prompt": "p",
                "negative_prompt": "n",
                "tags": ["a", "b"],
            },
            {
                "prompt": "i\n\n### Style:\ns",
                "completion": "p\n\n### Negative Prompt:\nn\n\n### Tags:\na, b",
                "style": "s",
            },
        ),
        (
            {"instruction": "i", "style": "", "prompt": "p", "negative_prompt": None, "tags": "t"},
            {"prompt": "i", "completion": "p\n\n### Tags:\nt", "style": ""},
        ),
    ],
)
def test_the_canonical_row(row, wanted):
    before = json.dumps(row)
    found = canonical(row, form_of(row))
    assert found == wanted
    assert json.dumps(row) == before
    assert form_of(found) is not None


def test_other_columns_are_kept_and_never_taken_for_text():
    row = {
        "prompt": "p", "completion": "c", "response": "other", "text": "t", "input": "i", "source": "web",
        "line": 3, "line_column": "taken", "source_id": "s1", "agent": "critic", "style": "noir", "empty": None,
    }  # fmt: skip
    found = canonical(row, "prompt-completion")
    assert found == {
        "prompt": "p", "completion": "c", "response_column": "other", "text_column": "t", "input_column": "i",
        "source_column": "web", "line_column_": 3, "line_column": "taken", "source_id": "s1", "agent": "critic",
        "style": "noir",
    }  # fmt: skip
    assert form_of(found) == "prompt-completion"
    kept = canonical({"messages": CHAT, "prompt": "x", "instruction": "y"}, "messages")
    assert messages_of(kept) == CHAT


def test_alpaca_writes_one_prompt():
    row = {"instruction": "i", "input": "x", "output": "o"}
    assert canonical(row, "instruction", layout="alpaca") == {
        "prompt": "i\n\n### Input:\nx",
        "completion": "o",
    }
    assert canonical({**row, "input": " "}, "instruction", layout="alpaca")["prompt"] == "i"


def test_a_prompt_template_gives_the_prompt():
    row = {"topic": "tea", "answer_id": 3, "output": "o", "instruction": "i"}
    assert form_of({"topic": "tea", "output": "o"}, templated=True) == "prompt-completion"
    found = canonical(row, "instruction", prompt_template="{{{topic}}} {answer_id}: {instruction}")
    assert found == {"prompt": "{tea} 3: i", "completion": "o", "topic": "tea", "answer_id": 3}
    text = canonical({"text": "t", "title": "T"}, "text", prompt_template="Write {title}.")
    assert text == {"prompt": "Write T.", "completion": "t", "title": "T"}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("Write {theme}.", "needs 'theme'; the columns are topic, none, nested, output"),
        ("{topic.__class__}", "needs 'topic.__class__'"),
        ("{topic[0]}", "needs 'topic[0]'"),
        ("{topic!r}", "with more or less than a column's name"),
        ("{topic:>9999999999}", "with more or less"),
        ("{}", "with more or less"),
        ("{topic", "unbalanced braces"),
        ("topic}", "unbalanced braces"),
        ("{none}", "none is null"),
        ("{nested}", "nested is an object"),
        (" ", "empty prompt"),
    ],
)
def test_prompt_templates_are_filled_strictly(template, words):
    row = {"topic": "tea", "none": None, "nested": {"a": 1}, "output": "o"}
    with pytest.raises(RowError) as caught:
        canonical(row, "prompt-completion", prompt_template=template)
    assert words in str(caught.value)


@pytest.mark.parametrize("form", ["messages", "style-prompt"])
def test_prompt_templates_do_not_apply_to_every_form(form):
    with pytest.raises(RowError, match="does not apply"):
        canonical({"messages": CHAT}, form, prompt_template="x")


@given(st.text(max_size=30), st.dictionaries(st.sampled_from(["a", "b c"]), st.text(max_size=5)))
def test_templates_never_fail_otherwise(template, row):
    try:
        filled = fill(template, row)
    except ValueError:
        return
    assert fields_of(template) <= row.keys()
    if "{" not in template and "}" not in template:
        assert filled == template


def test_all_problems_of_a_row_at_once():
    row = {"messages": [{"role": "narrator", "content": None}, 5, {"role": "user", "content": " "}]}
    with pytest.raises(RowError) as caught:
        canonical(row, "messages")
    assert caught.value.problems == (
        "messages[0].role is 'narrator', an unknown role; known are system, user, human, assistant, gpt, "
        "model, bot, chatgpt",
        "messages[0].content is null",
        "messages[1] is a number, not a message",
        "messages[2].content is only white space",
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "type", "text"]), inner),
    max_leaves=6,
)
KEYS = ["messages", "conversations", "prompt", "completion", "response", "instruction", "input", "output",
        "text", "style", "tags", "negative_prompt", "chosen", "rejected", "system", "tools", "id"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.sampled_from([None, "{id}"]))
def test_any_row_is_refused_or_can_be_trained_on(row, template):
    form = form_of(row, templated=template is not None)
    if form is None:
        return
    try:
        found = canonical(row, form, prompt_template=template)
    except RowError as error:
        assert error.problems
        return
    if found.get("prompt") == "":
        assert found["completion"].strip()
        return
    turns = messages_of(found)
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    assert roles == ["user", "assistant"] * (len(roles) // 2) != []
    assert all(turn["content"].strip() for turn in turns if turn["role"] != "system")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": "a", "rejected": "a"}, "are the same"),
        ({"chosen": CHAT, "rejected": CHAT}, "are the same"),
        ({"chosen": "", "rejected": "a"}, "chosen is empty"),
        ({"chosen": "a", "rejected": None}, "rejected is null"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "prompt is only white"),
        ({"chosen": "a", "rejected": CHAT}, "one of chosen and rejected is text"),
        ({"chosen": [], "rejected": CHAT}, "chosen is empty"),
        (
            {"chosen": CHAT, "rejected": talk(("user", "other"), ("assistant", "b"))},
            "do not share their prompt",
        ),
        ({"chosen": CHAT[:1], "rejected": CHAT}, "chosen has no assistant turn"),
        (
            {"prompt": CHAT, "chosen": CHAT[1:], "rejected": CHAT[1:]},
            "second assistant turn in a row",
        ),
        ({"prompt": 5, "chosen": CHAT[1:], "rejected": CHAT[1:]}, "prompt is a number"),
    ],
)
def test_preference_data_that_is_wrong(row, words):
    with pytest.raises(RowError) as caught:
        validate_preference(row)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("row", "role"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "completion"),
        ({"chosen": "Human: q Assistant: a", "rejected": "Human: q Assistant: b"}, "completion"),
        ({"chosen": CHAT, "rejected": talk(("user", "q"), ("assistant", "b"))}, "messages"),
        (
            {"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": talk(("assistant", "b"))},
            "completion",
        ),
    ],
)
def test_preference_data_that_is_right_is_told_apart(row, role):
    validate_preference(row)
    assert preference_fix(row) == f"--set prepare.columns.{role}=chosen"
    with pytest.raises(RowError, match=f"prepare.columns.{role}=chosen"):
        canonical(row, "preference")


def test_mixed_forms_are_counted_with_their_first_line():
    tally = Tally()
    for line in range(1, 1201):
        tally.add("messages", line)
    assert mixed(tally) == ""
    tally.add("text", 200_001)
    assert mixed(tally) == "rows of 2 forms: 1,200 messages from line 1; 1 text from line 200,001"
