"""What the config.json of a dense decoder says about its size. Data and arithmetic."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import failure

DENSE = frozenset(["llama", "mistral", "qwen2", "qwen3"])
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


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
        vocabulary: Rows of the embedding.
        tied: The output head is the embedding.
        context: Longest sequence in tokens.
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    vocabulary: int
    tied: bool
    context: int

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

    def matrix_parameters(self) -> int:
        """Return the parameters of all matrices, the embedding counted once if tied; norms left out."""
        linear = sum(a * b for a, b in self.linear_sizes().values())
        return self.layers * linear + (1 if self.tied else 2) * self.vocabulary * self.hidden

    def lora_parameters(self, r: int, targets: Iterable[str]) -> int:
        """Return the parameters of LoRA matrices of rank r on the named linears of every layer."""
        sizes = self.linear_sizes()
        return self.layers * sum(r * sum(sizes[name]) for name in targets if name in sizes)


def read_shape(folder: Path) -> Shape:
    """Return the sizes of the model in a folder.

    Raises:
        TunewrightError: E_MODEL, it is not a decoder of a known kind.
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
    heads = data["num_attention_heads"]
    head = data.get("head_dim") or data["hidden_size"] // heads
    return Shape(
        model_type=data["model_type"],
        layers=data["num_hidden_layers"],
        hidden=data["hidden_size"],
        intermediate=data["intermediate_size"],
        query=heads * head,
        key_value=data.get("num_key_value_heads", heads) * head,
        vocabulary=data["vocab_size"],
        tied=data.get("tie_word_embeddings", False),
        context=data["max_position_embeddings"],
    )
