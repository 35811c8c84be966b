"""How much memory training takes, part by part. Pure arithmetic.

Source: weights and AdamW states are exact counts; activations count the outputs of every matrix product
and norm of a layer once, and with checkpointing only the layer's input and one layer being recomputed.
"""

from dataclasses import dataclass

from tunewright.models.families import Shape

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes by part."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return (
            self.weights
            + self.adapter
            + self.gradients
            + self.optimizer
            + self.activations
            + self.logits
        )


def training_memory(
    shape: Shape, trainable: int, *, dtype: str, tokens: int, checkpointing: bool
) -> Memory:
    """Return the memory of one step over `tokens` tokens (padding included); the adapter is float32."""
    size = BYTES[dtype]
    layer = size * (
        6 * shape.hidden + 3 * shape.intermediate + 2 * (shape.query + 2 * shape.key_value)
    )
    kept = shape.layers * size * shape.hidden + layer if checkpointing else shape.layers * layer
    return Memory(
        weights=shape.matrix_parameters() * size,
        adapter=4 * trainable,
        gradients=4 * trainable,
        optimizer=8 * trainable,
        activations=tokens * kept,
        logits=2 * 4 * tokens * shape.vocabulary,
    )
