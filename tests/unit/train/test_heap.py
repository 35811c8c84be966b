"""What the C library keeps of freed memory goes back to the system."""

import platform

import psutil
import pytest
import torch

from tunewright.train._heap import give_back

PIECES, FLOATS = 4000, 16 << 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has malloc_trim")
def test_freed_pieces_go_back_to_the_system():
    pieces = [torch.zeros(FLOATS).fill_(1) for _ in range(PIECES)]
    del pieces[1::2]
    process = psutil.Process()
    before = process.memory_info().rss
    give_back("cpu", saving=False)
    assert before - process.memory_info().rss < 0.1 * (PIECES // 2) * FLOATS * 4
    give_back("cpu", saving=True)
    assert before - process.memory_info().rss > 0.8 * (PIECES // 2) * FLOATS * 4
    assert all(bool((piece == 1).all()) for piece in pieces)
