"""The part of the path that differs on a GPU: `make gpu-check`."""

import pytest
import torch
from support import benchmark

from tunewright import compare, merge, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_training_comparison_and_merge_on_a_gpu(trained, make_config):
    _, dataset, on_default = trained
    config = make_config("train.dtype=bfloat16")
    adapter = train(config, dataset)
    assert adapter.facts["best_eval_loss"] < adapter.facts["eval_losses"][0][1]
    assert adapter.facts["best_eval_loss"] == pytest.approx(
        on_default.facts["best_eval_loss"], rel=0.05
    )
    assert compare(config, dataset, adapter).facts["verdict"]
    assert all(gate["passed"] for gate in merge(config, adapter, dataset).facts["gates"])


@pytest.mark.parametrize(
    "case", benchmark("memory_fit").REAL_CASES if torch.cuda.is_available() else []
)
def test_predicted_memory_is_within_10_percent_on_real_shapes(case):
    """Random weights of the real shapes, LoRA and QLoRA; what does not fit on this GPU is left out."""
    fit = benchmark("memory_fit")
    if (
        fit.predicted({"device": "cuda"} | case).total
        > torch.cuda.get_device_properties(0).total_memory
    ):
        pytest.skip("larger than this GPU")
    found = fit.run({"device": "cuda"} | case)
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.1)
