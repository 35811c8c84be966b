"""The log of another tool becomes figures, or an error that says what is missing."""

import pytest
from whole_command import ROWS, STEPS, Whole, conversations, of_log, table

LOG = [
    (10.0, "loading {'a': broken"),
    (12.0, "{'loss': '3.5', 'grad_norm': '1', 'learning_rate': '0.001'}"),
    (13.0, "12%|#| {'loss': 2.5, 'grad_norm': 1.0}"),
    (14.0, "{'train_runtime': '3.25', 'train_loss': '3'}"),
]


def test_a_log_of_transformers_becomes_figures():
    found = of_log(LOG, started=5.0, seconds=11.0)
    assert found == Whole(seconds=11.0, training=3.25, first_step=7.0, losses=[3.5, 2.5])


@pytest.mark.parametrize("missing", [LOG[:1], LOG[:3], LOG[3:], []])
def test_a_log_without_steps_or_summary_gives_no_figures(missing):
    with pytest.raises(ValueError, match="no step or no summary"):
        of_log(missing, started=5.0, seconds=11.0)


def test_rows_are_short_and_differ():
    rows = conversations()
    assert len(rows) == len(set(rows)) == ROWS
    assert all(question and answer for question, answer in rows)
    assert max(len(answer.split()) for _, answer in rows) <= 60


def test_the_table_has_medians_and_the_last_losses():
    runs = [Whole(s, 10.0, 5.0, [9.0] * (STEPS - 10) + [2.0] * 10) for s in (30.0, 20.0, 90.0)]
    assert "| trl | 30.0 s | 5.0 s | 10.0 s | 40.0 | 2.000 |" in table({"trl": runs})
