"""A model's config as GGUF metadata: which architectures llama.cpp computes as Transformers does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.errors import Problem, TunewrightError

Family = Literal["llama", "qwen2", "qwen3"]

ARCHITECTURES: Mapping[str, Family] = {
    "Qwen3ForCausalLM": "qwen3",
    "Qwen2ForCausalLM": "qwen2",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
}
LLAMA_CPP = (
    "Name the folder of a llama.cpp checkout, whose converter is then used (`--set export.llama_cpp=DIR`), "
    "or stop before the export (`tunewright run ... --until merge`) and serve the merged folder."
)
"""The way out for a model that we cannot write."""

_SCALINGS = ("default", "linear", "llama3", "yarn")
_BIASED = {"LlamaForCausalLM": ("attention_bias", "mlp_bias")}
"""Biases that llama.cpp adds. Source: src/models/llama.cpp and qwen3.cpp, `load_arch_tensors`."""


@dataclass(frozen=True)
class Yarn:
    """YaRN scaling of the rotary embedding.

    Attributes:
        factor: By which the context grows.
        trained: Tokens of context before.
        attention: What llama.cpp multiplies its own factor of the embedding's length by.
        beta_fast: Rotations above which a frequency stays.
        beta_slow: Rotations below which a frequency is divided.
    """

    factor: float
    trained: int
    attention: float
    beta_fast: float
    beta_slow: float


@dataclass(frozen=True)
class Shape:
    """What llama.cpp must know of a model besides its tensors.

    Attributes:
        family: llama.cpp's name of the architecture.
        context_length: Tokens; with a sliding window, that window, within which attention is full.
        head_dim: Width of a head.
        own_head_dim: Whether the config names it, so that it need not follow from hidden and heads.
        rope_scaling: Factor of linear scaling, or None.
        rope_factors: Divisors of the rotary frequencies, or empty.
        yarn: YaRN scaling, or None.
    """

    family: Family
    vocabulary: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    own_head_dim: bool
    rms_eps: float
    context_length: int
    rope_theta: float
    rope_scaling: float | None
    rope_factors: tuple[float, ...]
    yarn: Yarn | None
    tied: bool


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a config, as Transformers resolves it, describes.

    Raises:
        TunewrightError: E_MODEL, with every feature that cannot be written as GGUF.
    """
    rope = dict(config.get("rope_parameters") or {})
    wrong = _reasons(config, rope)
    if wrong:
        raise TunewrightError(Problem("E_MODEL", text, "config.json", LLAMA_CPP) for text in wrong)
    kind = rope.get("rope_type", "default")
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    context = config["max_position_embeddings"]
    return Shape(
        family=ARCHITECTURES[_architecture(config)],
        vocabulary=config["vocab_size"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        head_dim=head_dim,
        own_head_dim=bool(config.get("head_dim")),
        rms_eps=config["rms_norm_eps"],
        context_length=min(context, config.get("sliding_window") or context),
        rope_theta=rope["rope_theta"],
        rope_scaling=rope["factor"] if kind == "linear" else None,
        rope_factors=_llama3_factors(rope, head_dim) if kind == "llama3" else (),
        yarn=_yarn(rope, context) if kind == "yarn" else None,
        tied=bool(config.get("tie_word_embeddings")),
    )


def _architecture(config: Mapping[str, Any]) -> str:
    return str((config.get("architectures") or ["unknown"])[0])


def _reasons(config: Mapping[str, Any], rope: Mapping[str, Any]) -> list[str]:
    """Return everything that llama.cpp would compute otherwise."""
    architecture = _architecture(config)
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        return [f"The architecture {architecture} is not supported; supported: {known}."]
    wrong: list[str] = []
    kind = rope.get("rope_type", "default")
    if kind not in _SCALINGS:
        wrong.append(f"The rotary scaling '{kind}' is not supported.")
    if kind == "yarn" and not rope.get("truncate", True):
        wrong.append("YaRN without 'truncate' is not supported.")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        wrong.append("A partial rotary embedding is not supported.")
    biased = [name for name in ("attention_bias", "mlp_bias") if config.get(name)]
    wrong += [
        f"'{name}' is not supported for {architecture}."
        for name in biased
        if name not in _BIASED.get(architecture, ())
    ]
    if config.get("hidden_act") != "silu":
        wrong.append(f"The activation '{config.get('hidden_act')}' is not supported.")
    if config.get("quantization_config"):
        wrong.append("The weights are quantised; GGUF is written from 16 or 32 bits.")
    return wrong


def _yarn(rope: Mapping[str, Any], context: int) -> Yarn:
    """Return the scaling, with the factor that makes llama.cpp's attention that of Transformers.

    llama.cpp lengthens the embedding by 1 + 0.1 ln(factor) and by what the file says.

    Source: Transformers, modeling_rope_utils.py, `_compute_yarn_parameters`; llama.cpp, ggml's
    `rope_yarn`.
    """
    trained = rope["original_max_position_embeddings"]
    factor = rope.get("factor") or context / trained
    own = _lengthening(factor, 1.0)
    wanted = rope.get("attention_factor")
    if wanted is None:
        over, under = float(rope.get("mscale") or 0), float(rope.get("mscale_all_dim") or 0)
        both = over and under
        wanted = _lengthening(factor, over) / _lengthening(factor, under) if both else own
    return Yarn(
        factor=factor,
        trained=trained,
        attention=wanted / own,
        beta_fast=rope.get("beta_fast") or 32.0,
        beta_slow=rope.get("beta_slow") or 1.0,
    )


def _lengthening(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


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
