"""A batch in parts, for when it does not fit in memory."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size

from tunewright.errors import TunewrightError, failure

Batch = dict[str, Any]
CUDA_TEXTS = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What CUDA says in errors that are no `OutOfMemoryError`."""


def parts_of(inputs: Batch, rows: int) -> Iterator[Batch]:
    """Give a padded batch in parts of at most `rows` rows, each padded to its own longest row."""
    count = len(inputs["input_ids"])
    if rows >= count:
        yield dict(inputs)
        return
    for start in range(0, count, rows):
        part = {name: tensor[start : start + rows] for name, tensor in inputs.items()}
        longest = int(part["attention_mask"].sum(1).max())
        yield {name: tensor[:, :longest] for name, tensor in part.items()}


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, of the device or of this machine."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, Exception)
        and (should_reduce_batch_size(error) or any(text in str(error) for text in CUDA_TEXTS))
    )


def does_not_fit(rows: int, where: str, step: int, given: tuple[int, int]) -> TunewrightError:
    """Return the error of a pass that cannot be made smaller; `given` are rows a pass, and passes a step."""
    fix = "Lower train.max_length, set train.load_in_4bit=true, or take a smaller base."
    if rows > 1:
        micro, accumulation = given
        fix = (
            f"--set train.per_device_train_batch_size={max(1, micro // 2)} "
            f"--set train.gradient_accumulation_steps={accumulation * 2}: the same rows a step."
        )
    message = f"Memory ran out with {rows} row{'s' * (rows > 1)} at a time in {where}."
    return failure("E_OOM", message, where=f"step {step}", fix=fix)
