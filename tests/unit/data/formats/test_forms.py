import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright import load_config
from tunewright.data.formats.changes import Changes
from tunewright.data.formats.columns import apply_columns
from tunewright.data.formats.forms import (
    RowError,
    canonical,
    form_of,
    preference_fix,
    validate_preference,
)
from tunewright.data.formats.tally import Tally, mixed
from tunewright.data.formats.templates import fields_of, fill
from tunewright.data.formats.varying import Varying
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
        ({"text": "long"}, {"text": "long"}),
        (
            {"prompt": None, "completion": None, "text": "long"},
            {"text": "long"},
        ),
        ({"prompt": "p", "response": "c"}, {"prompt": "p", "completion": "c"}),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, {"messages": CHAT}),
        ({"prompt": "q", "completion": CHAT[1:]}, {"messages": CHAT}),
        ({"prompt": "q", "completion": CHAT}, {"messages": CHAT}),
        ({"prompt": CHAT[:1], "completion": [SYSTEM, *CHAT]}, {"messages": [SYSTEM, *CHAT]}),
        (
            {
                "messages": [
                    {**CHAT[0], "train": False, "weight": 0},
                    {**CHAT[1], "train": True, "loss": 1.0},
                ]
            },
            {"messages": CHAT},
        ),
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
        "copy": 2, "origin": "scan",
    }  # fmt: skip
    found = canonical(row, "prompt-completion")
    assert found == {
        "prompt": "p", "completion": "c", "response_column": "other", "text_column": "t", "input_column": "i",
        "source_column": "web", "line_column_": 3, "line_column": "taken", "source_id": "s1", "agent": "critic",
        "style": "noir", "copy_column": 2, "origin_column": "scan",
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
        ("{topic.__class__}", "'{topic.__class__}': the name of a column stands alone"),
        ("{topic[0]}", "'{topic[0]}': the name of a column stands alone"),
        ("{a.b} {topic}", "without . and ["),
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


def test_a_template_with_more_than_names_is_refused_as_such():
    for template in ("{a.b}", "{a[0]}", "{a.__class__}"):
        with pytest.raises(ValueError, match="stands alone"):
            fields_of(template)


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
    if "text" in found:
        assert form == "text"
        assert found["text"].strip()
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
        ({"chosen": "Human: q Assistant: a", "rejected": "Human: q Assistant: b"}, "text"),
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


def test_the_first_user_turn_that_repeats_the_prompt_is_there_once():
    row = {"prompt": "q", "chosen": CHAT, "rejected": talk(("user", "q"), ("assistant", "b"))}
    validate_preference(row)
    with pytest.raises(RowError, match="second user turn"):
        validate_preference({**row, "prompt": "another question"})
    other = talk(("user", "q"), ("assistant", "x"), ("user", "y"), ("assistant", "b"))
    with pytest.raises(RowError, match="do not share their prompt"):
        validate_preference({**row, "rejected": other})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"chosen": "Human: q Assistant: a", "rejected": "Human: q Assistant: b"},
        {"chosen": CHAT, "rejected": talk(("user", "q"), ("assistant", "b"))},
        {"prompt": "q", "chosen": CHAT, "rejected": talk(("user", "q"), ("assistant", "b"))},
        {"prompt": "q", "chosen": CHAT[1:], "rejected": talk(("assistant", "b"))},
        {"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": talk(("assistant", "b"))},
        {"prompt": CHAT[:1], "chosen": CHAT, "rejected": talk(("user", "q"), ("assistant", "b"))},
        {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
        {"instruction": "i", "input": "x", "chosen": "a", "rejected": "b"},
        {"prompt": None, "chosen": "a text", "rejected": "b"},
    ],
)
def test_what_is_advised_for_preference_data_makes_rows(row):
    validate_preference(row)
    _, value = shlex.split(preference_fix(row))
    columns = load_config("preset:demo", [value]).prepare.columns
    found = apply_columns(row, columns)
    made = canonical(found, form_of(found))
    answer = row["chosen"] if isinstance(row["chosen"], str) else "a"
    turns = messages_of(made)
    assert turns[-1] == {"role": "assistant", "content": answer}
    asked = [turn["content"] for turn in turns if turn["role"] == "user"]
    raw = "text" in made
    assert len(asked) == (0 if raw else 1)
    assert raw == (not {"prompt", "question", "instruction"} & {k for k in row if row[k]}
                   and isinstance(row["chosen"], str))  # fmt: skip


def test_columns_with_new_names_and_keys_that_are_left_out_are_counted():
    changes = Changes()
    turns = [
        {"role": "user", "content": "q", "name": "Ann", "train": True, "weight": 0},
        {"role": "assistant", "content": "a", "reasoning_content": "r", "weight": 1, "name": None,
         "tool_calls": [], "end": False},
    ]  # fmt: skip
    row = {"messages": turns, "copy": 1, "text": "t"}
    for _ in range(2):
        canonical(row, "messages", changes=changes)
    sharegpt = [
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a", "name": "Bo", "weight": 1},
    ]
    canonical({"conversations": sharegpt}, "messages", changes=changes)
    with pytest.raises(RowError):
        canonical({"messages": [*turns, turns[0]]}, "messages", changes=changes)
    assert changes.notes() == [
        "columns renamed: copy -> copy_column, text -> text_column",
        "messages have keys that are left out: name (3 times), train (2 times), "
        "reasoning_content (2 times), end (2 times)",
    ]
    assert Changes().notes() == []


def test_keys_of_messages_are_counted_in_bounded_memory():
    changes = Changes()
    changes.leave_out(f"key{n}" for n in range(5000))
    assert len(changes.left_out) == 201
    assert changes.left_out.total() == 5000
    assert "and 181 more" in changes.notes()[0]


def test_columns_that_change_their_type_or_are_not_in_all_rows():
    varying = Varying()
    for line in range(1, 101):
        row = {"text": "t", "tags": "x" if line < 60 else ["x"], "n": line / 2 if line % 2 else 1}
        varying.add({**row, "late": None if line < 90 else True}, line)
    assert varying.notes(one_form=True) == [
        "columns whose type changes: tags is text from line 1 and a list from line 60",
        "columns that only some rows have: late (11 of 100 rows, first on line 90)",
    ]
    assert len(varying.notes(one_form=False)) == 1
    assert Varying().notes(one_form=True) == []
    for line in range(1000):
        varying.add({f"c{line}": 1}, line)
    assert "late (11 of 1,100 rows" in varying.notes(one_form=True)[1]
    assert "and 180 more" in varying.notes(one_form=True)[1]


def test_mixed_forms_are_counted_with_their_first_line():
    tally = Tally()
    for line in range(1, 1201):
        tally.add("messages", line)
    assert mixed(tally) == ""
    tally.add("text", 200_001)
    assert mixed(tally) == "rows of 2 forms: 1,200 messages from line 1; 1 text from line 200,001"
