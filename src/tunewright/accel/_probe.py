"""Measures this machine."""

import functools
import time

import torch

from tunewright.accel.choices import Speeds

SIZE, ROUNDS = 512, 30
"""A product of this size takes a millisecond or two: less than what another program gets at a time."""
WARM = 64
SLOW_SECONDS = 0.05
"""A processor that emulates bfloat16 takes longer for one product, and need not prove it twice."""


def measure_speeds(device: str) -> Speeds:
    """Return matrix product speeds with the threads of now; measured once a process."""
    return _measured(device, torch.get_num_threads())


@functools.cache
def _measured(device: str, threads: int) -> Speeds:
    """Return matrix product speeds; the best of many rounds in turn, so that other load matters little."""
    del threads
    dtypes = (torch.float32, torch.bfloat16)
    pairs = [[torch.ones(SIZE, SIZE, device=device, dtype=d) for _ in range(2)] for d in dtypes]
    for a, b in pairs:
        # The first product of all also starts threads and libraries.
        _seconds(a[:WARM, :WARM], b[:WARM, :WARM])
    first = [_seconds(*pair) for pair in pairs]
    best = [seconds if seconds > SLOW_SECONDS else float("inf") for seconds in first]
    for _ in range(ROUNDS):
        for at, pair in enumerate(pairs):
            if first[at] <= SLOW_SECONDS:
                best[at] = min(best[at], _seconds(*pair))
    float32, bfloat16 = (2 * SIZE**3 / seconds / 1e9 for seconds in best)
    return Speeds(float32, bfloat16)


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    float((a @ b)[0, 0])
    return time.perf_counter() - start
