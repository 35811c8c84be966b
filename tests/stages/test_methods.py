"""Each method through the train stage, and what comes out of it."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from tunewright import prepare, train
from tunewright.errors import TunewrightError
from tunewright.models._folders import resolve_model
from tunewright.models._load import load_tuned
from tunewright.models._tokenizer import load_tokenizer
from tunewright.train._rows import read_side, token_rows

STEPS = 4
SHORT = (
    f"train.max_steps={STEPS}",
    f"train.eval_steps={STEPS}",
    "train.warmup_steps=0",
    "train.max_length=96",
    "train.per_device_train_batch_size=4",
    "train.max_eval_samples=4",
)


def held_out_loss(config, dataset, adapter) -> float:
    """Return the loss that the saved adapter has on the base as it came, token by token."""
    base = resolve_model("tunewright/tiny")
    tokenizer = load_tokenizer(base, None, config.model.extra_special_tokens)
    model = load_tuned(base, adapter.path)
    total, count = 0.0, 0
    for row in token_rows(read_side(dataset.path / "eval.jsonl", 4), tokenizer, config.train):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum"))
        count += int((labels[1:] >= 0).sum())
    return total / count


@pytest.mark.parametrize(
    ("method", "settings", "within"),
    [
        ("dora pissa", ["lora.use_dora=true", "lora.init_lora_weights=pissa"], 1e-4),
        # The adapter goes onto the base in full precision, which it was not trained on.
        ("qlora", ["load_in_4bit=true", "optim=paged_adamw_8bit"], 0.15),
        ("whole", ["lora.modules_to_save=[norm,embed_tokens]", "optim=sgd"], 1e-4),
    ],
)
def test_what_is_saved_has_the_loss_of_the_best_evaluation(
    trained, make_config, method, settings, within
):
    _, dataset, _ = trained
    config = make_config(*SHORT, "train.dtype=float32", *[f"train.{name}" for name in settings])
    adapter = train(config, dataset)
    losses = dict(adapter.facts["eval_losses"])
    assert losses[STEPS] < losses[0], method
    assert held_out_loss(config, dataset, adapter) == pytest.approx(losses[STEPS], abs=within)


def test_added_tokens_are_trained_and_travel_with_the_adapter(make_config):
    config = make_config(*SHORT, "model.extra_special_tokens=[<|scene|>,<|shot|>]")
    dataset = prepare(config)
    adapter = train(config, dataset)
    tensors = load_file(adapter.path / "adapter_model.safetensors")
    (rows,) = (x for name, x in tensors.items() if "trainable_tokens_delta" in name)
    assert rows.shape == (2, 256)
    tokenizer = load_tokenizer(adapter.path)
    assert tokenizer("<|shot|>")["input_ids"] == [4097]
    settings = json.loads((adapter.path / "adapter_config.json").read_text())
    assert settings["trainable_token_indices"] == {"embed_tokens": [4096, 4097]}
    best = adapter.facts["best_eval_loss"]
    assert math.isclose(held_out_loss(config, dataset, adapter), best, rel_tol=1e-3)


def test_methods_that_do_not_go_together_are_refused_before_training(trained, make_config):
    _, dataset, _ = trained
    config = make_config(
        "train.load_in_4bit=true",
        "train.lora.init_lora_weights=pissa",
        "train.lora.target_modules=[q_proj]",
        "train.lora.modules_to_save=[q_proj]",
    )
    with pytest.raises(TunewrightError) as caught:
        train(config, dataset)
    assert {p.code for p in caught.value.problems} == {"E_CONFIG_VALUE"}
    assert {p.where for p in caught.value.problems} >= {
        "train.lora.init_lora_weights",
        "train.lora.modules_to_save",
    }
