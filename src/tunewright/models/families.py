"""What the config.json of a dense decoder says about its size. Data and arithmetic."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewright.errors import failure

DENSE = frozenset(["llama", "mistral", "qwen2", "qwen3"])
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = LINEARS[:4]
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
MATRIX = 2


@dataclass(frozen=True)
class Module:
    """A module of the model that has parameters of its own.

    Attributes:
        name: Its path in the model, such as `model.layers.0.self_attn.q_proj`.
        weight: Sizes of the weight: (outputs, inputs) of a linear, (rows, width) of an embedding, (width,)
            of a norm.
        bias: Parameters of the bias, 0 without one.
    """

    name: str
    weight: tuple[int, ...]
    bias: int = 0

    @property
    def elements(self) -> int:
        """Parameters of the weight alone."""
        return self.weight[0] * (self.weight[1] if len(self.weight) == MATRIX else 1)

    @property
    def parameters(self) -> int:
        """Parameters of weight and bias."""
        return self.elements + self.bias

    @property
    def is_layer_linear(self) -> bool:
        """Whether it is a linear of a decoder layer: what LoRA changes and 4 bits are made of."""
        return self.name.rpartition(".")[2] in LINEARS


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-like decoder.

    Attributes:
        model_type: As in config.json: qwen3, llama, mistral, qwen2, ...
        layers: Decoder layers.
        hidden: Width of the residual stream.
        intermediate: Width of the gated MLP.
        query: Width of all query heads together.
        key_value: Width of all key heads together; the value heads have the same.
        head: Width of one head.
        vocabulary: Rows of the embedding.
        tied: The output head is the embedding.
        context: Longest sequence in tokens.
        biases: Linears of a layer that have a bias.
        head_norms: Queries and keys are normed head by head.
        dtype: Precision that the weights are stored in.
        window: Positions that attention looks back at most; None: all.
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    head: int
    vocabulary: int
    tied: bool
    context: int
    biases: frozenset[str] = frozenset()
    head_norms: bool = False
    dtype: str = "bfloat16"
    window: int | None = None

    def linear_sizes(self) -> Mapping[str, tuple[int, int]]:
        """Return (inputs, outputs) of each linear of a layer."""
        h, i = self.hidden, self.intermediate
        return {
            "q_proj": (h, self.query),
            "k_proj": (h, self.key_value),
            "v_proj": (h, self.key_value),
            "o_proj": (self.query, h),
            "gate_proj": (h, i),
            "up_proj": (h, i),
            "down_proj": (i, h),
        }

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        """All modules with parameters; a tied head is one as well, with the embedding's weight."""
        table = (self.vocabulary, self.hidden)
        layers = (module for number in range(self.layers) for module in self._layer(number))
        ends = (Module("model.norm", (self.hidden,)), Module(HEAD, table))
        return (Module(EMBEDDING, table), *layers, *ends)

    def _layer(self, number: int) -> Iterator[Module]:
        stem = f"model.layers.{number}."
        for name, (inputs, outputs) in self.linear_sizes().items():
            part = "self_attn." if name in ATTENTION else "mlp."
            bias = outputs if name in self.biases else 0
            yield Module(stem + part + name, (outputs, inputs), bias)
        if self.head_norms:
            yield Module(stem + "self_attn.q_norm", (self.head,))
            yield Module(stem + "self_attn.k_norm", (self.head,))
        yield Module(stem + "input_layernorm", (self.hidden,))
        yield Module(stem + "post_attention_layernorm", (self.hidden,))

    def parameters(self) -> int:
        """Return all parameters, the embedding counted once if tied."""
        tied = self.vocabulary * self.hidden if self.tied else 0
        return sum(module.parameters for module in self.modules) - tied

    def grown(self, rows: int) -> "Shape":
        """Return the shape with an embedding of at least `rows` rows, at a multiple of 64 or 8 if it was at one."""
        multiple = next(m for m in (64, 8, 1) if self.vocabulary % m == 0)
        wanted = -(-rows // multiple) * multiple
        return self if rows <= self.vocabulary else replace(self, vocabulary=wanted)

    def linear_parameters(self) -> int:
        """Return the weights of the linears of all layers, which are what is multiplied for a token."""
        return self.layers * sum(a * b for a, b in self.linear_sizes().values())

    def matrix_parameters(self) -> int:
        """Return the parameters of all matrices, the embedding counted once if tied; norms left out."""
        return self.linear_parameters() + (1 if self.tied else 2) * self.vocabulary * self.hidden

    def targeted(self, targets: Iterable[str]) -> tuple[Module, ...]:
        """Return the linears that an adapter with these targets changes.

        Args:
            targets: Names, or ends of paths such as `layers.0.self_attn.q_proj`, as PEFT takes them.
        """
        wanted = tuple(targets)
        return tuple(m for m in self.modules if m.is_layer_linear and named(m, wanted))

    def saved_whole(self, names: Iterable[str]) -> tuple[Module, ...]:
        """Return the modules that `modules_to_save` trains whole: all whose path ends like one of the names.

        A module is taken with all that is in it. Source: PEFT compares the ends of paths as plain text.
        """
        wanted = tuple(names)
        return tuple(module for module in self.modules if _inside(module.name, wanted))

    def lora_parameters(self, r: int, targets: Iterable[str], *, dora: bool = False) -> int:
        """Return the parameters of LoRA matrices of rank r on the targets, with DoRA one more an output."""
        return sum(
            r * sum(module.weight) + (module.weight[0] if dora else 0)
            for module in self.targeted(targets)
        )


def named(module: Module, targets: Iterable[str]) -> bool:
    """Return whether one of the targets names the module: its path, or an end of it after a dot."""
    return any(module.name == name or module.name.endswith(f".{name}") for name in targets)


def _inside(path: str, names: tuple[str, ...]) -> bool:
    parts = path.split(".")
    ends = (".".join(parts[: count + 1]) for count in range(len(parts)))
    return any(end.endswith(names) for end in ends) if names else False


def read_shape(folder: Path) -> Shape:
    """Return the sizes of the model in a folder.

    Raises:
        TunewrightError: E_MODEL, it is not a decoder of a known kind, or its config lacks a size.
    """
    file = folder / "config.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    kind = data.get("model_type")
    if kind not in DENSE:
        raise failure(
            "E_MODEL",
            f"Models of type '{kind}' are not supported.",
            where=file,
            fix=f"Use a model of type {', '.join(sorted(DENSE))}.",
        )
    try:
        return _shape(kind, data)
    except KeyError as error:
        raise failure("E_MODEL", f"The config has no {error}.", where=file) from error


def _shape(kind: str, data: Mapping[str, Any]) -> Shape:
    heads = data["num_attention_heads"]
    head = data.get("head_dim") or data["hidden_size"] // heads
    return Shape(
        model_type=kind,
        layers=data["num_hidden_layers"],
        hidden=data["hidden_size"],
        intermediate=data["intermediate_size"],
        query=heads * head,
        key_value=(data.get("num_key_value_heads") or heads) * head,
        head=head,
        vocabulary=data["vocab_size"],
        tied=data.get("tie_word_embeddings", False),
        context=data["max_position_embeddings"],
        biases=_biases(kind, data),
        head_norms=kind == "qwen3",
        dtype=data.get("dtype") or data.get("torch_dtype") or "float32",
        window=data.get("sliding_window") if data.get("use_sliding_window", True) else None,
    )


def _biases(kind: str, data: Mapping[str, Any]) -> frozenset[str]:
    """Return the linears with a bias. Source: the models' code in Transformers; Mistral's has none."""
    if kind == "qwen2":
        return frozenset(["q_proj", "k_proj", "v_proj"])
    found: set[str] = set()
    if kind in ("llama", "qwen3") and data.get("attention_bias"):
        found |= set(ATTENTION)
    if kind == "llama" and data.get("mlp_bias"):
        found |= set(LINEARS) - set(ATTENTION)
    return frozenset(found)
