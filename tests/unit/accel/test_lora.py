"""A linear with its adapter as one operation gives what PEFT's five give."""

import pytest
import torch
from fast_models import make_model
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear

from tunewright.accel import _lora


class Net(torch.nn.Module):
    def __init__(self, *, bias):
        super().__init__()
        self.first = torch.nn.Linear(12, 20, bias=bias)
        self.second = torch.nn.Linear(20, 7, bias=bias)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def made(*, bias=True, **options):
    torch.manual_seed(1)
    given = {"r": 3, "lora_alpha": 5, "target_modules": ["first", "second"]} | options
    model = get_peft_model(Net(bias=bias), LoraConfig(**given))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model


def run(model, x, seed=3):
    """Return the output, the gradient of the input, and those of the parameters."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_(True)
    out = model(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    found = [
        out.detach(),
        x.grad,
        *(p.grad.clone() for p in model.parameters() if p.grad is not None),
    ]
    model.zero_grad()
    return found


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"use_rslora": True}, {"lora_dropout": 0.3}],
    ids=["plain", "no bias", "rslora", "dropout"],
)
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12)])
def test_the_same_output_and_gradients(options, shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float32)
    wanted = run(made(**options), x)
    model = made(**options)
    assert _lora.FusedLora(model).count == 2
    found = run(model, x)
    assert len(found) == len(wanted) == 2 + 4
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12)])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_dropout": 0.3}])
def test_after_the_product_of_the_base_it_is_the_same(options, shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float32)
    wanted = run(made(**options), x)
    model = made(**options)
    _lora.FusedLora(model, apart=True)
    for a, b in zip(run(model, x), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"lora_dropout": 0.3}])
def test_over_a_base_in_16_bits_it_is_no_farther_off_than_pefts(options):
    """Against float32 of the same rounded weights; the adapter is float32 in all."""
    torch.manual_seed(0)
    x = torch.randn(64, 12).bfloat16()

    def low():
        model = made(**options).bfloat16()
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
        return model

    exact = run(low().float(), x.float())
    plain, fused = low(), low()
    _lora.FusedLora(fused)
    for reference, a, b in zip(exact, run(plain, x), run(fused, x), strict=True):
        assert a.dtype == b.dtype
        error, own = ((given.float() - reference).norm() for given in (a, b))
        assert own <= 1.2 * error + 1e-6


def test_over_a_base_in_4_bits_it_is_pefts():
    bnb = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    x = torch.randn(5, 64)

    def quantised():
        torch.manual_seed(1)
        net = torch.nn.Sequential(
            bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4")
        ).to("cpu")
        model = get_peft_model(net, LoraConfig(r=3, target_modules=["0"]))
        torch.nn.init.normal_(next(p for n, p in model.named_parameters() if "lora_B" in n))
        return model

    wanted = run(quantised(), x)
    model = quantised()
    assert _lora.FusedLora(model).count == 1
    for a, b in zip(run(model, x), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("apart", [True, False])
def test_the_gradients_are_those_of_the_output(apart):
    """By differences, in double precision."""
    model = made().double()
    assert _lora.FusedLora(model, apart=apart).count == 2
    x = torch.randn(4, 12, dtype=torch.float64, requires_grad=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda x, *_: model(x), (x, *trained))


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_what_is_more_than_lora_stays_pefts(options):
    assert _lora.FusedLora(made(**options)).count == 0


def test_calls_that_are_no_plain_training_stay_pefts():
    x, model = torch.randn(4, 12), made()
    with model.disable_adapter():
        base = model(x)
    assert _lora.FusedLora(model).count == 2
    tuned = model(x)
    with model.disable_adapter():
        assert torch.equal(model(x), base)
    model.merge_adapter()
    torch.testing.assert_close(model(x), tuned, rtol=1e-5, atol=1e-5)
    model.unmerge_adapter()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["first", "second"]))
    model.set_adapter("other")
    torch.testing.assert_close(model(x), base, rtol=1e-5, atol=1e-5)


def test_it_can_be_turned_off():
    x, model = torch.randn(4, 12), made()
    fused, called = _lora.FusedLora(model), []
    for module in model.modules():
        if isinstance(module, Linear):
            module.lora_A["default"].register_forward_hook(lambda *_: called.append(1))
    model(x)
    assert not called
    fused.on = False
    model(x)
    assert len(called) == 2


def test_every_linear_of_a_model_is_one():
    model = make_model("llama")
    assert _lora.FusedLora(model).count == sum(isinstance(m, Linear) for m in model.modules()) == 21
