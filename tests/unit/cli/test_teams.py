"""Commands for several agents: who is asked what, by name; and training anew on the way to the store."""

import json
from pathlib import Path

import fake_stages
import pytest
from fake_stages import WARNINGS

from tunewright import agents
from tunewright.cli import main

NAMES = ("critic", "synthesizer")


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    for name in NAMES:
        Path(f"{name}.jsonl").write_text(json.dumps({"prompt": name, "completion": "b"}) + "\n")
    sources = "".join(f"  {name}: {{prepare: {{source: {name}.jsonl}}}}\n" for name in NAMES)
    Path("team.yaml").write_text(f"name: duo\nagents:\n{sources}")
    # Made-up adapters have no losses, and there is no store in which their versions lie.
    monkeypatch.setattr(agents, "cross", lambda team, listener: None)
    monkeypatch.setattr(agents, "_start", lambda team: [])
    return fake_stages.install(monkeypatch)


def decisions(agent: str) -> list[tuple[str, str, str]]:
    file = Path("runs/duo") / agent / "decisions.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    assert not any(row["question"].startswith(agent) for row in rows)
    return [(row["subject"], row["answer"], row["by"]) for row in rows]


def test_each_agent_is_asked_about_by_its_name(fakes, typed):
    fakes.facts["check"] = WARNINGS
    screen = typed("continue", "stop")
    assert main(["run", "team.yaml"]) == 1
    said = screen.getvalue()
    assert said.index("critic: The check of the data has warnings.") < said.index(
        "synthesizer: The check of the data has warnings."
    )
    assert decisions("critic") == [("warnings", "continue", "user")]
    assert decisions("synthesizer") == [("warnings", "stop", "user")]
    # Who is stopped does not stop the other.
    assert "ERROR E_STOPPED: synthesizer: Stopped before 'plan'" in said
    assert fakes.taken()["train"] == 1
    # What was answered holds; to stop is asked again.
    screen = typed("continue")
    assert main(["run", "team.yaml"]) == 0
    assert decisions("synthesizer")[1:] == [("warnings", "continue", "user")]
    assert fakes.taken()["train"] == 1


@pytest.mark.parametrize(
    ("args", "by"),
    [(["--yes"], "default"), (["--json"], "default"), (["--on-warnings", "continue"], "flag")],
)
def test_flags_answer_for_all_of_them(fakes, typed, args, by):
    fakes.facts["check"] = WARNINGS
    screen = typed()
    assert main(["run", "team.yaml", *args]) == 0
    assert "continue:" not in screen.getvalue()
    assert {tuple(decisions(name)) for name in NAMES} == {(("warnings", "continue", by),)}


def test_one_named_agent_is_asked_about_alone(fakes, typed):
    fakes.facts["compare"] = {"verdict": "undecided"}
    screen = typed("stop")
    assert main(["run", "team.yaml", "--agent", "synthesizer"]) == 1
    assert "synthesizer: The verdict is undecided." in screen.getvalue()
    assert "critic" not in screen.getvalue().split("The verdict")[0]
    assert decisions("synthesizer") == [("verdict", "stop", "user")]


@pytest.fixture
def trainings(fakes, monkeypatch):
    """The options of each training that is asked for with options, run by run."""
    from tunewright.pipeline import running
    from tunewright.pipeline.steps import STEPS

    seen = []

    def train(config, dataset, *, listener, **options):
        seen.append((Path(config.run_dir).name, options))
        if config.run_dir.endswith(fakes.broken.get("of", "nobody")):
            raise fakes.broken["with"]
        return STEPS["train"].make(config, {"dataset": dataset}, listener)

    monkeypatch.setattr(running, "train", train)
    return seen


def test_all_are_trained_anew_and_go_on_to_the_store(fakes, trainings, capsys):
    assert main(["run", "team.yaml", "--yes"]) == 0
    fakes.taken()
    assert main(["train", "team.yaml", "--publish", "--restart", "--json"]) == 0
    assert trainings == [(name, {"restart": True}) for name in NAMES]
    assert fakes.taken()["train"] == 2
    trainings.clear()
    assert main(["train", "team.yaml", "--publish", "--restart", "--agent", "critic"]) == 0
    assert trainings == [("critic", {"restart": True})]
    # On an empty folder too: the dataset is made on the way.
    fresh = ["--set", "output_dir=fresh"]
    assert main(["train", "team.yaml", "--publish", "--restart", *fresh]) == 0
    assert {p.parent.name for p in Path("fresh").rglob("published")} == set(NAMES)


def test_one_whose_training_fails_goes_no_further(fakes, trainings, capsys):
    from tunewright.errors import failure

    fakes.broken |= {"of": "critic", "with": failure("E_OOM", "No memory.", where="train")}
    assert main(["train", "team.yaml", "--publish", "--restart"]) == 5
    assert "ERROR E_OOM: critic: No memory." in capsys.readouterr().err
    assert {p.parent.name for p in Path("runs/duo").rglob("published")} == {"synthesizer"}


def test_what_contradicts_itself_is_refused_for_agents_too(fakes, capsys):
    assert main(["train", "team.yaml", "--publish", "--resume", "--restart"]) == 2
    assert "give one of them" in capsys.readouterr().err
