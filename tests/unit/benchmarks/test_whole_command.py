"""The log of another tool becomes figures, or an error that says what is missing."""

import pytest
import torch
import whole_command
from transformers import AutoModelForCausalLM, AutoTokenizer
from whole_command import ROWS, Whole, conversations, of_log, table

from tunewright.models._folders import resolve_model

LOG = [
    (10.0, "loading {'a': broken"),
    (12.0, "{'loss': '3.5', 'grad_norm': '1', 'learning_rate': '0.001'}"),
    (13.0, "12%|#| {'loss': 2.5, 'grad_norm': 1.0}"),
    (14.0, "{'train_runtime': '3.25', 'train_loss': '3'}"),
]


def test_a_log_of_transformers_becomes_figures():
    assert of_log(LOG) == (3.25, 12.0)


@pytest.mark.parametrize("missing", [LOG[:1], LOG[:3], LOG[3:], []])
def test_a_log_without_steps_or_summary_gives_no_figures(missing):
    with pytest.raises(ValueError, match="no step or no summary"):
        of_log(missing)


def test_rows_are_short_and_differ():
    rows = conversations()
    assert len(rows) == len(set(rows)) == ROWS
    assert all(question and answer for question, answer in rows)
    assert max(len(answer.split()) for _, answer in rows) <= 60


def test_the_table_has_medians():
    runs = [Whole(seconds, 10.0, 5.0, 2.0) for seconds in (30.0, 20.0, 90.0)]
    assert "| trl | 30.0 s | 5.0 s | 10.0 s | 40.0 | 2.000 |" in table({"trl": runs})


def test_the_loss_is_that_of_the_answers(monkeypatch):
    """By Transformers' own loss, on labels that are set by hand."""
    base = str(resolve_model("tunewright/tiny"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = conversations()[:2]
    monkeypatch.setattr(whole_command, "conversations", lambda: rows)
    total = count = 0
    for question, answer in rows:
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        known = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = torch.tensor(
            [tokenizer(f"{text}{answer}<|im_end|>", add_special_tokens=False)["input_ids"]]
        )
        labels = ids.clone()
        labels[0, :known] = -100
        learned = ids.shape[1] - known
        total += float(model(input_ids=ids, labels=labels).loss.detach()) * learned
        count += learned
    assert whole_command.loss_on_rows(base, None) == pytest.approx(total / count, rel=1e-5)
