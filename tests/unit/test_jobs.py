"""Flags of a job stand for options of the config; the command line understands what launchers write."""

import pytest

from tunewright.cli.training import spelled_out
from tunewright.config.wording import meaning
from tunewright.errors import TunewrightError
from tunewright.jobs import OPTIONS, job_config, job_overrides


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A folder with three files, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("b.jsonl", "a.jsonl", "notes.txt"):
        (tmp_path / "data" / name).write_text("{}\n")
    return tmp_path


def refused(**flags):
    with pytest.raises(TunewrightError) as caught:
        job_config(flags)
    return caught.value.problems


def test_every_flag_is_an_option_that_there_is():
    for option in OPTIONS.values():
        assert meaning(tuple(option.split("."))) != meaning(("nothing",)), option


def test_all_flags_become_a_config(rows):
    config = job_config(
        {
            "agent": "critic",
            "adapter_name": "short",
            "adapter_version": "v1",
            "model_name_or_path": "tunewright/tiny",
            "train_files": ("data/*.jsonl", "data/a.jsonl"),
            "dataset_name": "org/more",
            "prompt_template": "Review: {text}",
            "max_train_samples": 10,
            "output_dir": "out",
            "epochs": 1.5,
            "train_batch_size": 3,
            "gradient_accumulation": 5,
            "adapter_r": 4,
            "adapter_alpha": 6,
        }
    )
    assert [e.path for e in config.prepare.source] == [
        "data/a.jsonl",
        "data/b.jsonl",
        "hub:org/more",
    ]
    assert (config.name, config.run_dir) == ("critic-short", "out")
    publish, train = config.publish, config.train
    assert (publish.agent, publish.adapter, publish.version) == ("critic", "short", "v1")
    assert (train.max_train_samples, train.num_train_epochs) == (10, 1.5)
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == (3, 5)
    assert (train.lora.r, train.lora.lora_alpha) == (4, 6)
    assert config.prepare.prompt_template == "Review: {text}"


def test_what_is_not_given_stays_as_it_is_in_the_config(rows):
    assert job_overrides({"agent": None, "train_files": (), "epochs": None}) == []
    assert job_config({"dataset_name": "org/x"}).name == "run"
    assert job_config({"dataset_name": "org/x", "agent": "a"}, ["name=mine"]).name == "mine"


@pytest.mark.parametrize(
    ("given", "option", "value"),
    [
        ("alpaca", "chat_template", "alpaca"),
        ("my.jinja", "chat_template", "my.jinja"),
        ("Say {x}", "prompt_template", "Say {x}"),
        ("ask.txt", "prompt_template", "Ask about {topic}"),
    ],
)
def test_prompt_templates(rows, given, option, value):
    (rows / "ask.txt").write_text("Ask about {topic}\n")
    config = job_config({"dataset_name": "org/x", "prompt_template": given})
    found = {**config.model.model_dump(), **config.prepare.model_dump()}
    assert found[option] == value


def test_wrong_flags_are_named(rows):
    found = refused(train_files=("data/*.csv", "none*", "data/a.jsonl"))
    assert [(p.code, p.where) for p in found] == [("E_NOT_FOUND", "--train-files")] * 2
    (problem,) = refused(dataset_name="org/x", adapter_r=0)
    assert (problem.code, problem.where) == ("E_CONFIG_VALUE", "--adapter-r")
    (problem,) = refused(agent="critic")
    assert "'prepare.source' is missing" in problem.message
    (problem,) = refused(dataset_name="org/x", adapter_version="../x")
    assert problem.where == "--adapter-version"
    (rows / "latin.txt").write_bytes(b"\xe9")
    (problem,) = refused(dataset_name="org/x", prompt_template="latin.txt")
    assert (problem.code, problem.where) == ("E_CONFIG_VALUE", "--prompt-template")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--train_files a b --epochs 1", "--train-files a --train-files b --epochs 1"),
        ("--train-files a c.yaml --json", "--train-files a c.yaml --json"),
        ("--train-files=a b", "--train-files=a b"),
        ("--resume c.yaml", "--resume=must c.yaml"),
        ("c.yaml --resume", "c.yaml --resume=must"),
        ("c.yaml --resume --json", "c.yaml --resume=must --json"),
        ("c.yaml --resume runs/x/training/checkpoints/checkpoint-4", None),
        ("--resume=there c.yaml", None),
        ("c.yaml --set name=a", None),
    ],
)
def test_values_of_flags_as_launchers_write_them(given, expected):
    assert spelled_out(given.split()) == (expected or given).split()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("data/**.jsonl", "data/**/*.jsonl"),
        ("data**/a.jsonl", "**/data*/a.jsonl"),
        ("**/***.jsonl", "**/**/*.jsonl"),
    ],
)
def test_two_stars_stand_alone(rows, given, meant):
    (problem,) = refused(train_files=(given,))
    assert (problem.code, problem.where) == ("E_CONFIG_VALUE", "--train-files")
    assert f"`**` stands alone: {meant}" in problem.message
    found = job_config({"train_files": (meant,)}).prepare.source
    assert {entry.path for entry in found} >= {"data/a.jsonl"}


def test_a_file_whose_name_has_stars_is_a_file(rows):
    (rows / "a**b.jsonl").write_text("{}\n")
    (entry,) = job_config({"train_files": ("a**b.jsonl",)}).prepare.source
    assert entry.path == "a**b.jsonl"


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_name_is_no_source(rows, empty):
    found = refused(train_files=(empty, "none*"), dataset_name=empty)
    assert [(p.code, p.where) for p in found] == [
        ("E_CONFIG_VALUE", "--train-files"),
        ("E_NOT_FOUND", "--train-files"),
        ("E_CONFIG_VALUE", "--dataset-name"),
    ]
