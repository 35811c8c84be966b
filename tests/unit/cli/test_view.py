import json
import math
from dataclasses import replace

import pytest

from tunewright.cli.text import visible_json
from tunewright.cli.view import Seen, page, values
from tunewright.train.history import History

HOLDER = {"pid": 42, "host": "box", "boot_id": "", "process_start": "", "since": "today"}
GPU = {
    "name": "RTX 4090",
    "use_percent": 97,
    "memory_used_bytes": 20_500_000_000,
    "memory_total_bytes": 24_000_000_000,
    "temperature_celsius": 66,
}


def seen(**changes) -> Seen:
    rows = [{"step": 0, "eval_loss": 4.0}]
    for step in range(1, 41):
        rows.append({"step": step, "loss": 4 - step / 20, "learning_rate": 1e-4, "grad_norm": 0.5})
        if step % 10 == 0:
            rows.append({"step": step, "eval_loss": 4 - step / 25})
    history = History(
        rows=rows,
        progress=[
            {
                "step": step,
                "steps": 100,
                "seconds": 2.0 * step,
                "time": 1000.0 + 2 * step,
                "tokens_per_second": 3120.4,
                "memory_bytes": 1.2e9,
                "device": "cuda",
            }
            for step in range(41)
        ],
        events=[{"time": 1020.0, "event": "checkpoint", "text": "checkpoint of step 10"}],
        samples=[{"step": 40, "prompt": "Where\nis it?", "answer": "Here."}],
        identity={},
        torn=0,
    )
    whole = Seen("runs/a", "org/base", history, HOLDER, [GPU], now=1085.0)
    return replace(whole, **changes)


def test_the_page_says_what_there_is_to_know():
    text = "\n".join(page(seen(), width=80, height=24))
    for part in (
        "running (process 42 on box): runs/a, org/base",
        "step 40 of 100 (40%), 2:00 left",
        "loss 2.000, held-out loss 2.400, learning rate 1.0e-04, gradient norm 0.50",
        "best 2.400 at step 40",
        "3,120 tokens/s, 1.2 GB, on cuda, last news 0:05 ago",
        "RTX 4090: 97 % used, 20.5 of 24.0 GB, 66 °C",
        "1:05 ago: checkpoint of step 10",
        "step 40> Where is it?",
        "  Here.",
    ):
        assert part in text


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 24), (80, 10), (20, 5)])
def test_the_page_fits_the_terminal(size):
    width, height = size
    lines = page(seen(), width=width, height=height)
    assert len(lines) < height
    assert lines[0].startswith("running (process 42 on box): runs/a")


def test_curves_stand_side_by_side_where_there_is_room():
    [title] = [x for x in page(seen(), width=80, height=24) if x.startswith("loss 2  ")]
    assert "held-out loss 2.4" in title
    narrow = page(seen(), width=50, height=40)
    assert "loss 2" in narrow
    assert "held-out loss 2.4" in narrow


def test_a_plain_terminal_gets_plain_characters():
    changed = replace(seen(), gpus=[])
    assert "\n".join(page(changed, width=80, height=24, braille=False)).isascii()


def test_nothing_of_a_file_reaches_the_terminal_as_a_command():
    history = replace(
        seen().history,
        samples=[{"step": 1, "prompt": "\x1b[2J", "answer": "a\x07\u202eb\nc"}],
        events=[{"time": 1.0, "event": "x", "text": "\x1b]0;title\x07"}],
    )
    text = "\n".join(page(seen(history=history, run="runs/\x1b[31m"), width=80, height=24))
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_a_training_that_is_over_has_no_time_left():
    text = "\n".join(page(seen(holder=None, gpus=[]), width=80, height=24))
    assert "interrupted: runs/a, org/base" in text
    assert "left" not in text
    assert "news" not in text


def test_before_the_first_step():
    empty = History([], [], [], [], {}, 0)
    lines = page(seen(history=empty, gpus=[]), width=80, height=24)
    assert "no step is logged yet" in lines
    found = values(seen(history=empty, gpus=[]))
    assert (found["step"], found["steps"], found["loss"]) == (0, None, None)


def test_json_has_everything_and_no_figure_that_json_does_not_know():
    history = replace(seen().history, rows=[*seen().history.rows, {"step": 41, "loss": math.nan}])
    found = json.loads(visible_json(values(seen(history=history))), parse_constant=pytest.fail)
    assert found["state"] == "running"
    assert found["process"]["pid"] == 42
    assert found["loss"] is None
    assert found["train_losses"][-1] == [41, None]
    assert found["eval_losses"][0] == [0, 4.0]
    assert (found["best_step"], found["best_eval_loss"]) == (40, 2.4)
    assert found["seconds_left"] == pytest.approx(120)
    assert found["gpus"] == [GPU]
