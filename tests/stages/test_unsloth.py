"""Unsloth as the backend, with a stand-in for its loader: it has to have a GPU, and everything else is ours."""

import sys
import types

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tunewright import plan, train
from tunewright.errors import TunewrightError
from tunewright.train import refusals

ASKED = "accel.backend=unsloth"
SHORT = (
    *("train.max_steps=3", "train.eval_steps=3", "train.warmup_steps=0", "train.max_length=64"),
    *("train.per_device_train_batch_size=2", "train.max_eval_samples=2"),
    "train.lora.target_modules=[q_proj,down_proj]",
)


class FastLanguageModel:
    """The arguments that Unsloth's own takes, and plain models."""

    asked: list[dict]

    @classmethod
    def from_pretrained(
        cls,
        *,
        model_name,
        max_seq_length,
        dtype,
        load_in_4bit,
        device_map,
        use_gradient_checkpointing,
        trust_remote_code,
    ):
        assert trust_remote_code is False
        cls.asked = [
            {
                "max_seq_length": max_seq_length,
                "dtype": dtype,
                "load_in_4bit": load_in_4bit,
                "device_map": device_map,
                "use_gradient_checkpointing": use_gradient_checkpointing,
            }
        ]
        return AutoModelForCausalLM.from_pretrained(model_name, dtype=dtype), object()

    @classmethod
    def get_peft_model(
        cls,
        model,
        *,
        r,
        target_modules,
        lora_alpha,
        lora_dropout,
        bias,
        use_gradient_checkpointing,
        random_state,
        max_seq_length,
        use_rslora,
    ):
        given = {"r": r, "target_modules": target_modules, "lora_alpha": lora_alpha}
        cls.asked.append({**given, "random_state": random_state, "max_seq_length": max_seq_length})
        assert (bias, use_gradient_checkpointing) == ("none", False)
        settings = LoraConfig(**given, lora_dropout=lora_dropout, use_rslora=use_rslora)
        return get_peft_model(model, settings)


@pytest.fixture
def stand_in(monkeypatch):
    """Let this machine pass for one that has Unsloth."""
    module = types.ModuleType("unsloth")
    module.FastLanguageModel = FastLanguageModel
    monkeypatch.setitem(sys.modules, "unsloth", module)
    monkeypatch.setattr(refusals, "_backend", lambda *_: [])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)


def test_its_loader_and_kernels_and_everything_else_ours(trained, make_config, stand_in):
    _, dataset, plain = trained
    adapter = train(make_config(*SHORT, ASKED), dataset)
    loaded, adapted = FastLanguageModel.asked
    assert loaded == {
        "max_seq_length": 64,
        "dtype": torch.bfloat16,
        "load_in_4bit": False,
        "device_map": {"": 3},
        "use_gradient_checkpointing": False,
    }
    assert adapted == {
        "r": 4,
        "target_modules": ["q_proj", "down_proj"],
        "lora_alpha": 8,
        "random_state": 42,
        "max_seq_length": 64,
    }
    choices = {choice["name"]: choice for choice in adapter.facts["choices"]}
    assert choices["attn_implementation"]["value"] == "unsloth"
    assert choices["dtype"]["value"] == "bfloat16"
    on = {name for name, choice in choices.items() if choice["value"] == "on"}
    assert on == {"label_only_head", "length_bucketing"}
    assert choices["fused_lora"]["reason"] == "Unsloth's kernels do it"
    losses = dict(adapter.facts["eval_losses"])
    assert losses[3] < losses[0]
    assert adapter.facts["accel"]["checked"]["passed"]
    tensors = load_file(adapter.path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    usual = load_file(plain.path / "adapter_model.safetensors")
    assert {name: x.shape for name, x in tensors.items()} == {
        name: x.shape for name, x in usual.items() if "q_proj" in name or "down_proj" in name
    }


def test_where_it_cannot_be_used_everything_against_it_is_told_at_once(trained, make_config):
    _, dataset, _ = trained
    config = make_config(
        ASKED,
        "train.dtype=float32",
        "train.attn_implementation=eager",
        "train.gradient_checkpointing=selective",
        "train.lora.use_dora=true",
    )
    for stage in (plan, train):
        with pytest.raises(TunewrightError) as caught:
            stage(config, dataset)
        found = [p for p in caught.value.problems if p.where == "accel.backend"]
        assert {p.code for p in found} == {"E_CONFIG_VALUE"}
        texts = [p.message.removeprefix("Unsloth cannot be used here. ") for p in found]
        assert [text.split()[0:3] for text in texts] == [
            ["It", "needs", "an"],
            ["It", "is", "not"],
            ["It", "computes", "in"],
            ["It", "has", "its"],
            ["It", "recomputes", "everything"],
            ["Its", "adapters", "are"],
        ]


def test_turning_techniques_off_leaves_the_backend(make_config):
    assert make_config("accel=off").accel.backend == "transformers"
    with pytest.raises(TunewrightError, match=r"accel\.backend"):
        make_config("accel.backend=vllm")
