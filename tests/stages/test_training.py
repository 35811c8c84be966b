"""Trainings of every method on a random model of 180,000 parameters, and on the bundled base."""

import json
from pathlib import Path

import pytest
import torch
from faults.training import make, make_base, make_rows, options
from safetensors.torch import load_file, save_file

from tunewright import prepare, train
from tunewright.artifacts import load_artifact
from tunewright.config.load import config_of_source
from tunewright.errors import TunewrightError

QUICK = ("train.max_steps=8", "train.eval_steps=4", "train.save_steps=2", "train.lora.r=4")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    make(folder)
    return folder


def config_in(root: Path, run: Path, *changes: str):
    return config_of_source(str(root / "rows.jsonl"), [*options(root, run), *QUICK, *changes])


def trained_in(root: Path, run: Path, *changes: str, **keywords):
    dataset = load_artifact(root / "run" / "dataset", "dataset")
    return train(config_in(root, run, *changes), dataset, **keywords)


class StopAt:
    """A listener with which a training ends as by Ctrl-C."""

    def __init__(self, step: int) -> None:
        self.step = step

    def started(self, *_): ...

    def said(self, *_): ...

    def advanced(self, done, _):
        if done >= self.step:
            raise KeyboardInterrupt


METHODS = {
    "dora": ("train.lora.use_dora=true",),
    "rslora": ("train.lora.use_rslora=true",),
    "pissa": ("train.lora.init_lora_weights=pissa",),
    "modules_to_save": ("train.lora.modules_to_save=[lm_head]",),
    "added tokens": ("model.extra_special_tokens=['<|scene|>']",),
    "4 bits": ("train.load_in_4bit=true",),
    "8-bit AdamW": ("train.optim=adamw_bnb_8bit",),
    "bfloat16": ("train.dtype=bfloat16",),
    "recomputed": ("train.gradient_checkpointing=true",),
    "recomputed in part": ("train.gradient_checkpointing=selective", "accel.packing=false"),
}


@pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS.keys())
def test_every_method_goes_on_as_if_nothing_had_been(root, tmp_path, changes):
    unbroken = trained_in(root, tmp_path / "unbroken", *changes)
    with pytest.raises(KeyboardInterrupt):
        trained_in(root, tmp_path / "broken", *changes, listener=StopAt(5))
    resumed = trained_in(root, tmp_path / "broken", *changes)
    assert resumed.facts["steps"] == 8
    for name in ("adapter_model.safetensors", "metrics.jsonl"):
        assert resumed.files[name] == unbroken.files[name], name


@pytest.mark.parametrize("accel", ["auto", "off"])
@pytest.mark.parametrize("recomputed", [True, False])
def test_freed_memory_goes_back_where_memory_is_saved(
    root, tmp_path, monkeypatch, recomputed, accel
):
    """With recomputation twice a forward pass, once in an evaluation; without it that would only cost time."""
    from tunewright.train import _fast, _trainer

    given = []
    for module in (_fast, _trainer):
        monkeypatch.setattr(module, "give_back", lambda _, *, saving: given.append(saving))
    recompute = f"train.gradient_checkpointing={str(recomputed).lower()}"
    made = trained_in(root, tmp_path, recompute, f"accel={accel}")
    assert sum(given) >= 2 * made.facts["steps"] if recomputed else not any(given)


def test_a_poisoned_row_is_named(root, tmp_path):
    """T10. One row has a token whose embedding is no number: the first step with it says where it is."""
    from tunewright.models._tokenizer import load_tokenizer

    base, file = make_base(tmp_path / "base"), make_rows(tmp_path / "rows.jsonl")
    config = config_in(tmp_path, tmp_path / "run")
    dataset = prepare(config)
    rows = [json.loads(x) for x in (dataset.path / "train.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(base)
    used = [set(tokenizer(json.dumps(row))["input_ids"]) for row in rows]
    spare = next(
        word for word in ("zebra", "oxide", "jury", "quilt") if not used_in(tokenizer, word, used)
    )
    line = 3
    rows[line]["prompt"] += f" {spare}"
    (dataset.path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tensors = load_file(base / "model.safetensors")
    token = tokenizer(f" {spare}")["input_ids"][0]
    tensors["model.embed_tokens.weight"][token] = torch.nan
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TunewrightError) as caught:
        train(config, dataset)
    (problem,) = caught.value.problems
    assert caught.value.exit_code == 10
    assert f"train.jsonl:{line + 1}" in problem.where
    assert file.exists()
    metrics = (tmp_path / "run" / "training" / "metrics.jsonl").read_text()
    assert "NaN" not in metrics


def used_in(tokenizer, word: str, used: list[set[int]]) -> bool:
    first = tokenizer(f" {word}")["input_ids"][0]
    return any(first in tokens for tokens in used)


def test_the_best_checkpoint_is_kept_and_training_stops_early(root, tmp_path):
    made = trained_in(
        root,
        tmp_path / "run",
        "train.max_steps=60",
        "train.learning_rate=3",
        "train.eval_steps=1",
        "train.early_stopping_patience=3",
        "train.save_total_limit=1",
    )
    losses = dict(made.facts["eval_losses"])
    assert made.facts["stopped_early"]
    assert made.facts["steps"] < 60
    best = min((step for step in losses if step), key=lambda step: losses[step])
    assert made.facts["best_step"] == best
    saved = load_file(
        tmp_path / "run/training/checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors"
    )
    adapter = load_file(made.path / "adapter_model.safetensors")
    assert saved.keys() == adapter.keys()
    assert all(torch.equal(saved[name], adapter[name]) for name in saved)


def test_finished_is_finished_until_it_is_restarted(root, tmp_path):
    first = trained_in(root, tmp_path / "run")
    assert trained_in(root, tmp_path / "run").digest == first.digest
    again = trained_in(root, tmp_path / "run", restart=True)
    assert again.digest != first.digest
    assert again.files["adapter_model.safetensors"] == first.files["adapter_model.safetensors"]
    with pytest.raises(TunewrightError) as caught:
        trained_in(root, tmp_path / "other", resume="must")
    assert caught.value.problems[0].code == "E_NOT_FOUND"


def test_the_first_rows_only(root, tmp_path):
    made = trained_in(
        root, tmp_path / "run", "train.max_train_samples=4", "train.max_eval_samples=1"
    )
    assert made.facts["steps"] == 8


def test_four_rows_are_enough_to_learn_from(tmp_path):
    """A learner's file: it trains, and says what to expect."""
    file = tmp_path / "four.jsonl"
    rows = [{"prompt": f"Say {n}.", "completion": f"The word is {n}."} for n in "abcd"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of_source(
        str(file),
        [
            f"output_dir={tmp_path / 'run'}",
            "train.num_train_epochs=4",
            "train.learning_rate=1e-3",
            "train.sample_prompts=0",
        ],
    )
    made = train(config, prepare(config))
    assert made.facts["best_eval_loss"] < made.facts["eval_losses"][0][1]


def test_qlora_on_the_bundled_base_learns(trained, make_config):
    """The base in 4 bits, on a CPU: the held-out loss falls about as far as it does without."""
    _, dataset, full = trained
    made = train(make_config("train.load_in_4bit=true", "train.sample_prompts=0"), dataset)
    first = made.facts["eval_losses"][0][1]
    assert made.facts["best_eval_loss"] < first - 0.1
    assert made.facts["best_eval_loss"] == pytest.approx(full.facts["best_eval_loss"], rel=0.05)
