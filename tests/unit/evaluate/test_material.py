"""What is asked: held-out rows in turn, and prompts of the user's own."""

import json

import pytest

from tunewright.errors import TunewrightError
from tunewright.evaluate.material import own_prompts, read

ROWS = [{"prompt": f"Q{n}", "completion": f"Answer {n}", "source": f"s{n}"} for n in range(3)]


@pytest.fixture
def dataset(tmp_path):
    for name in ("train", "eval"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_rows_are_asked_in_turn_and_own_prompts_after_them(dataset, tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("One?\n\n  Two?  \n")
    found = read(dataset, num_prompts=5, prompts=["Zero?"], prompts_file=str(file))
    assert [q.prompt for q in found.questions] == [
        "Q0",
        "Q1",
        "Q2",
        "Q0",
        "Q1",
        "Zero?",
        "One?",
        "Two?",
    ]
    assert [q.author for q in found.questions[:2]] == ["Answer 0", "Answer 1"]
    assert [q.author for q in found.questions[5:]] == [None] * 3
    assert found.training_texts[0] == ("s0", "Answer 0")


def test_the_datasets_system_message_goes_with_own_prompts(dataset):
    turns = [("system", "Be kind."), ("user", "Q"), ("assistant", "A")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    (dataset / "eval.jsonl").write_text(json.dumps(row))
    found = read(dataset, num_prompts=4, prompts=["Own?"], prompts_file=None)
    assert [m["role"] for m in found.questions[-1].messages] == ["system", "user"]


def test_without_a_dataset_only_own_prompts_are_asked():
    found = read(None, num_prompts=5, prompts=["Zero?"], prompts_file=None)
    assert [q.prompt for q in found.questions] == ["Zero?"]
    assert found.training_texts == []


def test_nothing_to_ask_is_refused():
    with pytest.raises(TunewrightError, match="E_DATA_EMPTY"):
        read(None, num_prompts=5, prompts=[], prompts_file=None)


def test_rows_of_all_forms_can_be_prompts(tmp_path):
    rows = [
        {"prompt": "One?"},
        {"prompt": "Two?", "completion": "Yes."},
        {"messages": [{"role": "user", "content": "Three?"}]},
        {"instruction": "Four?", "output": "Four."},
    ]
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert [p[-1]["content"] for p in own_prompts(file)] == ["One?", "Two?", "Three?", "Four?"]


def test_every_bad_line_is_told(tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "One?"}\n{"prompt": ""}\n[1]\nno json\n{"question": "x"}\n')
    with pytest.raises(TunewrightError) as caught:
        own_prompts(file)
    assert [p.where for p in caught.value.problems] == [f"{file}:{n}" for n in (2, 3, 4, 5)]
    assert {p.code for p in caught.value.problems} == {"E_DATA_ROW"}


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "E_NOT_FOUND"), (b"\xff\xfe", "E_DATA_ROW"), (b" \n", "E_DATA_EMPTY")],
)
def test_a_file_without_prompts_is_refused(tmp_path, content, code):
    file = tmp_path / "own.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TunewrightError, match=code):
        own_prompts(file)
