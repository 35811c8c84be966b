"""Predicted memory against real models: counts on the meta device, live tensors of small ones."""

import dataclasses
import importlib.util
import math
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.accel._lora import FusedLora
from tunewright.accel._recompute import recompute
from tunewright.models.families import HEAD, LINEARS, read_shape
from tunewright.train.memory import (
    WORKSPACE,
    bytes_4bit,
    optimizer_bytes,
    trainable_parameters,
    trained_tensors,
    training_memory,
    weight_bytes,
)
from tunewright.train.methods import Method

# The sizes as the models' own config.json files give them.
QWEN3 = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
QWEN3 |= {"vocab_size": 151936, "num_hidden_layers": 36, "max_position_embeddings": 40960}
BASES = {
    "Qwen3-4B": (
        "qwen3",
        QWEN3 | {"hidden_size": 2560, "intermediate_size": 9728, "tie_word_embeddings": True},
        4_022_468_096,
    ),
    "Qwen3-8B": (
        "qwen3",
        QWEN3 | {"hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False},
        8_190_735_360,
    ),
    "Llama-3.1-8B": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
        },
        8_030_261_248,
    ),
    "Mistral-7B": (
        "mistral",
        {
            "vocab_size": 32768,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": False,
        },
        7_248_023_552,
    ),
}
SMALL = {
    "vocab_size": 500,
    "hidden_size": 96,
    "intermediate_size": 224,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def shape_of(folder, kind, sizes):
    config = AutoConfig.for_model(kind, **sizes)
    config.save_pretrained(folder)
    return config, read_shape(folder)


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("base", BASES)
def test_parameters_and_bytes_of_the_real_bases_are_exact(tmp_path, base):
    kind, sizes, published = BASES[base]
    config, shape = shape_of(tmp_path, kind, sizes)
    model = on_meta(config)
    assert shape.parameters() == published == sum(p.numel() for p in model.parameters())
    names = {name.removesuffix(".weight") for name, _ in model.named_parameters()}
    assert {m.name for m in shape.modules} - {HEAD} == names - {HEAD}
    assert weight_bytes(shape, Method("bfloat16")) == 2 * published
    adapter = get_peft_model(
        model,
        LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        low_cpu_mem_usage=True,
    )
    trained = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    assert trainable_parameters(shape, Method("bfloat16")) == trained


@pytest.mark.parametrize("base", BASES)
def test_four_bit_bytes_of_the_real_bases_are_those_of_their_tensors(tmp_path, base):
    kind, sizes, _ = BASES[base]
    config, shape = shape_of(tmp_path, kind, sizes)
    model = on_meta(config)
    packed = sum(
        bytes_4bit(p.numel(), double_quant=True)
        if ".layers." in name and p.ndim == 2
        else 2 * p.numel()
        for name, p in model.named_parameters()
    )
    assert weight_bytes(shape, Method("bfloat16", load_in_4bit=True)) == packed
    # PERFORMANCE.md's floor: with the states of an adapter this is what the model takes at least.
    assert packed < {"Qwen3-4B": 3.2e9, "Qwen3-8B": 6.8e9}.get(base, 6.4e9)


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"head_dim": 32, "attention_bias": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 40}),
        ("mistral", {"tie_word_embeddings": True}),
    ],
)
def test_biases_norms_and_tied_heads_are_counted(tmp_path, kind, extra):
    config, shape = shape_of(tmp_path, kind, SMALL | extra)
    model = on_meta(config)
    assert shape.parameters() == sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert shape.matrix_parameters() == matrices


TOKENS = [1, 5, 7]
ADAPTERS = {
    "r=4": {"r": 4},
    "two targets": {"targets": ("q_proj", "v_proj")},
    "an end of a path": {"targets": ("layers.1.mlp.down_proj", "self_attn.o_proj")},
    "dora": {"dora": True},
    "norms whole": {"whole": ("norm",)},
    "an MLP whole": {"targets": ("q_proj",), "whole": ("layers.0.mlp",)},
    "embedding whole": {"whole": ("embed_tokens",)},
    "both tables whole": {"whole": ("embed_tokens", "lm_head")},
    "added tokens": {"added_tokens": 3},
    "added tokens and a whole head": {"added_tokens": 3, "whole": ("lm_head",)},
}


def peft_of(method, *, tied):
    tables = ("embed_tokens",) if tied else ("embed_tokens", "lm_head")
    whole_ends = tied and bool({"embed_tokens", "lm_head"} & set(method.whole))
    tokens = {name: TOKENS for name in tables if name not in method.whole and not whole_ends}
    return LoraConfig(
        r=method.r,
        target_modules=list(method.targets),
        modules_to_save=list(method.whole) or None,
        use_dora=method.dora,
        trainable_token_indices=(tokens or None) if method.added_tokens else None,
        ensure_weight_tying=whole_ends,
        task_type="CAUSAL_LM",
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ADAPTERS)
def test_trained_parameters_are_those_of_peft(tmp_path, name, tied):
    method = Method("float32", **ADAPTERS[name])
    config, shape = shape_of(tmp_path, "qwen3", SMALL | {"tie_word_embeddings": tied})
    model = AutoModelForCausalLM.from_config(config)
    adapter = get_peft_model(model, peft_of(method, tied=tied))
    sizes = sorted(p.numel() for p in adapter.parameters() if p.requires_grad)
    assert sorted(map(math.prod, trained_tensors(shape, method))) == sizes
    assert trainable_parameters(shape, method) == sum(sizes)


def test_a_name_that_is_only_part_of_a_module_name_matches_nothing(tmp_path):
    _, shape = shape_of(tmp_path, "qwen3", SMALL)
    assert not shape.targeted(("proj", "lm_head", "q_norm"))
    assert len(shape.targeted(("q_proj",))) == shape.layers
    assert not shape.saved_whole(("embed",))


@pytest.mark.parametrize("size", [(64, 64), (128, 352), (100, 70), (33, 31), (512, 768)])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_four_bit_bytes_are_those_of_bitsandbytes(size, kind, double):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        params = importlib.import_module("bitsandbytes.nn").Params4bit
    weight = params(
        torch.randn(size), requires_grad=False, quant_type=kind, compress_statistics=double
    ).to("cpu")
    state = weight.quant_state
    parts = [weight.data, state.absmax, state.code]
    parts += [state.offset, state.state2.absmax, state.state2.code] if double else []
    real = sum(part.untyped_storage().nbytes() for part in parts)
    assert bytes_4bit(math.prod(size), double_quant=double) == real


@pytest.mark.parametrize("name", ["adamw_torch", "adafactor", "sgd"])
def test_states_are_those_of_the_optimizer(tmp_path, name):
    from transformers import Trainer, TrainingArguments

    _, shape = shape_of(tmp_path, "llama", SMALL)
    method = Method("float32", optimizer=name, r=4)
    weights = [torch.nn.Parameter(torch.ones(t)) for t in trained_tensors(shape, method)]
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=name, use_cpu=True)
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimizer = kind(weights, **settings)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    states = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    ]
    real = sum(value.untyped_storage().nbytes() for value in states)
    assert optimizer_bytes(shape, method) == pytest.approx(real, rel=0.001)


def test_eight_bit_states_take_a_byte_and_their_scales(tmp_path):
    _, shape = shape_of(tmp_path, "llama", SMALL | {"hidden_size": 512, "intermediate_size": 1024})
    method = Method("float32", optimizer="paged_adamw_8bit")
    elements = trainable_parameters(shape, method)
    assert optimizer_bytes(shape, method) == 2 * (elements + 4 * elements // 256)


WAYS = {
    "plain": {},
    "bfloat16": {"dtype": "bfloat16"},
    "two targets": {"targets": ("q_proj", "v_proj")},
    "dora": {"dora": True},
    "dropout": {"dropout": True},
    "eager": {"attention": "eager"},
    "fused": {"fused": True},
    "fused in bfloat16": {"fused": True, "dtype": "bfloat16"},
    "fused in bfloat16 with dropout": {"fused": True, "dtype": "bfloat16", "dropout": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "rows", "length"), [("llama", 3, 128), ("qwen3", 1, 192)])
def test_kept_activations_and_the_peak_are_those_of_live_tensors(
    tmp_path, monkeypatch, kind, way, rows, length
):
    method = Method(**({"dtype": "float32", "r": 8} | WAYS[way]))
    for checkpointing in (False, "selective", True):
        kept, peak, memory = _step(tmp_path, monkeypatch, kind, method, rows, length, checkpointing)
        # The gradients of an adapter come while activations go, so that a peak holds only some of them.
        most = memory.activations + memory.logits + memory.gradients
        most += memory.workspace - WORKSPACE["cpu"]
        assert memory.activations == pytest.approx(kept, rel=0.03, abs=70_000)
        assert peak <= 1.02 * most
        assert peak >= 0.94 * (most - memory.gradients)


def _step(tmp_path, monkeypatch, kind, method, rows, length, checkpointing):
    """Bytes kept after a forward pass, bytes at the peak of a step, and the prediction."""
    spec = importlib.util.spec_from_file_location("live", Path(__file__).parent / "live.py")
    live = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(live)
    from trl.trainer import utils

    # A tile is as wide as the vocabulary here; memory that is never written to is none.
    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", SMALL["vocab_size"])
    config, shape = shape_of(tmp_path, kind, SMALL | {"head_dim": 24})
    config._attn_implementation = method.attention
    dtype = getattr(torch, method.dtype)
    base = AutoModelForCausalLM.from_config(
        config, dtype=dtype, attn_implementation=method.attention
    )
    adapter = LoraConfig(
        r=method.r,
        target_modules=list(method.targets),
        use_dora=method.dora,
        lora_dropout=0.1 if method.dropout else 0.0,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, adapter).train()
    if method.fused:
        FusedLora(model, apart=checkpointing == "selective")
    utils.add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    if checkpointing:
        recompute(model, selective=checkpointing == "selective")
    ids = torch.randint(0, SMALL["vocab_size"], (rows, length))
    mask = torch.ones_like(ids)
    mask[1:, length // 2 :] = 0
    with live.Live(model) as counted:
        loss = -model(
            input_ids=ids, attention_mask=mask, labels=ids.clone(), fused_lm_head=True
        ).log_probs.sum()
        kept = counted.now
        loss.backward()
    predicted = training_memory(
        shape, method, rows=rows, length=length, checkpointing=checkpointing
    )
    return kept, counted.peak, predicted


def test_memory_grows_with_what_costs_memory(tmp_path):
    _, shape = shape_of(tmp_path, "llama", SMALL)

    def total(rows=2, *, checkpointing=False, length=128, **changes):
        method = Method(**({"dtype": "float32"} | changes))
        return training_memory(
            shape, method, rows=rows, length=length, checkpointing=checkpointing
        ).total

    assert total(dtype="bfloat16") < total()
    assert total(load_in_4bit=True) < total()
    assert total() < total(rows=3) < total(rows=3, length=200)
    selective = total(checkpointing="selective", rows=16)
    assert total(checkpointing=True, rows=16) < selective < total(rows=16)
    assert total(attention="eager", length=500) > total(length=500)
    assert total(optimizer="sgd") < total(optimizer="adafactor") < total()
    assert total(targets=LINEARS[:2]) < total()


def test_parts_add_up(tmp_path):
    _, shape = shape_of(tmp_path, "llama", SMALL)
    memory = training_memory(shape, Method("float32"), rows=1, length=64, checkpointing=False)
    assert memory.total == sum(dataclasses.astuple(memory))
