"""How long the passes of a training get."""

import pytest

from tunewright import load_config
from tunewright.accel.layout import Row
from tunewright.models.families import Shape
from tunewright.train._speed import speed_choices
from tunewright.train.fit import Fit
from tunewright.train.memory import training_memory
from tunewright.train.methods import Method

LARGE = Shape("qwen3", 28, 1024, 3072, 2048, 1024, 128, 151936, True, 40960, head_norms=True)
SMALL = Shape("qwen3", 5, 256, 768, 256, 128, 64, 4096, True, 2048, head_norms=True)
LENGTHS = (200, 60, 120, 180, 90, 150, 70, 110)


def tokens_of_a_pass(shape, device, *, lengths=LENGTHS, free=24 * 10**9, micro=4):
    """Return the choice for steps of 8 rows."""
    method = Method("float32", device=device)
    memory = training_memory(shape, method, rows=micro, length=max(lengths), checkpointing=False)
    fit = Fit(micro, 8 // micro, gradient_checkpointing=False, memory=memory)
    rows = [Row([1] * length, [1] * length) for length in lengths]
    found = speed_choices(
        load_config("preset:demo"), shape, method, fit, rows, "random", memory_free=free
    )
    return next(choice for choice in found if choice.name == "tokens_a_pass")


def test_a_processor_gets_passes_that_keep_it_busy_and_no_longer_ones():
    """At the shape of Qwen3-0.6B 600 positions took as long as 1,104, and 2 GB less."""
    choice = tokens_of_a_pass(LARGE, "cpu")
    assert choice.value == "600"
    assert "no faster" in choice.reason
    assert tokens_of_a_pass(SMALL, "cpu").value == "1600"


def test_a_gpu_gets_passes_as_long_as_memory_allows():
    assert tokens_of_a_pass(LARGE, "cuda").value == "1600"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_row_is_never_parted(device):
    assert tokens_of_a_pass(LARGE, device, lengths=[2000] * 8, micro=1).value in {"2000", "4000"}
    assert tokens_of_a_pass(LARGE, "cpu", lengths=[2000] * 8, micro=1).value == "2000"


def test_memory_still_limits_a_pass():
    assert tokens_of_a_pass(LARGE, "cpu", free=None, micro=2).value == "400"
