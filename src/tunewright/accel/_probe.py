"""Measures this machine."""

import time

import torch

from tunewright.accel.choices import Speeds

ROWS, INNER, COLUMNS, REPEATS = 1024, 512, 1024, 6


def measure_speeds(device: str) -> Speeds:
    """Return matrix product speeds; the best of several repeats, so that other load matters little."""
    flops = 2 * ROWS * INNER * COLUMNS
    best: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(ROWS, INNER, device=device, dtype=dtype)
        b = torch.ones(INNER, COLUMNS, device=device, dtype=dtype)
        seconds: list[float] = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            float((a @ b)[0, 0])
            seconds.append(time.perf_counter() - start)
        best[dtype] = flops / min(seconds[1:]) / 1e9
    return Speeds(best[torch.float32], best[torch.bfloat16])
