import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.models.families import LINEARS, read_shape
from tunewright.train.memory import training_memory

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral"])
@pytest.mark.parametrize("tied", [True, False])
def test_sizes_are_those_of_the_real_model(tmp_path, kind, tied):
    extra = {"head_dim": 32} if kind == "qwen3" else {}
    config = AutoConfig.for_model(kind, **SIZES, **extra, tie_word_embeddings=tied)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = read_shape(tmp_path)
    assert shape.matrix_parameters() == sum(p.numel() for p in model.parameters() if p.ndim == 2)
    adapter = get_peft_model(
        model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    trainable = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    assert shape.lora_parameters(8, LINEARS) == trainable


def test_memory_grows_with_what_costs_memory(tmp_path):
    AutoConfig.for_model("llama", **SIZES).save_pretrained(tmp_path)
    shape = read_shape(tmp_path)

    def total(**changes):
        given = {"dtype": "float32", "tokens": 1000, "checkpointing": False} | changes
        return training_memory(shape, 5000, **given).total

    assert total(dtype="bfloat16") < total()
    assert total(checkpointing=True) < total() < total(tokens=2000)
