import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright import load_config
from tunewright.data.formats.columns import apply_columns, suggest
from tunewright.data.formats.forms import canonical, form_of


def test_columns_are_renamed_and_the_rest_is_kept():
    row = {"question": "q", "answer": "a", "completion": "old", "id": 3}
    found = apply_columns(row, {"prompt": "question", "completion": "answer"})
    assert found == {"prompt": "q", "completion": "a", "completion_column": "old", "id": 3}
    assert row["question"] == "q"
    assert apply_columns({"a": "x", "b": "y"}, {"prompt": "a", "style": "a"}) == {
        "prompt": "x",
        "style": "x",
        "b": "y",
    }


def test_columns_can_change_places():
    found = apply_columns(
        {"prompt": "a", "completion": "b"}, {"prompt": "completion", "completion": "prompt"}
    )
    assert found == {"prompt": "b", "completion": "a"}


def test_preference_data_becomes_the_chosen_answers():
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    found = apply_columns(row, {"completion": "chosen"})
    assert canonical(found, form_of(found)) == {
        "prompt": "q",
        "completion": "a",
        "rejected_column": "b",
    }


def test_a_column_that_is_not_there():
    with pytest.raises(
        ValueError, match="there is no column 'query' and 'reply'; the columns are a, b"
    ):
        apply_columns({"a": 1, "b": 2}, {"prompt": "query", "completion": "reply"})


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"question": "q", "answer": "a"}, {"prompt": "question", "completion": "answer"}),
        ({"id": "1", "Query": "q", "Response": "a"}, {"prompt": "Query", "completion": "Response"}),
        ({"title": "t", "body": "b"}, {"prompt": "title", "completion": "body"}),
        ({"input": "q", "target": "a"}, {"prompt": "input", "completion": "target"}),
        (
            {"user_question": "q", "model_answer": "a"},
            {"prompt": "user_question", "completion": "model_answer"},
        ),
        ({"article": "long " * 9, "summary": "s"}, {"prompt": "article", "completion": "summary"}),
        ({"dialog": [{"role": "user", "content": "q"}]}, {"messages": "dialog"}),
        ({"id": "7", "content": "a long text"}, {"text": "content"}),
        ({"a": "short question here", "b": "an answer " * 9}, {"prompt": "a", "completion": "b"}),
        ({"code": "x1", "blob": "only one long column"}, {"text": "blob"}),
        (
            {"on": "is this yaml's on?", "the answer": "it's quoted " * 3},
            {"prompt": "on", "completion": "the answer"},
        ),
        (
            {"q'uote": "what is this now", '"b"\\': "an answer " * 9},
            {"prompt": "q'uote", "completion": '"b"\\'},
        ),
    ],
)
def test_what_is_suggested_can_be_typed(row, wanted):
    typed = suggest(list(row), [row])
    flag, value = shlex.split(typed)
    assert flag == "--set"
    config = load_config("preset:demo", [value])
    assert config.prepare.columns == wanted
    found = apply_columns(row, config.prepare.columns)
    assert form_of(found) is not None


def test_nothing_to_suggest():
    assert suggest([], []) == ""
    assert suggest(["score"], [{"score": 1.5}]) == ""


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
                       st.text(min_size=1, max_size=20), min_size=1, max_size=4))  # fmt: skip
def test_any_names_are_quoted(row):
    typed = suggest(list(row), [row])
    _, value = shlex.split(typed)
    columns = load_config("preset:demo", [value]).prepare.columns
    assert set(columns.values()) <= row.keys()


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"rejected": "a long bad answer", "chosen": "a long good answer"}, "text: chosen"),
        ({"rejected": "a long bad answer", "id": "7"}, "text: id"),
        ({"Prompt": "q", "Chosen": "a", "Rejected": "b"}, "{prompt: Prompt, completion: Chosen}"),
        ({"ask": "what?", "chosen": "long " * 9}, "{prompt: ask, completion: chosen}"),
        ({"chosen": [{"role": "user"}], "rejected": [{"role": "user"}]}, "messages: chosen"),
    ],
)
def test_a_rejected_answer_is_never_suggested_and_a_chosen_one_is_no_prompt(row, wanted):
    typed = suggest(list(row), [row]).replace("=", ": ")
    assert wanted in typed.replace("columns.", "columns: ")
    assert "ejected" not in typed
    reverse = suggest(list(row)[::-1], [row]).replace("=", ": ")
    assert reverse == typed


def test_columns_that_a_row_may_lack():
    columns = {"prompt": "q", "completion": "a", "system": "sys", "input": "context"}
    row = {"q": "x", "a": "y", "input": "not this"}
    assert apply_columns(row, columns) == {
        "prompt": "x",
        "completion": "y",
        "input_column": "not this",
    }
    for role in ("prompt", "completion", "messages", "conversations", "text", "instruction", "output", "chosen",
                 "rejected"):  # fmt: skip
        with pytest.raises(ValueError, match="there is no column 'none'"):
            apply_columns(row, {role: "none"})
    renamed = {}
    apply_columns(row, {"input": "q"}, renamed)
    assert renamed == {"input": "input_column"}


def test_a_message_names_some_of_many_columns():
    row = {f"c{n}": n for n in range(5000)}
    with pytest.raises(ValueError, match=r"c18, c19, and 4,980 more$"):
        apply_columns(row, {"prompt": "x"})


def test_the_issue_example():
    row = {"question": "q", "answer": "a"}
    assert (
        suggest(list(row), [row])
        == "--set 'prepare.columns={prompt: question, completion: answer}'"
    )


def test_two_short_columns_of_unknown_names_are_question_and_answer():
    rows = [{"nr": "a1", "frage": "Wo?", "antwort": "Dort."}] * 3
    assert suggest(list(rows[0]), rows) == (
        "--set 'prepare.columns={prompt: frage, completion: antwort}'"
    )
