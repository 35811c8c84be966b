"""Comparisons beside a run's own: checkpoints, a merged model, a GGUF file, endpoints; and the command."""

import json
import shutil
from dataclasses import replace

import pytest
from fake_openai import FakeOpenAI, serving
from support import SAMPLES, shallow_base

from tunewright import comparison, pipeline
from tunewright.artifacts import load_artifact
from tunewright.cli import main
from tunewright.config.load import load_config
from tunewright.errors import TunewrightError
from tunewright.models._llama import endpoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(make_config, tmp_path_factory):
    """A run up to its export, with every checkpoint kept."""
    base = shallow_base(tmp_path_factory.mktemp("base"))
    every = ("train.eval_steps=3", "train.save_steps=3", "train.save_total_limit=9")
    config = make_config(f"model.model_name_or_path={base}", *every)
    pipeline.run(config, until="train")
    pipeline.run_stage(config, "merge")
    pipeline.run_stage(config, "export")
    return config


@pytest.fixture
def here(run, tmp_path):
    """A copy, to be written to."""
    path = tmp_path / "run"
    shutil.copytree(run.run_dir, path)
    return path


def test_checkpoints_are_compared_over_the_training(here):
    made = pipeline.run_stage(
        load_config(here / "run.yaml", [f"output_dir={here}", "compare.checkpoints=true"]),
        "compare",
    )
    rows = made.facts["checkpoints"]
    adapter = load_artifact(here / "adapter", "adapter")
    assert [row["step"] for row in rows] == [
        step for step, _ in adapter.facts["eval_losses"] if step
    ]
    losses = dict(adapter.facts["eval_losses"])
    assert all(row["eval_loss"] == losses[row["step"]] for row in rows)
    # The held-out loss is that of training, counted anew on the weights of the step.
    best = next(row for row in rows if row["step"] == adapter.facts["best_step"])
    assert best["perplexity"] == made.facts["perplexity"]["heldout"]["tuned"]
    assert len({row["perplexity"]["value"] for row in rows}) == len(rows)
    assert best["score"]["score"] == made.facts["transfer_score"]["score"]
    assert best["longest_words"] == made.facts["memorisation"]["longest_words"]


def test_a_checkpoint_in_place_of_the_adapter(here):
    adapter = load_artifact(here / "adapter", "adapter")
    step = adapter.facts["best_step"]
    own = comparison.compare_any(str(here))
    other = comparison.compare_any(str(here), tuned=f"checkpoint-{step}")
    assert other.path == here / "comparisons" / f"checkpoint-{step}"
    assert other.facts["compared"] == {"base": "base", "tuned": f"checkpoint {step}"}
    same = ("transfer_score", "perplexity", "answers", "memorisation", "verdict")
    assert {name: other.facts[name] for name in same} == {name: own.facts[name] for name in same}
    first = comparison.compare_any(str(here), tuned="checkpoint-3")
    assert first.facts["perplexity"]["heldout"] != own.facts["perplexity"]["heldout"]
    with pytest.raises(
        TunewrightError, match="no whole checkpoint of step 4; those that are there: 3"
    ):
        comparison.compare_any(str(here), tuned="checkpoint-4")


def test_merged_and_gguf_answer_as_the_adapter_does(here):
    own = comparison.compare_any(str(here)).facts
    merged = comparison.compare_any(str(here), tuned="merged").facts
    ratios = [facts["perplexity"]["heldout"]["ratio"]["value"] for facts in (own, merged)]
    assert ratios[1] == pytest.approx(ratios[0], rel=0.01)
    assert merged["compared"]["tuned"] == "merged"
    made = comparison.compare_any(str(here), tuned="F16")
    assert made.path == here / "comparisons" / "F16"
    assert made.facts["perplexity"] == {}
    assert made.facts["answers"]["base"] == own["answers"]["base"]
    assert made.facts["answers"]["tuned"]["written"]["value"] == 1.0
    words = [facts["answers"]["tuned"]["words"]["value"] for facts in (own, made.facts)]
    assert words[0] == pytest.approx(words[1], rel=0.5)
    assert made.facts["memorisation"]["limit_words"] == own["memorisation"]["limit_words"]


@pytest.mark.parametrize("name", ["Q2_K", "nothing.gguf", "folder/that/is/not"])
def test_what_is_not_there_is_refused_with_what_could_be(here, name):
    with pytest.raises(TunewrightError, match="E_NOT_FOUND") as caught:
        comparison.compare_any(str(here), tuned=name)
    assert "checkpoint-N" in caught.value.problems[0].fix


def test_two_servers_are_compared_by_the_command(run, here, capfd, monkeypatch):
    """Base and tuned as GGUF files behind llama.cpp, as a user has them."""
    monkeypatch.setenv("COLUMNS", "100")
    exported = load_artifact(here / "exported", "exported")
    files = [exported.path / file["file"] for file in exported.facts["files"].values()]
    with endpoint(files[0]) as one, endpoint(files[1]) as other:
        code = main(
            [
                *(
                    "compare",
                    str(here),
                    "--baseline-url",
                    f"{one}/v1",
                    "--tuned-url",
                    f"{other}/v1",
                ),
                *("--set", "compare.max_new_tokens=30", "--set", "compare.batch_size=3"),
            ]
        )
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    made = load_artifact(here / "comparisons" / "endpoints", "evaluation", verify=True)
    assert made.facts["compared"] == {
        "base": f"baseline: {files[0].stem} at {one}/v1",
        "tuned": f"tuned: {files[1].stem} at {other}/v1",
    }
    assert made.facts["perplexity"] == {}
    assert made.facts["markers"]
    assert made.facts["memorisation"]["heldout_longest_words"] >= 1
    assert made.facts["prompts"] == {"asked": 6, "planned": 6}
    # The same model twice, in two types: nothing was learned between them.
    assert made.facts["verdict"] in ("nothing learned", "undecided")
    assert code == 0, err
    assert "All 6 answers:" in out
    assert "style marker" in out
    assert "an answer" in out
    assert f"tuned: {files[1].stem} at {other}/v1, compared with baseline" in out
    assert "Next:" not in out
    same = "F16, then Q8_0, of the same seeds"
    answers = [made.facts["answers"][side]["words"]["value"] for side in ("base", "tuned")]
    assert answers[0] == pytest.approx(answers[1], rel=0.3), same
    assert not (here / "evaluation").exists()


def _plain(body):
    return f"Plain answer to {body['messages'][-1]['content']}"


def _fine(body):
    return "### Style: fine"


def test_prompts_alone_can_be_asked_of_two_servers_with_a_judge(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ideas.txt").write_text("A lighthouse\nA tram at night\nA baker\nRain\n")
    with (
        serving(FakeOpenAI(_plain, models=("a", "b"))) as base,
        serving(FakeOpenAI(_fine)) as tuned,
        serving(
            FakeOpenAI(
                lambda b: "B" if "B:\n<answer-b>\n###" in str(b["messages"][0]["content"]) else "A"
            )
        ) as judge,
    ):
        code = main(
            [
                *("compare", "ideas.txt", "--baseline-url", base.url, "--baseline-model", "b"),
                *("--tuned-url", tuned.url, "--judge-url", judge.url, "--json"),
                *("--set", "compare.extra_body={top_k: 4}"),
            ]
        )
    found = json.loads(capfd.readouterr().out)
    assert code == 1, "the tuned answers are all the same words, and shorter"
    facts = found["facts"]
    assert facts["verdict"] == "degraded"
    assert facts["judge"]["wins"] == 4
    assert facts["judge"]["model"] == "only"
    assert facts["transfer_score"]["reason"].startswith("There is no text of the author")
    assert facts["memorisation"] is None
    assert {body["model"] for body in base.bodies()} == {"b"}
    assert all(body["top_k"] == 4 for body in base.bodies() + tuned.bodies())
    assert all("top_k" not in body for body in judge.bodies())
    assert (tmp_path / "runs" / "ideas" / "comparisons" / "endpoints").is_dir()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["rows.jsonl"], "on endpoints only"),
        (["nothere"], "no such config, run, or file of prompts"),
        (["."], "it has no run.yaml"),
        (
            [
                *("rows.jsonl", "--prompts", "rows.jsonl"),
                *("--baseline-url", "http://x/v1", "--tuned-url", "http://x/v1"),
            ],
            "named twice",
        ),
        (["rows.jsonl", "--baseline-url", "http://127.0.0.1:9/v1"], "come together"),
        (["rows.jsonl", "--baseline-model", "x"], "models of endpoints"),
        (
            ["rows.jsonl", "--baseline-url", "ftp://x", "--tuned-url", "http://u:p@x/v1"],
            "keys come from the environment",
        ),
        (
            [
                "rows.jsonl",
                "--tuned",
                "merged",
                "--baseline-url",
                "http://x/v1",
                "--tuned-url",
                "http://x/v1",
            ],
            "--tuned names nothing",
        ),
    ],
)
def test_misuse_is_told(args, told, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "shell-helper.jsonl", "rows.jsonl")
    assert main(["compare", *args]) == 2
    err = capfd.readouterr().err
    assert told in err
    assert "ERROR E_" in err
    assert "u:p" not in err


def test_fail_under_ends_with_1(here, capfd):
    assert main(["compare", str(here), "--fail-under", "101"]) == 1
    err = capfd.readouterr().err
    assert "ERROR E_GATE_VERDICT" in err
    assert "transfer score" in err


def test_a_comparison_of_what_does_not_belong_together_is_refused(here):
    """The dataset was made again with another seed: its held-out rows may have been trained on."""
    dataset = here / "dataset"
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["facts"]["train_rows"] += 1
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    for tuned in ("adapter", "merged", "F16", "checkpoint-3"):
        with pytest.raises(TunewrightError, match="E_ARTIFACT_INVALID"):
            comparison.compare_any(str(here), tuned=tuned)


def test_checkpoints_of_another_training_are_not_its_own(here):
    adapter = load_artifact(here / "adapter", "adapter")
    config = load_config(here / "run.yaml", [f"output_dir={here}"])
    assert pipeline.checkpoints_of(config, adapter)
    losses = [[step, loss + 1] for step, loss in adapter.facts["eval_losses"]]
    other = replace(adapter, facts={**adapter.facts, "eval_losses": losses})
    assert pipeline.checkpoints_of(config, other) == []


def test_a_judge_that_fails_does_not_take_the_comparison_along(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ideas.txt").write_text("A lighthouse\nA tram at night\n")
    with (
        serving(FakeOpenAI(_plain)) as base,
        serving(FakeOpenAI(lambda body: _plain(body) + "!")) as tuned,
        serving(FakeOpenAI(_fine, faults=[(400, {}, b"no")] * 9)) as judge,
    ):
        args = ["--baseline-url", base.url, "--tuned-url", tuned.url, "--judge-url", judge.url]
        assert main(["compare", "ideas.txt", *args]) == 0
        asked = len(base.requests)
        wrong = [*args[:-1], "http://127.0.0.1:9/v1"]
        assert main(["compare", "ideas.txt", *wrong]) == 8
        assert len(base.requests) == asked, (
            "an address that is wrong is told before anything is asked"
        )
    assert "The judge is left out" in capfd.readouterr().err


def test_a_changed_file_of_prompts_makes_the_evaluation_anew(here, tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("One?\n")
    config = load_config(here / "run.yaml", [f"output_dir={here}", f"compare.prompts_file={file}"])
    pipeline.run(config, until="compare")
    assert pipeline.run(config, until="compare")[-1].skipped
    file.write_text("Two?\n")
    again = pipeline.run(config, until="compare")[-1]
    assert not again.skipped
    assert "Two?" in (again.artifact.path / "samples.jsonl").read_text()


def test_models_with_other_tokens_are_not_compared_by_perplexity(here, tmp_path, capfd):
    """The bundled base with two of its tokens exchanged: the same answers, other ids."""
    other = tmp_path / "other"
    shutil.copytree(here / "merged", other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    made = comparison.compare_any(str(here), tuned=str(other))
    assert made.facts["perplexity"] == {}
