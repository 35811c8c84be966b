"""Which rows an optimizer step has. Pure: it depends on the data, the seed and the rows a step, on nothing else.

One process or several, large micro-batches or small ones: each step has the same rows. That is what makes
runs comparable, and a run that is taken up again the same run.
"""

import random
from collections.abc import Sequence

MEGABATCH = 50
"""Steps whose rows are sorted by length together: short ones still come in random company.

Source: Transformers' LengthGroupedSampler, which sorts within 50 batches.
"""


def epoch_order(
    lengths: Sequence[int], *, rows_a_step: int, strategy: str, seed: int, epoch: int
) -> list[int]:
    """Return row numbers in the order of an epoch, filled up to whole steps.

    Args:
        lengths: Tokens of each row.
        rows_a_step: Rows of an optimizer step, all processes together.
        strategy: `random`; or `group_by_length`, rows of about the same length in a step.
        seed: The run's.
        epoch: From 0.

    Returns:
        Row numbers; those from `len(lengths)` on stand for empty rows that fill the last step.
    """
    order = list(range(len(lengths)))
    shuffled = random.Random(f"{seed}/{epoch}")
    shuffled.shuffle(order)
    if strategy == "group_by_length":
        order = _grouped(order, lengths, rows_a_step, shuffled)
    sizes = (*lengths, *[0] * (-len(order) % rows_a_step))
    order += range(len(lengths), len(sizes))
    return [
        row
        for start in range(0, len(order), rows_a_step)
        for row in by_length(order[start : start + rows_a_step], sizes)
    ]


def by_length(rows: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the rows of a step with the longest first: those that run together are padded little.

    A step sums over its rows, so that their order within it changes nothing but rounding.
    """
    return sorted(rows, key=lambda row: lengths[row], reverse=True)


def _grouped(
    order: list[int], lengths: Sequence[int], rows_a_step: int, shuffled: random.Random
) -> list[int]:
    size = MEGABATCH * rows_a_step
    sorted_rows = [
        row
        for start in range(0, len(order), size)
        for row in by_length(order[start : start + size], lengths)
    ]
    whole = len(sorted_rows) - len(sorted_rows) % rows_a_step
    steps = [sorted_rows[i : i + rows_a_step] for i in range(0, whole, rows_a_step)]
    shuffled.shuffle(steps)
    # The longest rows come first: what does not fit in memory shows at once and not after an hour.
    longest = max(lengths, default=0)
    steps.sort(key=lambda step: lengths[step[0]] < longest)
    return [row for step in steps for row in step] + sorted_rows[whole:]
