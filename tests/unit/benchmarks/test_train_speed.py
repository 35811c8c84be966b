"""The benchmark of training speed: who does something else gets no figure."""

import argparse
import sys
from typing import ClassVar

import numpy as np
import pytest
from speed.bench import Bench, chosen
from speed.contenders import (
    CONTENDERS,
    FRUGAL,
    OWN,
    PLAIN,
    PLANTED_FACTOR,
    Contender,
    planted,
)
from speed.figures import Round, filled, needed_flops, round_of, spread, summary, table
from speed.parity import TOLERANCES, Trained, faults
from speed.processes import Failed, Limits, run
from speed.rows import ADAPTERS, ASSISTANT, END, IGNORED, SETS, SHAPES, USER, Row, rows_of, work_of

ALLOWED = TOLERANCES["float32"]
RATE, STEPS, ROWS, WIDTH = 1e-3, 20, 64, 12


def train(rate=RATE, noise=0.0, scale=1.0):
    """Fit a line with AdamW, in numpy: a training small enough to be written out."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(STEPS, ROWS, WIDTH)), rng.normal(size=(STEPS, ROWS))
    disturbed = np.random.default_rng(1)
    weights = start()["w"].copy()
    first, second, losses, norm = np.zeros(WIDTH), np.zeros(WIDTH), [], None
    for step in range(1, STEPS + 1):
        error = x[step - 1] @ weights - y[step - 1]
        losses.append(scale * float(error @ error) / ROWS)
        gradient = scale * 2 * x[step - 1].T @ error / ROWS
        gradient *= 1 + noise * disturbed.normal(size=WIDTH)
        norm = float(np.linalg.norm(gradient)) if norm is None else norm
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        moved = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weights = weights - rate * moved
    return Trained(losses, norm, {"w": weights.astype(np.float32)})


def start():
    return {"w": np.linspace(-1, 1, WIDTH)}


def judge(one, reference=None):
    return faults(one, reference or train(), start(), ALLOWED)


def test_the_same_training_passes_with_the_noise_of_float32():
    assert judge(train()) == []
    assert judge(train(noise=1e-6)) == []


@pytest.mark.parametrize("factor", [PLANTED_FACTOR, 0.95, 1.01])
def test_another_learning_rate_is_refused(factor):
    found = judge(train(rate=RATE * factor))
    assert any("length of the adapter's change" in fault for fault in found)


def test_a_learning_rate_that_losses_do_not_show_is_refused():
    wrong = train(rate=RATE * 1.05)
    found = judge(Trained(train().losses, train().norm, wrong.adapter))
    assert len(found) == 1
    assert "length" in found[0]


def test_another_scale_of_the_loss_is_refused_though_adamw_does_not_see_it():
    found = judge(train(scale=0.5))
    assert any("the loss of step 1" in fault for fault in found)
    assert any("the gradient norm of step 1" in fault for fault in found)


def test_another_direction_is_refused():
    assert any("direction" in fault for fault in judge(train(noise=2)))


@pytest.mark.parametrize(
    "wrong",
    [
        Trained([], 1.0, start()),
        Trained(train().losses[:-1], train().norm, train().adapter),
        Trained([float("nan")] * STEPS, train().norm, train().adapter),
        Trained(train().losses, None, train().adapter),
        Trained(train().losses, train().norm, {}),
        Trained(train().losses, train().norm, {"w": np.full(WIDTH, np.nan)}),
        Trained(train().losses, train().norm, start()),
    ],
)
def test_what_cannot_be_compared_is_refused(wrong):
    assert judge(wrong)


def test_a_reference_that_did_not_move_lets_nobody_pass():
    still = Trained(train().losses, train().norm, start())
    assert judge(still, still)


def told(ends, busy, executed):
    course = {"ends": ends, "busy": busy, "executed": executed}
    return {"courses": [course, course], "cold_start_seconds": 9.0, "peak_memory_bytes": 5}


def test_the_first_step_is_not_counted_and_all_trainings_are():
    found = round_of(told([0, 100, 101, 103], [0, 50, 52, 56], [0, 7, 17, 27]))
    assert found == Round(seconds=6, busy=12, executed=40, cold_start=9.0, memory=5)


def test_median_and_spread():
    found = spread([3.0, 1.0, 100.0])
    assert (found.median, found.low, found.high) == (3.0, 1.0, 100.0)


def test_work_counts_no_padding_and_nothing_that_is_not_predicted():
    rows = [
        {"input_ids": [1, 2, 3], "labels": [IGNORED, 2, 3]},
        {"input_ids": [1, 2], "labels": [1, 2]},
    ]
    first, both = work_of(rows, 1, 1, 1), work_of(rows, 1, 2, 1)
    assert (first.tokens, first.labels, first.squares) == (3, 2, 9)
    assert (both.tokens, both.labels, both.squares) == (5, 3, 13)
    assert first + work_of(rows, 2, 2, 1) == both


def test_the_limit_is_four_operations_a_weight_and_token_and_the_head_at_labels_only():
    shape = SHAPES["qwen3-0.6b"]
    one = work_of([{"input_ids": [1], "labels": [IGNORED]}], 1, 1, 1)
    two = work_of([{"input_ids": [1, 1], "labels": [IGNORED, 1]}], 1, 1, 1)
    weights = 440_401_920  # of the linear layers of Qwen3-0.6B
    lora = 10_092_544  # of rank 16 on all of them
    attention = 6 * 28 * 2048
    head = 151936 * 1024
    assert needed_flops(shape, one, 16) == 4 * weights + 6 * lora + attention
    assert needed_flops(shape, two, 16) == 2 * (4 * weights + 6 * lora) + 4 * head + 4 * attention


@pytest.mark.parametrize("name", SETS)
def test_rows_of_a_set_are_the_same_each_time_and_as_long_as_the_protocol_says(name):
    found = rows_of(name, vocabulary=4096, count=40)
    assert found == rows_of(name, vocabulary=4096, count=40)
    assert len(found) == (ADAPTERS if name == "C" else 1)
    low, high = (700, 4096) if name == "B" else (60, 200)
    assert all(low <= len(row.input_ids) <= high for rows in found for row in rows)
    assert all(0 <= i < 4096 for rows in found for row in rows for i in row.input_ids)


@pytest.mark.parametrize(("name", "shared"), [("A0", 1), ("A30", 30), ("A100", 100)])
def test_short_rows_share_a_prefix_of_so_many_tokens_and_no_more(name, shared):
    rows = [row.input_ids for row in rows_of(name, vocabulary=4096, count=40)[0]]
    assert len({tuple(ids[:shared]) for ids in rows}) == 1
    assert len({ids[shared] for ids in rows}) > 1


def test_chunks_learn_everything_and_short_rows_the_answer_and_its_end():
    assert Row((), (7, 8)).labels == [7, 8, END]
    row = Row((5, 6), (7, 8))
    assert row.input_ids == [USER, 5, 6, ASSISTANT, 7, 8, END]
    assert row.labels == [IGNORED] * 4 + [7, 8, END]
    assert row.text == {"prompt": "w5 w6", "completion": "w7 w8"}


def result(own=100.0):
    rounds = [Round(1.0, 2.0, 110, 3.0, 4_000_000), Round(2.0, 4.0, 110, 5.0, 4_000_000)]
    work = work_of([{"input_ids": [1] * 100, "labels": [1] * 51}], 1, 1, 1)
    other = summary(rounds, work, flops=1e9, gflops=10)
    mine = {**other, "tokens_a_second": {"median": own, "low": own, "high": own}}
    return {
        "shape": "small", "set": "A0", "steps": 1, "rounds": 2, "tokens": 100, "labels": 50,
        "dtype": "float32", "threads": 1, "gflops": 10.0,
        "contenders": {OWN: mine, "trl": other, "axolotl": {"status": "refused", "reason": "No."}},
    }  # fmt: skip


def test_a_summary_has_medians_and_the_share_of_the_limit():
    found = result()["contenders"]["trl"]
    assert found["tokens_a_second"] == {"median": 75.0, "low": 50.0, "high": 100.0}
    assert found["tokens_a_processor_second"]["median"] == 37.5
    assert found["executed_share"] == pytest.approx(1.1)
    assert found["share_of_limit"] == pytest.approx({"median": 0.075, "low": 0.05, "high": 0.1})


def test_the_table_holds_ours_against_the_others_and_gives_who_was_refused_no_figure():
    text = table([result(own=150.0)], own=OWN)
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("| trl |")).split(" | ")[3] == "2.00x"
    assert not any(line.startswith("| axolotl") for line in lines)
    assert "* axolotl: no figure. No." in lines


def test_the_table_does_without_ours():
    given = result()
    del given["contenders"][OWN]
    assert "| trl | 75 |" in table([given], own=OWN)


def test_a_page_keeps_what_is_around_the_figures():
    page = "a\n<!-- x:start -->\nold\n<!-- x:end -->\nb\n"
    assert filled(page, "new", "x") == "a\n<!-- x:start -->\nnew\n<!-- x:end -->\nb\n"
    with pytest.raises(ValueError, match="has no lines"):
        filled("a page", "new", "x")


def test_the_planted_contender_is_off_by_five_percent():
    assert planted(1.0).variants == [{"learning_rate": 1.05}]
    assert planted(1.0).script == CONTENDERS[PLAIN].script


@pytest.mark.parametrize(
    ("program", "seconds", "memory", "why"),
    [
        ("import sys; sys.exit('it is broken')", 60, 10**12, "exit code 1: it is broken"),
        ("import time; time.sleep(60)", 1, 10**12, "took more than 1 s"),
        ("import time; x = bytearray(10**8); time.sleep(60)", 60, 5 * 10**7, "GB of memory"),
    ],
)
def test_a_process_that_goes_wrong_is_ended_and_says_why(tmp_path, program, seconds, memory, why):
    limits = Limits(memory, seconds)
    with pytest.raises(Failed, match=why):
        run([sys.executable, "-c", program], tmp_path, limits, {})


def test_the_last_line_of_a_process_is_what_it_tells(tmp_path):
    limits = Limits(10**12, 60)
    line, _ = run([sys.executable, "-c", "print(1); print(2)"], tmp_path, limits, {})
    assert line == "2"


@pytest.fixture
def bench(tmp_path):
    """A bench whose processes are imitated: `lacking(flags)` says whether a contender lacks memory with its flags."""

    class Imitated(Bench):
        asked: ClassVar[list[dict]] = []
        lacking = staticmethod(lambda flags: False)

        def told(self, who, contender, flags, steps, keep):
            self.asked.append(dict(flags))
            if self.lacking(flags):
                raise Failed("it needs more than 1 GB of memory")
            return {"flags": flags}

    args = argparse.Namespace(steps=1)
    return Imitated("small", "B", *[tmp_path] * 4, args, Limits(1, 1))


def test_who_lacks_memory_recomputes_and_nobody_else(bench, monkeypatch):
    monkeypatch.setattr(
        "speed.bench.round_of", lambda told: argparse.Namespace(seconds=1 / told["flags"]["micro"])
    )
    variants = [{"micro": 8}, {"micro": 2}, {"micro": 1}]
    contender = Contender("x.py", variants, FRUGAL)
    assert chosen(bench, "x", contender)[0] == {"micro": 8}
    assert FRUGAL not in bench.asked
    type(bench).lacking = staticmethod(lambda flags: flags.get("micro", 8) > 2)
    assert chosen(bench, "x", contender)[0] == {"micro": 2}
    assert FRUGAL not in bench.asked
    type(bench).lacking = staticmethod(lambda flags: "gradient_checkpointing" not in flags)
    assert chosen(bench, "x", contender)[0] == FRUGAL
    type(bench).lacking = staticmethod(lambda flags: True)
    with pytest.raises(Failed, match="memory"):
        chosen(bench, "x", contender)
