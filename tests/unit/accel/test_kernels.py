"""Other kernels for norms and gates: exact, left where they gain nothing, and where they do not run."""

import dataclasses
import shutil
import sys
import types

import pytest
import torch
from fast_models import (
    GRADIENT,
    KINDS,
    LOSS,
    OFF,
    gradient_of,
    labels_of,
    make_model,
    make_rows,
    plain,
)

from tunewright.accel import _check, _kernels
from tunewright.accel._check import kernels_gain
from tunewright.accel._step import Steps
from tunewright.train import _fast
from tunewright.train._course import Course
from tunewright.train._fast import Fast

OF_LIGER = dataclasses.replace(OFF, liger_kernel=True)
COMPILED = dataclasses.replace(OFF, torch_compile=True)


def liger(norm=None, gate=None) -> types.ModuleType:
    """A stand-in with the signatures of liger-kernel 0.8, in plain PyTorch."""

    def liger_rms_norm(X, W, eps, offset=0.0, casting_mode="llama", in_place: bool = True):  # noqa: FBT001, FBT002
        assert (offset, casting_mode, in_place) == (0.0, "llama", False)
        return W * torch.nn.functional.rms_norm(X, X.shape[-1:], eps=eps)

    def liger_swiglu(a, b):
        return a * torch.sigmoid(a) * b

    functional = types.ModuleType("liger_kernel.transformers.functional")
    functional.liger_rms_norm = norm or liger_rms_norm
    functional.liger_swiglu = gate or liger_swiglu
    return functional


def install(monkeypatch, **planted) -> None:
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.functional", liger(**planted))


@pytest.fixture
def rows():
    return make_rows()


def errors(model, rows, ways) -> tuple[float, float]:
    wanted, reference = plain(model, rows)
    steps = Steps(model, ways)
    steps.kernels = True
    labels = labels_of(rows)
    loss = steps.train(rows, labels).loss / labels
    gradient = gradient_of(model)
    return abs(loss / wanted - 1), float((gradient - reference).norm() / reference.norm())


@pytest.mark.parametrize(
    "more", [{}, {"label_only_head": True, "packing": True, "fused_lora": True}]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_loss_and_gradient_by_kernels_of_liger(monkeypatch, rows, kind, more):
    install(monkeypatch)
    loss, gradient = errors(make_model(kind), rows, dataclasses.replace(OF_LIGER, **more))
    assert loss <= LOSS
    assert gradient <= GRADIENT


# torch's compiler warns of itself.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.faults
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++")
def test_the_same_loss_and_gradient_by_compiled_kernels(rows):
    ways = dataclasses.replace(COMPILED, label_only_head=True, packing=True, fused_lora=True)
    loss, gradient = errors(make_model("qwen3"), rows, ways)
    assert loss <= LOSS
    assert gradient <= GRADIENT


@pytest.mark.parametrize(
    "planted",
    [
        {
            "norm": lambda x, w, eps, in_place: torch.nn.functional.rms_norm(
                x, x.shape[-1:], w, 1e-2
            )
        },
        {"gate": lambda a, b: torch.nn.functional.gelu(a) * b},
    ],
    ids=["another epsilon", "another gate"],
)
def test_a_planted_error_is_noticed(monkeypatch, rows, planted):
    install(monkeypatch, **planted)
    loss, gradient = errors(make_model("llama"), rows, OF_LIGER)
    assert loss > LOSS
    assert gradient > GRADIENT
    model, steps = make_model("llama"), None
    steps = Steps(model, OF_LIGER)
    steps.kernels = True
    assert not _check.check(model, steps, rows, rows_a_pass=2).passed


def test_every_norm_and_gate_runs_by_them_and_nothing_before_they_are_on(monkeypatch, rows):
    ran = []
    own = liger()

    def norm(*given, **more):
        ran.append("norm")
        return own.liger_rms_norm(*given, **more)

    def gate(*given):
        ran.append("gate")
        return own.liger_swiglu(*given)

    install(monkeypatch, norm=norm, gate=gate)
    steps = Steps(make_model("qwen3"), OF_LIGER)
    steps.train(rows[:1], 5)
    assert not ran
    steps.kernels = True
    steps.train(rows[:1], 5)
    # Three layers of four norms in Qwen3, and the last one.
    assert (ran.count("norm"), ran.count("gate")) == (13, 3)
    with steps.plain():
        steps.train(rows[:1], 5)
    steps.leave()
    steps.train(rows[:1], 5)
    assert len(ran) == 16


def test_a_norm_that_is_trained_and_another_gate_are_left_alone():
    model = make_model("llama")
    for name, parameter in model.named_parameters():
        if name.endswith("model.norm.weight"):
            parameter.requires_grad_(True)
    count = _kernels.Kernels(model, _kernels.compiled).count
    # Two norms and one gate of each of three layers.
    assert count == 9
    model = make_model("llama")
    for module in model.modules():
        if hasattr(module, "act_fn"):
            module.act_fn = torch.nn.GELU()
    assert _kernels.Kernels(model, _kernels.compiled).count == 7


@pytest.fixture
def told():
    return []


def fast(model, told, *, self_check=True) -> Fast:
    return Fast(model, OF_LIGER, self_check=self_check, said=lambda *given: told.append(given))


def batch(rows) -> dict[str, torch.Tensor]:
    longest = max(len(row.tokens) for row in rows)
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    parts = [
        {"input_ids": row.tokens, "labels": row.labels, "attention_mask": [1] * len(row.tokens)}
        for row in rows
    ]
    return {
        name: torch.tensor([part[name] + [empty] * (longest - len(part[name])) for part in parts])
        for name, empty in fill.items()
    }


@pytest.mark.parametrize("self_check", [True, False])
@pytest.mark.parametrize(("gain", "used"), [(1.3, True), (0.9, False), (1.01, False)])
def test_they_are_used_where_they_gain(monkeypatch, rows, told, gain, used, self_check):
    install(monkeypatch)
    monkeypatch.setattr(_fast, "kernels_gain", lambda *_: gain)
    found, course = fast(make_model("llama"), told, self_check=self_check), Course()
    assert found.holds(batch(rows), course)
    assert course.checked["kernels"] is used
    assert found._steps.kernels is used
    text = "are used" if used else "stay off"
    assert told[0] == (
        "accel",
        f"Liger's kernels for norms and gates {text}: with them rows run {gain:.2f} times as fast.",
    )


@pytest.mark.parametrize("used", [True, False])
def test_a_run_that_goes_on_keeps_to_what_was_found(monkeypatch, rows, told, used):
    install(monkeypatch)
    monkeypatch.setattr(_fast, "kernels_gain", lambda *_: pytest.fail("tried once more"))
    found = fast(make_model("llama"), told)
    assert found.holds(batch(rows), Course(checked={"passed": True, "kernels": used}))
    assert found._steps.kernels is used
    assert not told


def test_kernels_that_do_not_run_stay_off(monkeypatch, rows, told):
    def norm(*_, **__):
        raise ValueError("no compiler here\nand more")

    install(monkeypatch, norm=norm)
    found, course = fast(make_model("llama"), told), Course()
    assert found.holds(batch(rows), course)
    assert course.checked["kernels"] is False
    assert course.checked["passed"]
    assert told[0][1] == (
        "Liger's kernels for norms and gates do not run here and stay off: no compiler here"
    )


def test_memory_that_runs_out_is_no_reason_against_them(monkeypatch, rows, told):
    def norm(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    install(monkeypatch, norm=norm)
    with pytest.raises(torch.OutOfMemoryError):
        fast(make_model("llama"), told).holds(batch(rows), Course())


def test_wrong_kernels_are_left_with_everything_else(monkeypatch, rows, told):
    install(monkeypatch, gate=lambda a, b: torch.nn.functional.gelu(a) * b)
    monkeypatch.setattr(_fast, "kernels_gain", kernels_found_fast)
    found, course = fast(make_model("llama"), told), Course()
    assert not found.holds(batch(rows), course)
    assert not found._steps.kernels
    assert "W_ACCEL_OFF" in told[-1][1]


def kernels_found_fast(_, steps, __) -> float:
    steps.kernels = True
    return 2.0


def test_the_gain_is_a_quotient_of_times_and_leaves_nothing_behind(monkeypatch, rows):
    install(monkeypatch)
    model = make_model("llama", dropout=0.3)
    steps = Steps(model, OF_LIGER)
    seconds = iter([9.0, 3.0, 2.0, 4.0, 9.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(_check, "_measured", lambda *_: (0.0, [], next(seconds)))
    assert kernels_gain(model, steps, rows) == 2.0
    assert steps.kernels
    monkeypatch.undo()
    install(monkeypatch)
    before = torch.random.get_rng_state()
    assert kernels_gain(model, Steps(model, OF_LIGER), rows) > 0
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
