"""What a run does again, why, and what a mistake costs: with stages that take no time."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from tunewright.artifacts import load_artifact
from tunewright.errors import TunewrightError
from tunewright.pipeline import STAGES, PublishingRefusedError, run, run_stage
from tunewright.pipeline.announcing import running
from tunewright.pipeline.status import tried
from tunewright.pipeline.steps import STEPS


def again(outcomes) -> dict[str, tuple[str, ...]]:
    """Return the stages that were done, and why."""
    return {one.stage: one.reasons for one in outcomes if not one.skipped}


def codes(action) -> list[str]:
    with pytest.raises(TunewrightError) as caught:
        action()
    return [problem.code for problem in caught.value.problems]


def test_every_stage_is_done_once_and_then_skipped(fakes, configured):
    first = run(configured())
    assert again(first) == dict.fromkeys(STAGES, ())
    assert fakes.taken() == dict.fromkeys(STAGES, 1)
    assert again(run(configured())) == {}
    assert fakes.taken() == {}


REDONE = [
    ("prepare.eval_split=0.3", [*STAGES]),
    ("check.max_unlearned=0.5", ["check", "report"]),
    ("train.learning_rate=1e-4", [s for s in STAGES if s != "prepare"]),
    ("compare.num_prompts=7", ["compare", "publish", "report"]),
    ("merge.max_mean_kl=0.002", ["merge", "export", "publish", "report"]),
    ("export.temperature=0.5", ["plan", "export", "publish", "report"]),
    ("publish.agent=critic", ["publish", "report"]),
    ("serve.port=9000", ["report"]),
]


@pytest.mark.parametrize(("override", "stages"), REDONE, ids=[o for o, _ in REDONE])
def test_a_changed_option_redoes_exactly_what_depends_on_it(fakes, configured, override, stages):
    run(configured())
    fakes.taken()
    before = tried(configured(override))
    done = again(run(configured(override)))
    assert list(done) == stages
    assert set(fakes.taken()) == set(stages)
    name = override.partition("=")[0]
    assert f"{name} changed" in done[stages[0]]
    # A try has said so, down to the reasons where these do not depend on an outcome.
    assert [one.stage for one in before if one.would != "skip"] == stages
    assert before[STAGES.index(stages[0])].reasons == done[stages[0]]
    assert again(run(configured(override))) == {}


def test_what_is_made_anew_alike_costs_nothing_after_it(fakes, configured):
    """Another option, the same rows: the training stays, and belongs to the dataset that is there."""
    fakes.constant |= {"prepare"}
    run(configured())
    before = load_artifact(Path(configured().run_dir) / "adapter", "adapter")
    done = again(run(configured("prepare.eval_split=0.3")))
    assert list(done) == ["prepare", "check", "report"]
    dataset = load_artifact(Path(configured().run_dir) / "dataset", "dataset")
    assert before.parents["dataset"] == dataset.digest
    assert dataset.key != before.key
    run_stage(configured("prepare.eval_split=0.3"), "merge")


def test_what_is_made_anew_otherwise_is_followed_through(fakes, configured):
    run(configured())
    fakes.facts["prepare"] = {"rows": 9}
    assert set(again(run(configured(), only=["prepare"]))) == {"prepare"}
    done = again(run(configured()))
    assert list(done) == [s for s in STAGES if s != "prepare"]
    assert done["train"] == ("its dataset was made anew",)
    assert done["export"] == ("its merged model was made anew", "its dataset was made anew")


def test_every_reason_is_told(fakes, configured, tmp_path, monkeypatch):
    run(configured())
    folder = Path(configured().run_dir)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "c"}\n')
    (tmp_path / "prompts.txt").write_text("What?\n")
    (folder / "merged" / "made.txt").unlink()
    (folder / "exported" / "manifest.json").write_text("{")
    found = {one.stage: one.reasons for one in tried(configured("compare.num_prompts=7", "seed=1"))}
    assert found["prepare"] == ("seed changed", "rows.jsonl changed")
    assert found["compare"][:3] == (
        "compare.num_prompts changed", f"{tmp_path / 'prompts.txt'} changed", "seed changed",
    )  # fmt: skip
    assert found["compare"][3:] == (
        "its dataset is to be made first", "its adapter is to be made first",
    )  # fmt: skip
    assert "merged/made.txt is missing" in found["merge"]
    assert found["export"] == ("exported/manifest.json is missing or damaged",)
    monkeypatch.setattr("tunewright.pipeline.state.version", lambda name: "9.9")
    monkeypatch.setattr("tunewright.pipeline.state.is_published", lambda config, artifact: False)
    found = {one.stage: one.reasons for one in tried(configured())}
    assert "Tunewright 0.1.0 made it, this is 9.9" in found["check"]
    assert found["publish"][-1] == "version v1 is not in the store"


def test_an_artifact_of_another_key_is_not_taken_for_finished(fakes, configured):
    """Without the names of its options, as an older version wrote it."""
    run(configured())
    file = Path(configured().run_dir) / "plan" / "manifest.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in fields.items() if k != "options"}))
    assert again(run(configured())) == {}
    done = again(run(configured("train.learning_rate=1e-4"), until="plan"))
    assert done["plan"] == ("it was made with other options",)


MISTAKES = [
    ("compare", "compare.num_prompts=9", "E_DATA_EMPTY"),
    ("merge", "merge.checkpoint=99", "E_NOT_FOUND"),
    ("export", "export.llama_cpp=none", "E_CONVERTER"),
    ("publish", "publish.version=v1", "E_VERSION_EXISTS"),
]


@pytest.mark.parametrize(("stage", "mistake", "code"), MISTAKES, ids=[m[0] for m in MISTAKES])
@pytest.mark.parametrize("first", [True, False], ids=["in the first run", "in a later one"])
def test_a_mistake_in_one_stage_costs_only_that_stage(
    fakes, configured, stage, mistake, code, first
):
    if not first:
        run(configured())
        fakes.taken()
    fakes.broken[stage] = code
    assert codes(lambda: run(configured(mistake))) == [code]
    fakes.taken()
    del fakes.broken[stage]
    after = STAGES[STAGES.index(stage) :]
    outcomes = run(configured())
    calls = fakes.taken()
    if first:
        # What came before is there; what comes after is done for the first time. The plan knows of exports.
        plan = {"plan": 1} if stage == "export" else {}
        assert calls == dict.fromkeys(after, 1) | plan
        assert len(outcomes) == len(STAGES)
    else:
        # The old artifact is what the old options make: nothing is done again.
        assert set(calls) <= {"plan", "report"}


def test_a_refused_publication_still_has_its_report(fakes, configured):
    fakes.broken["publish"] = "E_GATE_VERDICT"
    with pytest.raises(PublishingRefusedError) as caught:
        run(configured())
    assert [one.stage for one in caught.value.outcomes] == [s for s in STAGES if s != "publish"]


def test_what_was_refused_goes_no_further(fakes, configured, monkeypatch):
    """A stage after publishing, as a push would be: it does not even begin."""
    monkeypatch.setattr("tunewright.pipeline.running.chosen", lambda *a, **k: (order, False))
    order = ("prepare", "train", "compare", "merge", "export", "publish", "plan", "report")
    fakes.broken["publish"] = "E_GATE_VERDICT"
    with pytest.raises(PublishingRefusedError):
        run(configured())
    assert "plan" not in fakes.calls
    assert fakes.calls["report"] == 1


def test_a_look_at_other_options_does_not_change_the_run(fakes, configured):
    run(configured())
    file = Path(configured().run_dir) / "run.yaml"
    before = file.read_text()
    run(configured("train.learning_rate=1e-4"), only=["check", "plan"])
    assert file.read_text() == before
    run(configured("merge.max_mean_kl=0.002"), only=["merge"])
    assert file.read_text() != before


def test_from_does_a_stage_and_those_after_it_anew(fakes, configured):
    run(configured())
    fakes.taken()
    done = again(run(configured(), start="merge"))
    assert set(fakes.taken()) == {"merge", "export", "publish", "report"} == set(done)
    assert set(done.values()) == {("it was asked for",)}
    run(configured(), start="compare", until="merge")
    assert set(fakes.taken()) == {"compare", "merge"}


def test_only_does_just_these_in_their_order(fakes, configured):
    run(configured())
    fakes.taken()
    found = run(configured(), only=["merge", "compare"])
    assert [one.stage for one in found] == ["compare", "merge"]
    assert fakes.taken() == {"compare": 1, "merge": 1}
    # What is made in the same go need not be there before.
    shutil.rmtree(Path(configured().run_dir) / "merged")
    assert again(run(configured(), only=["merge", "export"])).keys() == {"merge", "export"}


def test_what_from_and_only_need_has_to_be_there_and_current(fakes, configured):
    def problems(**choice):
        with pytest.raises(TunewrightError) as caught:
            run(configured("train.learning_rate=1e-4"), **choice)
        return [(p.code, p.message) for p in caught.value.problems]

    nothing = problems(only=["publish"])
    assert [code for code, _ in nothing] == ["E_ARTIFACT_MISSING"] * 3
    run(configured(), until="compare")
    fakes.taken()
    outdated, after_it = problems(start="merge")
    assert outdated == (
        "E_ARTIFACT_INVALID",
        "The adapter that is needed is outdated: train.learning_rate changed.",
    )
    assert "comparison" in after_it[1]
    assert problems(only=["export"]) == [
        ("E_ARTIFACT_MISSING", "The merged model that is needed is not there.")
    ]
    assert fakes.taken() == {}


@pytest.mark.parametrize(
    ("choice", "flags"),
    [
        ({"until": "fly"}, ["--until"]),
        ({"start": "fly", "only": ["swim", "merge", "x"]}, ["--from", "--only", "--only"]),
        ({"only": ["merge"], "until": "merge"}, ["tunewright run"]),
        ({"only": ["merge"], "start": "merge"}, ["tunewright run"]),
        ({"start": "export", "until": "merge"}, ["--from"]),
        ({"only": [""]}, ["--only"]),
    ],
)
def test_a_choice_that_contradicts_itself_is_refused(fakes, configured, choice, flags):
    for action in (run, tried):
        with pytest.raises(TunewrightError) as caught:
            action(configured(), **choice)
        assert {p.code for p in caught.value.problems} == {"E_USAGE"}
        assert [p.where for p in caught.value.problems][: len(flags)] == flags
    assert not Path(configured().run_dir).exists()


def test_what_a_stage_is_made_of_is_hashed_before(fakes, configured):
    """A dataset that was changed on the disk is not trained on."""
    run(configured(), until="check")
    file = Path(configured().run_dir) / "dataset" / "made.txt"
    file.write_text(file.read_text() + "x")
    fakes.taken()
    assert codes(lambda: run(configured(), until="train")) == ["E_ARTIFACT_INVALID"]
    assert "train" not in fakes.taken()


def test_a_stage_is_announced_while_it_runs(fakes, configured, monkeypatch):
    folder = Path(configured().run_dir)
    seen = []
    step = STEPS["plan"]

    def look(config, artifacts, listener):
        seen.extend(running(folder))
        return step.make(config, artifacts, listener)

    monkeypatch.setitem(STEPS, "plan", type(step)(**{**vars(step), "make": look}))
    run(configured(), until="plan")
    assert [one.stage for one in seen] == ["plan"]
    assert running(folder) == []
    assert not list(folder.glob(".running-*"))


@pytest.mark.parametrize("stages", list(itertools.combinations(STAGES[:4], 2)))
def test_what_is_lost_is_made_again_and_nothing_else(fakes, configured, stages):
    """Alike: the fake stages are deterministic, so nothing that is made of it is done again."""
    run(configured())
    fakes.taken()
    for stage in stages:
        shutil.rmtree(Path(configured().run_dir) / STEPS[stage].kind)
    done = again(run(configured()))
    assert set(done) == set(stages)
    assert set(done.values()) == {()}
