import math

import pytest

from tunewright.errors import TunewrightError
from tunewright.export.architecture import shape_of

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


def test_llama_3_1():
    shape = shape_of(LLAMA)
    assert (shape.family, shape.head_dim, shape.context_length) == ("llama", 128, 131072)
    assert len(shape.rope_factors) == 64
    assert shape.rope_factors[0] == 1.0
    assert shape.rope_factors[-1] == 8.0
    between = [f for f in shape.rope_factors if 1.0 < f < 8.0]
    assert between == sorted(between)
    wavelength = 2 * math.pi * 500000 ** (2 * 30 / 128)
    smooth = (8192 / wavelength - 1) / 3
    assert shape.rope_factors[30] == pytest.approx(1 / ((1 - smooth) / 8 + smooth))


def test_a_sliding_window_limits_the_context():
    config = LLAMA | {"architectures": ["MistralForCausalLM"], "sliding_window": 4096}
    assert shape_of(config).context_length == 4096


def test_an_unknown_architecture_is_named():
    with pytest.raises(TunewrightError) as caught:
        shape_of({"architectures": ["MambaForCausalLM"]})
    (problem,) = caught.value.problems
    assert problem.code == "E_MODEL"
    assert "MambaForCausalLM" in problem.message


def test_all_unsupported_features_are_named():
    rope = LLAMA["rope_parameters"] | {"rope_type": "dynamic", "partial_rotary_factor": 0.5}
    config = LLAMA | {
        "architectures": ["Qwen3ForCausalLM"],
        "rope_parameters": rope,
        "attention_bias": True,
        "hidden_act": "gelu",
    }
    with pytest.raises(TunewrightError) as caught:
        shape_of(config)
    assert len(caught.value.problems) == 4


def test_what_llama_cpp_adds_and_what_not():
    assert shape_of(LLAMA | {"attention_bias": True, "mlp_bias": True}).family == "llama"
    for architecture in ("Qwen3ForCausalLM", "MistralForCausalLM"):
        with pytest.raises(TunewrightError, match="'attention_bias' is not supported"):
            shape_of(LLAMA | {"architectures": [architecture], "attention_bias": True})


def yarn(**options):
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    }
    config = {"architectures": ["Qwen2ForCausalLM"], "rope_parameters": rope | options}
    return shape_of(LLAMA | config).yarn


def test_yarn():
    plain = yarn()
    assert (plain.factor, plain.trained, plain.attention) == (4.0, 32768, 1.0)
    assert (plain.beta_fast, plain.beta_slow) == (32.0, 1.0)
    own = 1 + 0.1 * math.log(4)
    assert yarn(attention_factor=1.0).attention == pytest.approx(1 / own)
    assert yarn(mscale=1.0, mscale_all_dim=1.0).attention == pytest.approx(1 / own)
    assert yarn(factor=None).factor == 4.0
    with pytest.raises(TunewrightError, match="truncate"):
        yarn(truncate=False)


def test_quantised_weights_are_refused():
    with pytest.raises(TunewrightError, match="quantised"):
        shape_of(LLAMA | {"quantization_config": {"quant_method": "gptq"}})
