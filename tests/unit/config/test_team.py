"""Several agents in one config: each one's own config is the one that a person would have written for it."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright import load_config
from tunewright.config.team import for_agents, load_team
from tunewright.errors import TunewrightError
from tunewright.targets import config_of, team_of

TWO = {
    "name": "duo",
    "prepare": {"eval_split": 0.2},
    "train": {"learning_rate": 1e-3, "lora": {"r": 8}},
    "agents": {
        "critic": {"prepare": {"source": "c.jsonl"}, "train": {"lora": {"r": 4}}},
        "synthesizer": {"prepare": {"source": "s.jsonl"}},
    },
}


def team(folder, tree, *overrides):
    file = folder / "team.yaml"
    file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False))
    return load_team(file, overrides)


def problems(folder, tree, *overrides):
    with pytest.raises(TunewrightError) as caught:
        team(folder, tree, *overrides)
    return caught.value.problems


def test_what_all_have_and_what_is_an_agents_own(tmp_path):
    found = team(tmp_path, TWO)
    critic, synthesizer = found.configs.values()
    assert list(found.configs) == ["critic", "synthesizer"]
    assert found.run_dir == "runs/duo"
    assert (critic.run_dir, synthesizer.run_dir) == ("runs/duo/critic", "runs/duo/synthesizer")
    assert (critic.name, critic.publish.agent, critic.publish.adapter) == (
        "duo-critic",
        "critic",
        "duo",
    )
    assert (critic.train.lora.r, synthesizer.train.lora.r) == (4, 8)
    assert critic.train.learning_rate == synthesizer.train.learning_rate == 1e-3


OPTIONS = {
    "train.learning_rate": st.sampled_from([1e-3, 2e-4]),
    "train.lora.r": st.integers(1, 64),
    "train.lora.lora_alpha": st.integers(1, 64),
    "compare.max_new_tokens": st.integers(8, 99),
    "model.chat_template": st.sampled_from(["alpaca", "chatml"]),
    "seed": st.integers(0, 9),
}


@settings(max_examples=60, deadline=None)
@given(
    shared=st.fixed_dictionaries({}, optional=OPTIONS),
    own=st.fixed_dictionaries({}, optional=OPTIONS),
    flags=st.fixed_dictionaries({}, optional=OPTIONS),
    flags_of_one=st.fixed_dictionaries({}, optional=OPTIONS),
)
def test_a_config_is_the_one_that_stands_for_itself(
    tmp_path_factory, shared, own, flags, flags_of_one
):
    folder = tmp_path_factory.mktemp("c")
    tree = nested(shared) | {"agents": {"a": nested(own), "b": None}}
    tree.setdefault("prepare", {})["source"] = "rows.jsonl"
    given_ = [f"{k}={v}" for k, v in flags.items()]
    given_ += [f"agents.a.{k}={v}" for k, v in flags_of_one.items()]
    found = team(folder, tree, *given_).configs
    alone = folder / "alone.yaml"
    # what is given for all on the command line comes before everything else
    for agent, values in (("a", shared | own | flags_of_one | flags), ("b", shared | flags)):
        alone.write_text(yaml.safe_dump(nested(values) | {"prepare": {"source": "rows.jsonl"}}))
        expected = load_config(alone).model_dump(exclude={"name", "output_dir", "publish"})
        assert found[agent].model_dump(exclude={"name", "output_dir", "publish"}) == expected


def nested(values):
    tree = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def test_everything_that_is_wrong_is_named_with_its_line(tmp_path):
    text = """\
name: duo
train: {learning_rte: 3}
agents:
  critic:
    prepare: {source: critic.jsonl}
    train:
      lora: {rr: 3}
  synthesizer: {prepare: {source: s.jsonl, eval_split: 7}}
"""
    found = {(p.where.rpartition(":")[2], p.code): p.message for p in problems(tmp_path, text)}
    assert found == {
        ("2", "E_CONFIG_KEY"): "'train.learning_rte' is not an option.",
        ("7", "E_CONFIG_KEY"): "'agents.critic.train.lora.rr' (train.lora.rr) is not an option.",
        ("8", "E_CONFIG_VALUE"): "'agents.synthesizer.prepare.eval_split' (prepare.eval_split): "
        "should be at most 0.5, not 7.",
    }


@pytest.mark.parametrize(
    ("agents", "says"),
    [
        ({}, "should be a mapping"),
        (None, "should be a mapping"),
        ([1], "should be a mapping"),
        ({"a": 3}, "'agents.a': should be a mapping of options."),
        ({"../x": {}}, "letters, digits"),
        ({"cross": {}}, "needs this name"),
        ({"base": {}}, "needs this name"),
        ({1: {}}, "as int, not as text"),
        ({"a": {}, "A": {}}, "one folder on some systems"),
        ({"a": {"name": "x"}}, "'agents.a.name': an agent has no name of its own."),
        ({"a": {"output_dir": "x"}}, "no output_dir of its own"),
        ({"a": {"model": {"model_name_or_path": "x/y"}}}, "share one base"),
        ({"a": {"agents": {}}}, "no agents of its own"),
    ],
)
def test_what_is_no_agent(tmp_path, agents, says):
    tree = {"prepare": {"source": "r.jsonl"}, "agents": agents}
    assert any(says in problem.message for problem in problems(tmp_path, tree))


def test_one_name_for_all_agents_is_refused(tmp_path):
    (problem,) = problems(tmp_path, TWO | {"publish": {"agent": "x"}})
    assert "each of `agents` is published under its own name" in problem.message


def test_an_override_that_is_wrong_is_named_once(tmp_path):
    (problem,) = problems(tmp_path, TWO, "train.lora.rr=3")
    assert problem.where == "--set train.lora.rr=3"


def test_a_repository_of_all_becomes_one_for_each(tmp_path):
    tree = TWO | {"publish": {"hub_dataset_id": "me/rows"}}
    tree["agents"] = TWO["agents"] | {
        "third": {"prepare": {"source": "t.jsonl"}, "publish": {"hub_dataset_id": "me/other"}}
    }
    found = [c.publish.hub_dataset_id for c in team(tmp_path, tree).configs.values()]
    assert found == ["me/rows-critic", "me/rows-synthesizer", "me/other"]
    # A flag is for all, and is kept as such.
    flagged = team(tmp_path, tree, "publish.hub_dataset_id=me/new")
    (tmp_path / "team.yaml").write_text(yaml.safe_dump(dict(flagged.tree), sort_keys=False))
    for again in (flagged, load_team(tmp_path / "team.yaml")):
        found = [c.publish.hub_dataset_id for c in again.configs.values()]
        assert found == ["me/new-critic", "me/new-synthesizer", "me/new-third"]


def test_the_folder_of_the_runs_stands_for_its_config(tmp_path):
    given_ = team(tmp_path, TWO, "train.lora.r=16", "agents.critic.seed=7")
    folder = tmp_path / "moved"
    folder.mkdir()
    (folder / "team.yaml").write_text(yaml.safe_dump(dict(given_.tree), sort_keys=False))
    again = team_of(str(folder))
    assert again.run_dir == str(folder)
    for agent, config in again.configs.items():
        assert config.run_dir == str(folder / agent)
        same = {"exclude": {"output_dir"}}
        assert config.model_dump(**same) == given_.configs[agent].model_dump(**same)


@pytest.mark.parametrize("target", ["team.yaml", "."])
def test_who_needs_one_run_says_which_there_are(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    team(tmp_path, TWO)
    with pytest.raises(TunewrightError, match="critic, synthesizer") as caught:
        config_of(target)
    assert caught.value.problems[0].code == "E_USAGE"


def test_other_targets_have_no_agents(tmp_path):
    (tmp_path / "c.yaml").write_text("prepare: {source: r.jsonl}\n")
    assert team_of(str(tmp_path / "c.yaml")) is None
    assert team_of("preset:demo") is None
    assert team_of("hub:org/name") is None
    assert team_of("rows.jsonl") is None


def test_overrides_stay_where_an_agent_has_something_of_its_own(tmp_path):
    given_ = team(tmp_path, TWO, "train.lora.r=16", "model.model_name_or_path=a/b")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(dict(given_.tree), sort_keys=False))
    again = load_team(tmp_path / "again.yaml")
    assert [c.model_dump() for c in again.configs.values()] == [
        c.model_dump() for c in given_.configs.values()
    ]
    assert again.tree["agents"]["critic"]["train"] == {"lora": {"r": 16}}
    assert "train" not in again.tree["agents"]["synthesizer"]


def test_overrides_for_some_agents_are_their_own(tmp_path):
    overrides = for_agents(["train.lora.r=16", "output_dir=x"], ["critic"])
    found = team(tmp_path, TWO, *overrides)
    assert [c.train.lora.r for c in found.configs.values()] == [16, 8]
    assert found.run_dir == "x"


def test_a_name_for_all_is_refused_as_a_flag_too(tmp_path):
    (problem,) = problems(tmp_path, TWO, "publish.agent=x")
    assert problem.where == "--set publish.agent=x"
