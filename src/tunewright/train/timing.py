"""How long a training takes, from what it computes. Pure arithmetic.

Source: a token costs 2 N floating point operations forward and 2 N for the gradient of the activations; a frozen
weight has no gradient of its own, an adapter's does (6 N of it in all); recomputation adds 2 N more. Attention adds
4 S d a layer forward over S positions, and two and a half times that backward (Dao 2023, "FlashAttention-2").
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tunewright.config.schema import Recomputed
from tunewright.models.families import Shape
from tunewright.train.memory import TILE_COPIES, layer_activations, trainable_parameters
from tunewright.train.methods import Method

EFFICIENCY: Mapping[str, float] = {"cuda": 0.5, "mps": 0.4, "cpu": 0.7}
"""Share of the speed of one large matrix product that training reaches; PERFORMANCE.md's figures for GPUs."""
BANDWIDTH: Mapping[str, float] = {"cuda": 400e9, "mps": 80e9, "cpu": 4e9}
"""Bytes a second that operations other than matrix products pass over: what memory gives, less the waiting."""
LAUNCH: Mapping[str, float] = {"cuda": 6e-6, "mps": 2e-5, "cpu": 6e-6}
"""Seconds to start one operation, however small."""
OPERATIONS_A_LAYER = 300
"""Operations of a layer with an adapter on each linear, forward and backward."""


@dataclass(frozen=True)
class Work:
    """What a training passes through the model.

    Attributes:
        tokens: Trained tokens of all epochs, padding included.
        length: Positions that attention looks at, on average.
        passes: Forward passes with a backward one.
        steps: Optimizer steps.
        eval_tokens: Tokens of all evaluations, padding included.
        eval_passes: Forward passes of all evaluations.
    """

    tokens: int
    length: float
    passes: int
    steps: int
    eval_tokens: int = 0
    eval_passes: int = 0


@dataclass(frozen=True)
class Limit:
    """What a device could do of this training if it did nothing else: 4 N operations a token.

    Attributes:
        layers: Operations of a position that runs through the layers.
        head: Operations of a position that has a label, in the output head.
        gigaflops: Measured speed of a matrix product, in 1e9 operations a second.
    """

    layers: float
    head: float
    gigaflops: float

    def share(self, executed: int, labels: int, seconds: float) -> float:
        """Return the share of it that was reached with so many positions and labels in so many seconds."""
        done = executed * self.layers + labels * self.head
        return done / (seconds * self.gigaflops * 1e9)


def limit_of(shape: Shape, gigaflops: float) -> Limit:
    """Return the limit of a base on a device of this speed."""
    head = 4 * shape.vocabulary * shape.hidden
    return Limit(4 * shape.linear_parameters(), head, gigaflops)


def operations(shape: Shape, method: Method, work: Work, *, checkpointing: Recomputed) -> float:
    """Return the floating point operations of a training with its evaluations."""
    linears, head = shape.linear_parameters(), shape.vocabulary * shape.hidden
    attention = 4 * work.length * shape.query * shape.layers
    forward = 2 * linears + attention
    adapter = trainable_parameters(shape, method)
    # The head is computed once forward, and twice backward, since its logits are not kept.
    each = forward + 2 * linears + 2.5 * attention + 6 * head + 6 * adapter
    each += forward if checkpointing is True else 0
    return work.tokens * each + work.eval_tokens * (forward + 2 * head + 2 * adapter)


def seconds(
    shape: Shape,
    method: Method,
    work: Work,
    *,
    checkpointing: Recomputed,
    gigaflops: float,
) -> float:
    """Return the estimate of how long a training with its evaluations takes.

    Three parts are added: matrix products at a share of the measured speed; passes over activations and tiles of
    logits at the speed of memory; and the start of operations, which is what tiny models mostly wait for.

    Args:
        shape: The base.
        method: The way of training.
        work: How much there is to do.
        checkpointing: Activations are recomputed.
        gigaflops: Measured speed of a matrix product in the precision used, in 1e9 operations a second.
    """
    device = method.device
    products = operations(shape, method, work, checkpointing=checkpointing)
    products /= gigaflops * 1e9 * EFFICIENCY[device]
    layers = shape.layers * layer_activations(shape, method, rows=1, length=1)
    # What is kept is written and read once each way, and so are its gradients; logits by each copy of a tile.
    tiles = 0 if device == "cuda" else 4 * 2 * TILE_COPIES * shape.vocabulary
    train = work.tokens * ((6 if checkpointing else 4) * layers + tiles)
    moved = (train + work.eval_tokens * (layers + tiles / 2)) / BANDWIDTH[device]
    started = LAUNCH[device] * OPERATIONS_A_LAYER * shape.layers
    waits = work.passes * started * (1.5 if checkpointing else 1) + work.eval_passes * started / 3
    return products + moved + waits
