from dataclasses import replace

import pytest

from tunewright import load_config
from tunewright.models.families import Shape
from tunewright.train.memory import trainable_parameters
from tunewright.train.methods import Method
from tunewright.train.needs import disk_need, gguf_bytes, ram_need
from tunewright.train.timing import Work, operations, seconds

# Qwen3-4B, whose figures PERFORMANCE.md gives.
SHAPE = Shape("qwen3", 36, 2560, 9728, 4096, 1024, 128, 151936, True, 40960, head_norms=True)
METHOD = Method("bfloat16", device="cuda")


def config(*overrides):
    return load_config("preset:demo", [*overrides])


def test_disk_is_that_of_every_file_that_is_kept():
    found = disk_need(config("train.save_total_limit=3"), SHAPE, METHOD)
    adapter = 4 * trainable_parameters(SHAPE, METHOD)
    assert found.adapter == adapter
    assert found.checkpoints == 5 * 3 * adapter
    assert found.merged == 2 * SHAPE.parameters()
    assert found.exports == sum(gguf_bytes(SHAPE, ("F16", "Q8_0")))
    assert found.total > found.checkpoints + found.adapter + found.merged + found.exports


def test_a_merged_model_has_the_precision_of_its_base():
    single = disk_need(config(), replace(SHAPE, dtype="float32"), METHOD)
    assert single.merged == 2 * disk_need(config(), SHAPE, METHOD).merged


def test_fewer_exports_take_less():
    only = disk_need(config("export.quantization=[Q8_0]"), SHAPE, METHOD)
    assert only.exports < disk_need(config(), SHAPE, METHOD).exports


def test_proofs_hold_the_model_in_float32():
    few, many = (ram_need(config(), SHAPE, tokens) for tokens in (100, 1_000_000))
    assert 4 * SHAPE.parameters() < few.merge < many.merge
    assert many.merge == ram_need(config(), SHAPE, 2048).merge
    assert few.export == 4 * SHAPE.parameters() + gguf_bytes(SHAPE, ("F16",))[0]


@pytest.mark.parametrize(("checkpointing", "published"), [(False, 18.1e9), (True, 26.0e9)])
def test_operations_of_a_token_are_those_of_the_performance_page(checkpointing, published):
    """The page leaves the head out where nothing is learned and halves attention; so both are near."""
    work = Work(tokens=1, length=1024, passes=1, steps=1)
    head = 6 * SHAPE.vocabulary * SHAPE.hidden
    found = operations(SHAPE, METHOD, work, checkpointing=checkpointing) - head
    assert found == pytest.approx(published, rel=0.1)


def test_time_grows_with_what_takes_time():
    def takes(gigaflops=100_000.0, *, checkpointing=False, device="cuda", **work):
        given = {"tokens": 100_000, "length": 500, "passes": 100, "steps": 50} | work
        return seconds(
            SHAPE,
            replace(METHOD, device=device),
            Work(**given),
            checkpointing=checkpointing,
            gigaflops=gigaflops,
        )

    assert takes() < takes(checkpointing=True) < 2 * takes()
    assert takes() < takes(tokens=200_000)
    assert takes() < takes(length=4000)
    assert takes() < takes(passes=10_000)
    assert takes() < takes(eval_tokens=100_000) < 2 * takes()
    assert takes(gigaflops=50_000.0) > takes()
