import io

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import quantize
from safetensors.torch import save_file

from tunewright.errors import TunewrightError
from tunewright.export._gguf import FILE_TYPES
from tunewright.export._tensors import (
    Tensor,
    encoded_as,
    size_bytes,
    tensors_of,
    write_values,
)
from tunewright.export.architecture import shape_of
from tunewright.models._shards import Place
from tunewright.models.headers import Stored

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 40,
    "num_hidden_layers": 1,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}


def write_tensors(folder, dtype=torch.float32, **extra):
    torch.manual_seed(0)
    sizes = {
        "model.embed_tokens.weight": (40, 64),
        "model.norm.weight": (64,),
        "model.layers.0.self_attn.q_proj.weight": (64, 64),
        "model.layers.0.self_attn.q_proj.bias": (64,),
        "model.layers.0.self_attn.k_proj.weight": (32, 64),
        "model.layers.0.mlp.down_proj.weight": (64, 96),
        "model.layers.0.mlp.up_proj.weight": (96, 50),
        "model.layers.0.self_attn.rotary_emb.inv_freq": (8,),
        "lm_head.weight": (40, 64),
    }
    tensors = {name: torch.randn(size).to(dtype) for name, size in sizes.items()} | extra
    save_file(tensors, folder / "model.safetensors")
    return tensors


def written(tensor, **options):
    out = io.BytesIO()
    sizes = []
    write_values(out, tensor, sizes.append, **options)
    assert sum(sizes) == tensor.bytes == len(out.getvalue())
    return out.getvalue()


def permuted(values, heads):
    """Return the rows as llama.cpp's rotation pairs them, row by row."""
    head = len(values) // heads
    order = [
        h * head + half * head // 2 + i
        for h in range(heads)
        for i in range(head // 2)
        for half in (0, 1)
    ]
    return values[order]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("type_name", FILE_TYPES)
def test_bytes_are_those_of_ggufs_quantisation_of_the_whole(tmp_path, dtype, type_name):
    plain = write_tensors(tmp_path, dtype)
    shape = shape_of(CONFIG)
    names = {
        "token_embd.weight": ("model.embed_tokens.weight", 0),
        "blk.0.attn_q.weight": ("model.layers.0.self_attn.q_proj.weight", 4),
        "blk.0.attn_q.bias": ("model.layers.0.self_attn.q_proj.bias", 4),
        "blk.0.attn_k.weight": ("model.layers.0.self_attn.k_proj.weight", 2),
        "blk.0.ffn_down.weight": ("model.layers.0.mlp.down_proj.weight", 0),
        "blk.0.ffn_up.weight": ("model.layers.0.mlp.up_proj.weight", 0),
        "output_norm.weight": ("model.norm.weight", 0),
        "output.weight": ("lm_head.weight", 0),
    }
    tensors = {t.name: t for t in tensors_of(tmp_path, shape, type_name)}
    assert tensors.keys() == names.keys()
    for name, (source, heads) in names.items():
        values = plain[source].float().numpy()
        values = permuted(values, heads) if heads else values
        whole = quantize(values, tensors[name].type).tobytes()
        for block_bytes in (1, 1000, 2**20):
            assert written(tensors[name], block_bytes=block_bytes) == whole
    assert size_bytes(tmp_path, shape, type_name) == sum(t.bytes for t in tensors.values())


@pytest.mark.parametrize("type_name", FILE_TYPES)
def test_types_are_those_of_llama_cpps_converter(tmp_path, type_name):
    write_tensors(tmp_path)
    types = {t.name: t.type.name for t in tensors_of(tmp_path, shape_of(CONFIG), type_name)}
    assert types["output_norm.weight"] == types["blk.0.attn_q.bias"] == "F32"
    assert types["token_embd.weight"] == types["blk.0.ffn_down.weight"] == type_name
    whole = type_name if type_name in ("F32", "F16", "BF16") else "F16"
    assert types["blk.0.ffn_up.weight"] == whole


def test_all_halves_become_the_same_as_by_gguf():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        rows = bits.view(dtype).reshape(256, 256)
        finite = torch.where(rows.isfinite(), rows, torch.zeros_like(rows))
        for name in ("F32", "F16", "BF16"):
            type_ = GGMLQuantizationType[name]
            with np.errstate(over="ignore"):
                wanted = quantize(finite.float().numpy(), type_)
            assert encoded_as(finite, type_).tobytes() == wanted.tobytes()


def test_rows_of_heads_are_read_whole(tmp_path):
    plain = write_tensors(tmp_path)
    (tensor,) = (
        t for t in tensors_of(tmp_path, shape_of(CONFIG), "F32") if t.name == "blk.0.attn_k.weight"
    )
    assert tensor.heads == 2
    values = plain["model.layers.0.self_attn.k_proj.weight"].numpy()
    assert written(tensor, block_bytes=1) == permuted(values, 2).tobytes()
    assert written(tensor, block_bytes=1) != values.tobytes()


def test_a_file_that_shrinks_meanwhile_is_an_error(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(100))
    f32 = GGMLQuantizationType.F32
    tensor = Tensor("x", (10, 5), f32, 0, Place(file, 0, Stored("F32", (10, 5), 0, 200)))
    with pytest.raises(OSError, match="cut off in x"):
        written(tensor)


def test_all_tensors_that_cannot_be_written_are_named(tmp_path):
    extra = {
        "model.layers.0.mlp.extra_proj.weight": torch.zeros(4, 4),
        "model.layers.0.mlp.gate_proj.weight": torch.zeros(4, 4, dtype=torch.int8),
    }
    write_tensors(tmp_path, **extra)
    with pytest.raises(TunewrightError) as caught:
        tensors_of(tmp_path, shape_of(CONFIG), "F16")
    messages = sorted(problem.message for problem in caught.value.problems)
    assert [problem.code for problem in caught.value.problems] == ["E_MODEL"] * 2
    assert "is stored as I8" in messages[0]
    assert "knows no tensor 'model.layers.0.mlp.extra_proj.weight'" in messages[1]


def test_a_tied_head_is_left_out(tmp_path):
    write_tensors(tmp_path)
    names = [
        t.name
        for t in tensors_of(tmp_path, shape_of(CONFIG | {"tie_word_embeddings": True}), "F16")
    ]
    assert "output.weight" not in names
