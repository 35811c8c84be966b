"""Which state of a training is merged: the run's adapter, a checkpoint, or the best."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunewright import pipeline, prepare, train
from tunewright.cli import main
from tunewright.errors import TunewrightError
from tunewright.merge.choice import Candidate, choose
from tunewright.models._folders import resolve_model
from tunewright.models._load import load_model, load_tuned

RUN = Path("runs/x")


def state(step, loss):
    return Candidate(step, loss, lambda folder: None)


def test_without_a_wish_the_adapter_of_the_run_is_merged():
    own = Candidate(4, 1.5)
    choice = choose(None, own, [state(2, 1.0)], where=RUN)
    assert choice.candidate is own


def test_auto_takes_the_lowest_loss_and_says_by_how_much():
    own = Candidate(4, 1.5)
    best = state(2, 1.25)
    choice = choose("auto", own, [best, state(6, 1.75), state(8, None)], where=RUN)
    assert choice.candidate is best
    assert choice.reason == (
        "it has the lowest held-out loss, 1.2500; the next is 1.5000 at step 4."
    )
    lost = choose("auto", Candidate(4, float("nan")), [best], where=RUN)
    assert lost.candidate is best
    alone = choose("auto", own, [state(4, 1.5)], where=RUN)
    assert alone.candidate is own
    assert "no other state" in alone.reason


def test_a_step_that_is_not_kept_is_refused_with_those_that_are():
    with pytest.raises(TunewrightError) as caught:
        choose(3, Candidate(4, 1.5), [state(2, 1.0)], where=RUN)
    (problem,) = caught.value.problems
    assert problem.code == "E_NOT_FOUND"
    assert "2, 4" in problem.message
    assert choose(2, Candidate(4, 1.5), [state(2, 1.0)], where=RUN).candidate.step == 2


SHORT = (
    "train.max_steps=4",
    "train.eval_steps=2",
    "train.warmup_steps=0",
    "train.max_length=96",
    "train.per_device_train_batch_size=4",
    "train.max_eval_samples=4",
    "train.save_total_limit=3",
    "train.dtype=float32",
)


@pytest.fixture(scope="module")
def begun_with_pissa(make_config, one_thread):
    """A run whose checkpoints are no plain adapters, as PiSSA takes weights out of the base."""
    config = make_config(*SHORT, "train.lora.init_lora_weights=pissa")
    dataset = prepare(config)
    return config, train(config, dataset)


def with_choice(config, checkpoint):
    section = config.merge.model_copy(update={"checkpoint": checkpoint})
    return config.model_copy(update={"merge": section})


def test_a_checkpoint_is_merged_as_it_was_trained(begun_with_pissa):
    config, adapter = begun_with_pissa
    steps = {one.step: one for one in pipeline.checkpoints_of(config, adapter)}
    other = next(step for step in steps if step != adapter.facts["best_step"] and step > 0)
    made = pipeline.run_stage(with_choice(config, other), "merge")
    assert made.facts["step"] == other
    assert made.facts["choice"]["asked"] == other
    assert made.facts["eval_loss"] == dict(adapter.facts["eval_losses"])[other]
    assert made.facts["mean_kl"] < 1e-4
    assert not (made.path / ".adapter").exists()
    # Another state than the adapter's, by more than rounding.
    base = resolve_model("tunewright/tiny")
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        own = load_tuned(base, adapter.path)(input_ids=ids).logits
        got = load_model(made.path)(input_ids=ids).logits
    assert (own - got).abs().max() > 0.01
    start = load_file(steps[other].path / "adapter_model.safetensors")
    assert any(name.endswith("start_A") for name in start)


def test_the_choice_decides_whether_a_merge_is_finished(begun_with_pissa):
    config, adapter = begun_with_pissa
    first = pipeline.run_stage(with_choice(config, "auto"), "merge")
    assert first.facts["step"] == adapter.facts["best_step"]
    assert "lowest held-out loss" in first.facts["choice"]["reason"]
    second = pipeline.run_stage(with_choice(config, None), "merge")
    assert second.key != first.key
    assert second.files["model.safetensors"] == first.files["model.safetensors"]


def test_the_command_takes_one_of_both_flags(begun_with_pissa, capsys):
    config, adapter = begun_with_pissa
    pipeline.run_stage(with_choice(config, None), "merge")
    assert main(["merge", config.run_dir, "--auto", "--checkpoint", "2"]) == 2
    capsys.readouterr()
    step = adapter.facts["best_step"]
    assert main(["merge", config.run_dir, "--checkpoint", str(step), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["step"] == step
