import pytest

from tunewright.config.schema import TrainSection
from tunewright.train.methods import attention, conflicts, optimizer


def options(**given) -> TrainSection:
    return TrainSection.model_validate(given)


def places(device="cuda", **given) -> list[str]:
    found = conflicts(options(**given), device)
    assert {problem.code for problem in found} <= {"E_CONFIG_VALUE"}
    return [problem.where for problem in found]


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_what_changes_the_base_does_not_go_with_four_bits(start):
    lora = {"init_lora_weights": start}
    assert places(load_in_4bit=True, lora=lora) == ["train.lora.init_lora_weights"]
    assert places(load_in_4bit=False, lora=lora) == []


def test_loftq_needs_four_bits_and_no_dora():
    lora = {"init_lora_weights": "loftq"}
    assert places(load_in_4bit=True, lora=lora) == []
    assert places(lora=lora) == ["train.lora.init_lora_weights"]
    both = places(load_in_4bit=True, lora=lora | {"use_dora": True})
    assert both == ["train.lora.init_lora_weights"]


def test_orthogonal_needs_an_even_rank():
    assert places(lora={"init_lora_weights": "orthogonal", "r": 8}) == []
    assert places(lora={"init_lora_weights": "orthogonal", "r": 7}) == ["train.lora.r"]


def test_a_module_has_an_adapter_or_is_trained_whole():
    named = {"target_modules": ["q_proj", "k_proj"], "modules_to_save": ["k_proj", "norm"]}
    (problem,) = conflicts(options(lora=named), "cpu")
    assert "k_proj" in problem.message
    assert "q_proj" not in problem.message
    assert places(lora={"modules_to_save": ["k_proj"]}) == []


def test_what_is_in_four_bits_cannot_be_trained_whole():
    whole = {"modules_to_save": ["layers.0.mlp.down_proj", "norm", "lm_head"]}
    (problem,) = conflicts(options(load_in_4bit=True, lora=whole), "cuda")
    assert problem.message.startswith("layers.0.mlp.down_proj would")
    assert places(load_in_4bit=True, lora={"modules_to_save": ["norm", "lm_head"]}) == []
    assert places(lora=whole) == []


def test_everything_wrong_is_said_at_once():
    lora = {"init_lora_weights": "pissa", "target_modules": ["norm"], "modules_to_save": ["norm"]}
    assert places("mps", load_in_4bit=True, lora=lora) == [
        "train.load_in_4bit",
        "train.lora.init_lora_weights",
        "train.lora.modules_to_save",
    ]


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "installed", "value"),
    [
        ("auto", "cuda", "bfloat16", True, "sdpa"),
        ("eager", "cpu", "float32", False, "eager"),
        ("flash_attention_2", "cuda", "bfloat16", True, "flash_attention_2"),
        ("flash_attention_2", "cuda", "bfloat16", False, "sdpa"),
        ("flash_attention_2", "cuda", "float32", True, "sdpa"),
        ("flash_attention_2", "cpu", "bfloat16", True, "sdpa"),
    ],
)
def test_attention_falls_back_with_a_reason(wanted, device, dtype, installed, value):
    choice = attention(wanted, device=device, dtype=dtype, installed=installed)
    assert choice.value == value
    if value != wanted and wanted != "auto":
        assert "flash_attention_2" in choice.reason


@pytest.mark.parametrize(
    ("wanted", "device", "load_in_4bit", "value"),
    [
        ("auto", "cuda", True, "paged_adamw_8bit"),
        ("auto", "cuda", False, "adamw_torch_fused"),
        ("auto", "cpu", True, "adamw_torch"),
        ("auto", "mps", False, "adamw_torch"),
        ("paged_adamw_8bit", "cuda", False, "paged_adamw_8bit"),
        ("paged_adamw_8bit", "cpu", True, "adamw_bnb_8bit"),
        ("paged_adamw_32bit", "cpu", True, "adamw_torch"),
        ("paged_adamw_8bit", "mps", False, "adamw_torch"),
        ("adamw_bnb_8bit", "mps", False, "adamw_torch"),
        ("adamw_bnb_8bit", "cpu", False, "adamw_bnb_8bit"),
        ("adafactor", "mps", False, "adafactor"),
    ],
)
def test_optimizer(wanted, device, load_in_4bit, value):
    choice = optimizer(wanted, device=device, load_in_4bit=load_in_4bit)
    assert (choice.name, choice.value) == ("optim", value)
    assert choice.reason
