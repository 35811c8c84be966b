"""Runs with a known fault get the verdict that names it; the good run and the overfitted one are in test_pipeline.py."""

import json
import random
import shutil

import pytest
from fake_openai import FakeOpenAI, serving
from support import SAMPLES, shallow_base

from tunewright import pipeline
from tunewright.artifacts import load_artifact
from tunewright.cli import main
from tunewright.config.load import dump_config

pytestmark = pytest.mark.usefixtures("one_thread")


def _verdict(config):
    facts = pipeline.run(config, until="compare")[-1].artifact.facts
    return facts, {gate["gate"] for gate in facts["gates"] if not gate["passed"]}


def test_a_learning_rate_of_nearly_0_teaches_nothing(make_config, tmp_path):
    base = f"model.model_name_or_path={shallow_base(tmp_path)}"
    more = (base, "compare.num_prompts=16", "compare.max_new_tokens=48")
    rate = ("train.learning_rate=1e-12", "train.max_train_samples=16")
    facts, failed = _verdict(make_config(*rate, *more))
    assert facts["verdict"] == "nothing learned"
    assert not failed
    assert facts["transfer_score"]["score"] == pytest.approx(0, abs=1)
    assert facts["perplexity"]["heldout"]["ratio"]["value"] == pytest.approx(1, abs=1e-3)


@pytest.mark.faults
def test_targets_with_shuffled_words_degrade_the_model(make_config, tmp_path):
    """Held-out text is shuffled as well, so that only the neutral text can tell."""
    rng = random.Random(1)
    for file in sorted((SAMPLES / "manuscript").glob("*.txt"))[:8]:
        paragraphs = [part.split() for part in file.read_text(encoding="utf-8").split("\n\n")]
        for words in paragraphs:
            rng.shuffle(words)
        (tmp_path / file.name).write_text("\n\n".join(map(" ".join, paragraphs)))
    config = make_config(f"prepare.source={tmp_path}", "train.num_train_epochs=4")
    facts, failed = _verdict(config)
    assert facts["verdict"] == "degraded"
    assert failed == {"perplexity on neutral text, tuned over base"}
    assert facts["perplexity"]["heldout"]["ratio"]["value"] < 0.5


def test_a_model_that_only_copies_has_memorised_and_has_no_score(trained, tmp_path, capfd):
    config, dataset, _ = trained
    run = tmp_path / "run"
    shutil.copytree(config.run_dir, run)
    (run / "run.yaml").write_text(dump_config(config), encoding="utf-8")
    training = (dataset.path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    stolen = [row["output"] for row in map(json.loads, training)]

    def copy(body):
        return stolen[body["seed"] % len(stolen)]

    with (
        serving(FakeOpenAI(lambda body: f"It is number {body['seed']} here.")) as base,
        serving(FakeOpenAI(copy)) as tuned,
    ):
        code = main(["compare", str(run), "--baseline-url", base.url, "--tuned-url", tuned.url])
    made = load_artifact(run / "comparisons" / "endpoints", "evaluation")
    assert code == 1
    assert made.facts["verdict"] == "memorised"
    assert made.facts["transfer_score"]["score"] is None
    assert made.facts["transfer_score"]["excluded"] == 6
    assert made.facts["memorisation"]["copied_share"] > 0.9
    assert "Copied, " in capfd.readouterr().out
