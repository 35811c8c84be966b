"""Choices that follow from facts. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

WORTHWHILE_PADDING = 0.1
NEGLIGIBLE = 0.01
CLEARLY_FASTER = 1.5
"""Hardware for bfloat16 makes it 2 times faster and more, emulation slower: load does not blur that."""


@dataclass(frozen=True)
class Choice:
    """Something decided automatically.

    Attributes:
        name: What was decided.
        value: How.
        reason: Why, in words.
    """

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Speeds:
    """Measured speed of a matrix product in 1e9 floating point operations a second."""

    float32: float
    bfloat16: float

    def of(self, dtype: str) -> float:
        """Return the speed in a precision; float16 is taken for as fast as bfloat16."""
        return self.float32 if dtype == "float32" else self.bfloat16


def precision(wanted: str, device: str, speeds: Speeds) -> Choice:
    """Return the dtype of the base's weights: what was asked for, or what is faster here."""
    if wanted != "auto":
        return Choice("dtype", wanted, "asked for in train.dtype")
    figures = f"{speeds.bfloat16:.3g} against {speeds.float32:.3g} GFLOP/s on {device}"
    if speeds.bfloat16 > speeds.float32 * CLEARLY_FASTER:
        return Choice("dtype", "bfloat16", f"bfloat16 is faster: {figures}")
    return Choice("dtype", "float32", f"bfloat16 is not faster: {figures}")


def batching(
    wanted: str, lengths: Sequence[int], batch_size: int, *, packed: bool = False
) -> Choice:
    """Return the order of rows: as asked for, or grouped by length where padding costs 10 % or more.

    The padding share is that of batches in the given order; `packed` rows have none.
    """
    if wanted != "auto":
        return Choice(
            "train_sampling_strategy", wanted, "asked for in train.train_sampling_strategy"
        )
    if packed:
        return Choice("train_sampling_strategy", "random", "packed rows have no padding")
    padded = sum(
        len(batch) * max(batch)
        for batch in (lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size))
    )
    share = 1 - sum(lengths) / padded
    if share >= WORTHWHILE_PADDING:
        return Choice(
            "train_sampling_strategy",
            "group_by_length",
            f"{share:.0%} of the tokens would be padding in random order",
        )
    shown = f"only {share:.0%}" if share >= NEGLIGIBLE else f"less than {NEGLIGIBLE:.0%}"
    return Choice("train_sampling_strategy", "random", f"{shown} of the tokens are padding")
