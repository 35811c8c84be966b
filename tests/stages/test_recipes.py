"""Ready projects: each loads for every base, and works as it is on the bundled one."""

import json
from pathlib import Path

import pytest
import yaml

from tunewright import check, load_config, prepare
from tunewright.cli import main
from tunewright.config.convert import essentials
from tunewright.config.load import load
from tunewright.config.team import load_team
from tunewright.errors import TunewrightError
from tunewright.recipes import bases, project_configs, recipes, write_project
from tunewright.targets import team_of

EACH = [(recipe, base) for recipe in recipes() for base in bases()]


def test_the_recipes_and_bases_that_are_promised():
    assert set(recipes()) == {"video-prompts", "author-style", "agents", "instruct"}
    ids = {name: base["config"]["model"]["model_name_or_path"] for name, base in bases().items()}
    assert ids | {"qwen3-0.6b": "Qwen/Qwen3-0.6B"} == {
        "qwen3-4b": "Qwen/Qwen3-4B-Instruct-2507",
        "qwen3-8b": "Qwen/Qwen3-8B",
        "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
        "mistral-7b": "mistralai/Mistral-7B-Instruct-v0.3",
        "qwen3-0.6b": "Qwen/Qwen3-0.6B",
        "tiny": "tunewright/tiny",
    }


@pytest.mark.parametrize(("recipe", "base"), EACH, ids=lambda name: name)
def test_a_project_loads_and_repeats_no_default(recipe, base, tmp_path):
    project = write_project(recipe, str(tmp_path / "p"), base=base)
    configs = project_configs(recipe, base)
    for name, values in configs.items():
        if "agents" in values:
            require_agents(project.folder / f"{name}.yaml", values)
            continue
        loaded = load(project.folder / f"{name}.yaml")
        assert loaded.notes == ()
        assert essentials(loaded.config) == essentials(load_config(written(tmp_path, values)))
        left = {path for path in leaves(values) if path not in leaves(essentials(loaded.config))}
        # the learner's base is the default one, and is named all the same
        assert left <= {("model", "model_name_or_path")}
        assert loaded.config.name == name
        length, chunk = loaded.config.train.max_length, loaded.config.prepare.max_tokens
        assert recipe != "author-style" or length > chunk
    readme = (project.folder / "README.md").read_text()
    assert "$" not in readme.replace("$ tunewright", "")
    assert readme.count("$ tunewright") == 3


def require_agents(file, values):
    """The file says the same as the recipe, and each agent's run has a place of its own."""
    team = load_team(file)
    assert yaml.safe_load(file.read_text()) == values
    assert team.run_dir == f"runs/{file.stem}"
    assert {agent: config.publish.agent for agent, config in team.configs.items()} == {
        "critic": "critic",
        "synthesizer": "synthesizer",
    }


def written(folder, values):
    file = folder / "c.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def leaves(values, path=()):
    if not isinstance(values, dict):
        return {path}
    return {leaf for key, value in values.items() for leaf in leaves(value, (*path, key))}


@pytest.mark.parametrize("recipe", recipes())
def test_a_project_on_the_bundled_base_prepares_and_passes_its_check(recipe, tmp_path, monkeypatch):
    project = write_project(recipe, str(tmp_path / "p"), base="tiny")
    monkeypatch.chdir(project.folder)
    for config in configs_of(recipe):
        found = check(config, prepare(config))
        assert all(gate["passed"] for gate in found.facts["gates"])
        assert found.facts["rows_cut"] == 0


def configs_of(recipe):
    for name in project_configs(recipe, "tiny"):
        team = team_of(f"{name}.yaml")
        yield from team.configs.values() if team else [load_config(f"{name}.yaml")]


def test_the_project_of_a_learner_trains(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "instruct"]) == 0
    out = capfd.readouterr().out
    assert "instruct/README.md" in out
    assert "Next: tunewright train instruct.yaml --dry-run" in out
    monkeypatch.chdir(tmp_path / "instruct")
    quick = ["--set=train.max_steps=3", "--set=train.max_eval_samples=8"]
    assert main(["train", "instruct.yaml", *quick]) == 0, capfd.readouterr().err
    run = tmp_path / "instruct" / "runs" / "instruct"
    # the dataset was not there, so it was made and checked on the way
    assert all((run / kind / "manifest.json").is_file() for kind in ("dataset", "check", "adapter"))


def test_nothing_is_overwritten_and_all_that_is_there_is_named(tmp_path, capfd):
    folder = tmp_path / "mine"
    (folder / "data").mkdir(parents=True)
    for name in ("README.md", "data/rows.jsonl"):
        (folder / name).write_text("mine")
    assert main(["init", "instruct", str(folder), "--json"]) == 2
    shown = capfd.readouterr()
    assert shown.err.count("ERROR E_EXISTS") == 1
    assert "nothing is overwritten: README.md, data/rows.jsonl." in shown.err
    assert sorted(p.name for p in folder.rglob("*")) == ["README.md", "data", "rows.jsonl"]
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("songs",), "Use one of: video-prompts"),
        (("author_style",), "Did you mean 'author-style'?"),
        (("agents", None, "gpt"), "qwen3-4b, qwen3-8b"),
    ],
)
def test_names_that_are_not_known(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, folder, base = (*arguments, None, None)[:3]
    with pytest.raises(TunewrightError) as caught:
        write_project(recipe, folder, base=base)
    (problem,) = caught.value.problems
    assert problem.code == "E_NOT_FOUND"
    assert says in problem.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.faults
@pytest.mark.parametrize("recipe", recipes())
def test_each_recipe_goes_from_its_sample_to_a_published_version(
    recipe, tmp_path, monkeypatch, capsys
):
    """As a newcomer does it: `init`, then what it names, with every gate as it is."""
    monkeypatch.chdir(tmp_path)
    assert main(["init", recipe, "p", "--base", "tiny"]) == 0
    monkeypatch.chdir(tmp_path / "p")
    assert main(["run", f"{recipe}.yaml"]) == 0, capsys.readouterr().err
    told = [json.loads(file.read_text()) for file in Path("runs").rglob("evaluation/manifest.json")]
    assert [one["facts"]["verdict"] for one in told] == ["improved"] * (1 + (recipe == "agents"))
    assert len(list(Path().glob("store/*/*/v*/manifest.json"))) == len(told)
