"""Measures this machine."""

import functools
import time

import torch

from tunewright.accel.choices import Speeds

SIZE, ROUNDS = 512, 30
"""A product of this size takes a millisecond or two: less than what another program gets at a time."""
LIMIT_SECONDS = 0.25
"""A processor that emulates bfloat16 takes as long for one product, and need not prove it thirty times."""


def measure_speeds(device: str) -> Speeds:
    """Return matrix product speeds with the threads of now; measured once a process."""
    return _measured(device, torch.get_num_threads())


@functools.cache
def _measured(device: str, threads: int) -> Speeds:
    """Return matrix product speeds; the best of many rounds in turn, so that other load matters little."""
    del threads
    dtypes = (torch.float32, torch.bfloat16)
    pairs = [[torch.ones(SIZE, SIZE, device=device, dtype=d) for _ in range(2)] for d in dtypes]
    best = [float("inf")] * len(dtypes)
    for a, b in pairs:
        float((a @ b)[0, 0])
    end = time.perf_counter() + LIMIT_SECONDS
    for done in range(ROUNDS):
        if done and time.perf_counter() > end:
            break
        for at, (a, b) in enumerate(pairs):
            start = time.perf_counter()
            float((a @ b)[0, 0])
            best[at] = min(best[at], time.perf_counter() - start)
    float32, bfloat16 = (2 * SIZE**3 / seconds / 1e9 for seconds in best)
    return Speeds(float32, bfloat16)
