"""Losses of rows that run together, against each row alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tunewright.evaluate import _local
from tunewright.evaluate._local import LabelledRow, Local, batches

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
}
MODELS = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}),
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral with a window": (MistralForCausalLM, MistralConfig, {"sliding_window": 5}),
}


@given(st.lists(st.integers(2, 60)), st.integers(1, 100))
def test_every_row_is_in_one_batch_that_keeps_to_the_budget(lengths, budget):
    found = batches(lengths, budget)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or max(lengths[n] for n in batch) * len(batch) <= budget


@pytest.mark.parametrize("name", MODELS)
def test_together_as_alone(name, monkeypatch):
    kind, config, options = MODELS[name]
    torch.manual_seed(0)
    model = kind(config(**SIZES, **options)).eval()
    side = Local(name, model, tokenizer=None, vocabulary=None, sampling=None)
    rows = []
    for length in (9, 3, 30, 17, 2, 30, 11):
        ids = torch.randint(0, 300, (length,)).tolist()
        labels = [at for at in range(1, length) if at % 3 or length < 4]
        rows.append(LabelledRow(ids, labels))
    told = []
    monkeypatch.setattr(_local, "MAX_TOKENS", 64)
    found = side.losses(rows, told.append)
    assert told[-1] == len(rows)
    assert 2 < len(told) < len(rows)
    for row, loss in zip(rows, found, strict=True):
        with torch.inference_mode():
            odds = model(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
        alone = -sum(float(odds[at - 1, row.ids[at]]) for at in row.labels)
        assert loss == pytest.approx(alone, rel=1e-6)
