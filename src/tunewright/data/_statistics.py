"""Lengths in numbers: for the terminal, the report and the search for outliers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

OUTER_FENCE = 3.0
"""Interquartile ranges beyond the quartiles from which a length is far out."""
LEAST_SPREAD = 0.25
"""Least interquartile range of log lengths: rows of nearly one length have no outliers."""


def lengths_of(lengths: Sequence[int]) -> dict[str, Any]:
    """Return min, mean, median, max, and a histogram: `edges` of the bins and `counts` between them."""
    values = np.asarray(lengths)
    different = int(values.max() - values.min()) + 1
    bins = min(24, max(5, round(math.sqrt(len(values)) * 1.5)), different)
    counts, edges = np.histogram(values, bins=bins)
    return {
        "min": int(values.min()),
        "mean": round(float(values.mean()), 1),
        "median": float(np.median(values)),
        "max": int(values.max()),
        "edges": [round(float(edge), 2) for edge in edges],
        "counts": [int(count) for count in counts],
    }


def outliers(lengths: Sequence[int]) -> tuple[list[int], tuple[float, float]]:
    """Return the rows whose length is far out, and the quartiles of all lengths, in tokens.

    Far out is beyond three interquartile ranges of the logarithm of the length from the quartiles.

    Source: Tukey 1977, Exploratory Data Analysis, outer fences.
    """
    logs = np.log(np.maximum(np.asarray(lengths, dtype=float), 1.0))
    low, high = np.percentile(logs, [25, 75])
    fence = OUTER_FENCE * max(high - low, LEAST_SPREAD)
    found = np.flatnonzero((logs < low - fence) | (logs > high + fence))
    return [int(row) for row in found], (float(np.exp(low)), float(np.exp(high)))
