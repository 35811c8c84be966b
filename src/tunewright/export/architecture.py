"""A model's config as GGUF metadata: which architectures llama.cpp computes as Transformers does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.errors import Problem, TunewrightError

ARCHITECTURES: Mapping[str, Literal["qwen3", "llama"]] = {
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
}


@dataclass(frozen=True)
class Shape:
    """What llama.cpp must know of a model besides its tensors.

    Attributes:
        family: llama.cpp's name of the architecture.
        context_length: Tokens; with a sliding window, that window, within which attention is full.
        rope_scaling: Factor of linear scaling, or None.
        rope_factors: Divisors of the rotary frequencies, or empty.
    """

    family: Literal["qwen3", "llama"]
    vocabulary: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_eps: float
    context_length: int
    rope_theta: float
    rope_scaling: float | None
    rope_factors: tuple[float, ...]
    tied: bool


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a config, as Transformers resolves it, describes.

    Raises:
        TunewrightError: E_MODEL, with every feature that cannot be written as GGUF.
    """
    architecture = str((config.get("architectures") or ["unknown"])[0])
    rope = dict(config.get("rope_parameters") or {})
    kind = rope.get("rope_type", "default")
    wrong: list[str] = []
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        wrong.append(f"The architecture {architecture} is not supported; supported: {known}.")
    else:
        if kind not in ("default", "linear", "llama3"):
            wrong.append(f"The rotary scaling '{kind}' is not supported.")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            wrong.append("A partial rotary embedding is not supported.")
        if config.get("attention_bias") or config.get("mlp_bias"):
            wrong.append("Biases in attention or MLP are not supported.")
        if config.get("hidden_act") != "silu":
            wrong.append(f"The activation '{config.get('hidden_act')}' is not supported.")
    if wrong:
        raise TunewrightError(
            Problem("E_MODEL", text, "config.json", "Stop before the export (`--until merge`).")
            for text in wrong
        )
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    context = config["max_position_embeddings"]
    return Shape(
        family=ARCHITECTURES[architecture],
        vocabulary=config["vocab_size"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        head_dim=head_dim,
        rms_eps=config["rms_norm_eps"],
        context_length=min(context, config.get("sliding_window") or context),
        rope_theta=rope["rope_theta"],
        rope_scaling=rope["factor"] if kind == "linear" else None,
        rope_factors=_llama3_factors(rope, head_dim) if kind == "llama3" else (),
        tied=bool(config.get("tie_word_embeddings")),
    )


def _llama3_factors(rope: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """Return the divisor of each rotary frequency.

    Source: Transformers, modeling_rope_utils.py, `_compute_llama3_parameters`.
    """
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    trained = rope["original_max_position_embeddings"]
    factors: list[float] = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (index / head_dim)
        smooth = (trained / wavelength - low) / (high - low)
        if wavelength < trained / high:
            factors.append(1.0)
        elif wavelength > trained / low:
            factors.append(float(rope["factor"]))
        else:
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return tuple(factors)
