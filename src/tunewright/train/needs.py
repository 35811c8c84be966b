"""What merge and export need after a training: disk and main memory. Pure arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tunewright.config.schema import Config
from tunewright.models.families import Shape
from tunewright.models.gguf_types import BITS
from tunewright.train.memory import optimizer_bytes, trained_tensors
from tunewright.train.methods import BYTES, FLOAT, Method

SPARE = 0.1
"""Tokenizer, logs, reports and what a file system adds."""
PROOF_TOKENS = 2048
PROOF_COPIES = 5
"""Positions that the proof of a merged model compares, and arrays of logits that it holds for them."""


@dataclass(frozen=True)
class Disk:
    """Bytes on disk by part.

    Attributes:
        checkpoints: All that are kept at once, the one being written included.
        adapter: The finished one.
        merged: The base with the adapter in it, in the base's own precision.
        exports: Every GGUF file.
    """

    checkpoints: int
    adapter: int
    merged: int
    exports: int

    @property
    def total(self) -> int:
        """Sum of all parts, with a tenth to spare."""
        return int((1 + SPARE) * sum(asdict(self).values()))


@dataclass(frozen=True)
class Ram:
    """Main memory that later stages take at their peak.

    Attributes:
        merge: Its proof holds the base in float32, one model at a time, and logits of held-out rows.
        export: Its proof holds the merged model in float32 beside the largest GGUF file.
    """

    merge: int
    export: int


def disk_need(config: Config, shape: Shape, method: Method) -> Disk:
    """Return what run, merged model and exports take on disk."""
    adapter = FLOAT * sum(map(math.prod, trained_tensors(shape, method)))
    checkpoint = adapter + optimizer_bytes(shape, method)
    # Beside the newest ones the best is kept, and one more is there until an older one has gone.
    kept = config.train.save_total_limit + 2
    return Disk(
        checkpoints=kept * checkpoint,
        adapter=adapter,
        merged=shape.parameters() * BYTES.get(shape.dtype, 2),
        exports=sum(gguf_bytes(shape, config.export.quantization)),
    )


def gguf_bytes(shape: Shape, types: Sequence[str]) -> list[int]:
    """Return the bytes of each GGUF file."""
    return [int(shape.parameters() * BITS[kind] / 8) for kind in types]


def ram_need(config: Config, shape: Shape, held_out_tokens: int) -> Ram:
    """Return what merge and export take of main memory."""
    whole = FLOAT * shape.parameters()
    positions = min(PROOF_TOKENS, held_out_tokens)
    return Ram(
        merge=whole + PROOF_COPIES * FLOAT * positions * shape.vocabulary,
        export=whole + max(gguf_bytes(shape, config.export.quantization)),
    )
