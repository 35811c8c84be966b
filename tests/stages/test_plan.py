"""The plan: what it says of a run, what it refuses, and that it fetches no weights."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import FakeHub, connect
from safetensors.torch import load_file, save_file

from tunewright import load_config, plan, prepare
from tunewright.accel import TECHNIQUES
from tunewright.config.load import dump_config
from tunewright.errors import TunewrightError
from tunewright.models._folders import resolve_model
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models.chat import encode, messages_of

PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "workspace")
TOKEN = "h" + "f_" + "Abcd1234" * 5


@pytest.fixture(scope="module")
def prepared(make_config):
    config = make_config()
    return config, prepare(config)


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(resolve_model("tunewright/tiny"), folder)
    return folder


def module(name):
    # `tunewright.train` is the stage's function as well.
    return importlib.import_module(f"tunewright.train.{name}")


def problems_of(call):
    with pytest.raises(TunewrightError) as caught:
        call()
    return caught.value.problems


def planned(make_config, dataset, *overrides):
    return plan(make_config(*overrides), dataset).facts


def test_every_figure_and_every_choice_is_there(prepared):
    config, dataset = prepared
    facts = plan(config, dataset).facts
    assert json.loads(json.dumps(facts)) == facts
    memory = facts["memory_bytes"]
    assert memory["total"] == sum(size for name, size in memory.items() if name != "total")
    assert all(memory[name] > 0 for name in PARTS)
    assert facts["base_parameters"] == 4_984_192
    names = {"dtype", "optim", "attn_implementation", "per_device_train_batch_size"}
    names |= {"gradient_accumulation_steps", "gradient_checkpointing", "train_sampling_strategy"}
    names |= {*TECHNIQUES, "tokens_a_pass", "predicted_gain"}
    assert {choice["name"] for choice in facts["choices"]} == names
    assert all(choice["value"] and choice["reason"] for choice in facts["choices"])
    assert facts["seconds"] > 0
    assert facts["largest_micro_batch"] >= 8
    assert facts["disk_bytes"]["total"] > facts["disk_bytes"]["merged"] == 2 * 4_984_192
    assert facts["ram_bytes"]["merge"] > 4 * 4_984_192
    assert len(facts["gates"]) == 2
    assert all(gate["passed"] for gate in facts["gates"])


def test_samples_show_rows_with_their_mask(prepared):
    config, dataset = prepared
    samples = plan(config, dataset).facts["samples"]
    assert len(samples) == 3
    tokenizer = load_tokenizer(resolve_model("tunewright/tiny"))
    lines = (dataset.path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for sample in samples:
        name, number = sample["where"].split(":")
        assert name == "train.jsonl"
        row = encode(messages_of(json.loads(lines[int(number) - 1])), vocabulary_of(tokenizer))
        whole = tokenizer.decode(row.input_ids)
        if not sample["tokens_lost"]:
            assert "".join(run["text"] for run in sample["runs"]) == whole
        assert [run["learned"] for run in sample["runs"]][:2] == [False, True]


def test_cut_rows_are_counted(prepared, make_config):
    _, dataset = prepared
    whole = planned(make_config, dataset)
    cut = planned(make_config, dataset, "train.max_length=64")
    dropped = (
        planned(make_config, dataset, "train.max_length=64", "train.excess_length_strategy=drop")
        if cut["rows_cut"] < cut["rows"]
        else None
    )
    assert cut["rows_cut"] > whole["rows_cut"]
    assert (
        cut["tokens_lost"]
        == whole["tokens_an_epoch"] + whole["tokens_lost"] - cut["tokens_an_epoch"]
    )
    assert cut["longest_row"] == 64
    assert cut["memory_bytes"]["activations"] < whole["memory_bytes"]["activations"]
    assert dropped is None or dropped["rows"] < whole["rows"]


def test_a_trial_of_few_rows_plans_those(prepared, make_config):
    _, dataset = prepared
    few = ("train.max_train_samples=4", "train.max_eval_samples=2", "train.eval_steps=null")
    facts = planned(make_config, dataset, *few)
    assert (facts["rows"], facts["held_out_rows"]) == (4, 2)
    assert "by heart" in facts["expect"]
    assert "2 rows" in facts["expect"]
    assert facts["eval_steps"] == facts["save_steps"] == 1


def test_max_steps_are_the_steps(prepared, make_config):
    _, dataset = prepared
    facts = planned(make_config, dataset, "train.max_steps=7", "train.save_steps=50")
    assert facts["steps"] == 7
    assert facts["save_steps"] == 7


def test_a_loaded_model_is_measured(prepared, tmp_path):
    """In a process of its own: the heap of one that has trained before has room already."""
    config, _ = prepared
    shutil.copytree(config.run_dir, tmp_path / "run")
    (tmp_path / "c.yaml").write_text(dump_config(config))
    settings = (f"output_dir={tmp_path / 'run'}", "train.max_length=48")
    flags = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "tunewright", "plan", "c.yaml", *flags, "--load-model", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["facts"]
    measured = facts["measured"]
    assert measured["tokens"] == 8 * 48
    assert measured["seconds"] > 0
    assert measured["memory_bytes"] > 10_000_000
    assert "a step of 384 tokens" in facts["seconds_from"]


def test_little_memory_means_fewer_rows_at_a_time(prepared, make_config, monkeypatch):
    config, dataset = prepared
    total = plan(config, dataset).facts["memory_bytes"]["total"]
    monkeypatch.setattr(module("_choices"), "memory_free", lambda _: total // 2)
    monkeypatch.setattr(module("_plan"), "memory_free", lambda _: total // 2)
    facts = planned(make_config, dataset)
    values = {choice["name"]: choice["value"] for choice in facts["choices"]}
    rows = int(values["per_device_train_batch_size"])
    assert rows < 8
    assert rows * int(values["gradient_accumulation_steps"]) == 8
    assert facts["memory_bytes"]["total"] <= total // 2
    assert facts["largest_micro_batch"] == rows


def test_everything_wrong_is_told_at_once(prepared, make_config, monkeypatch):
    _, dataset = prepared
    monkeypatch.setattr(module("_choices"), "memory_free", lambda _: 1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    monkeypatch.setattr(module("trackers"), "find_spec", lambda _: None)
    config = make_config(
        "train.max_length=100000",
        "train.lora.target_modules=[q_proj,w_proj,lm_head]",
        "train.lora.modules_to_save=[classifier]",
        "train.report_to=wandb",
        "train.deepspeed=none.json",
    )
    found = problems_of(lambda: plan(config, dataset))
    places = {(p.code, p.where.removeprefix("train.")) for p in found}
    assert places >= {
        ("E_CONFIG_VALUE", "max_length"),
        ("E_CONFIG_VALUE", "lora.target_modules"),
        ("E_CONFIG_VALUE", "lora.modules_to_save"),
        ("E_CONFIG_VALUE", "report_to"),
        ("E_CONFIG_VALUE", "deepspeed"),
        ("E_NOT_FOUND", "deepspeed"),
        ("E_OOM", "cpu"),
    }
    assert "E_DISK_SPACE" in {p.code for p in found}
    assert [p.message for p in found if "w_proj" in p.message]
    assert [p.fix for p in found if "modules_to_save=[lm_head]" in p.fix]
    assert all(p.fix for p in found)


def test_a_run_that_is_written_in_part_needs_the_rest_only(prepared, make_config, monkeypatch):
    _, dataset = prepared
    config = make_config()
    need = plan(config, dataset).facts["disk_bytes"]
    free = need["total"] - 100_000
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    (problem,) = problems_of(lambda: plan(config, dataset))
    assert problem.code == "E_DISK_SPACE"
    needed, left = re.findall(r"([\d,.]+) MB", problem.message)
    assert needed != left
    merged = Path(config.run_dir) / "merged" / "model.safetensors"
    merged.parent.mkdir()
    with merged.open("wb") as stream:
        stream.truncate(need["merged"])
    facts = plan(config, dataset).facts
    assert facts["disk_bytes"] == need
    assert facts["disk_left_bytes"] < need["total"] - need["merged"]
    assert facts["gates"][0]["value"] == f"{facts['disk_left_bytes'] / 1e6:,.0f} MB needed"


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_side_whose_rows_are_all_too_long_is_refused_by_name(
    prepared, make_config, tmp_path, name
):
    _, dataset = prepared
    copied = replace(dataset, path=tmp_path / "dataset")
    shutil.copytree(dataset.path, copied.path)
    long = {"prompt": "word " * 300, "completion": "Yes."}
    (copied.path / f"{name}.jsonl").write_text(f"{json.dumps(long)}\n" * 3)
    found = problems_of(lambda: planned(make_config, copied, "train.max_length=128"))
    assert [(p.code, Path(p.where).name) for p in found] == [
        ("E_NOTHING_TO_LEARN", f"{name}.jsonl")
    ]
    words = {"train": "row to train on", "eval": "held-out row"}
    assert words[name] in found[0].message


def test_four_bits_without_bitsandbytes_are_refused(prepared, make_config, monkeypatch):
    _, dataset = prepared
    monkeypatch.setattr(module("refusals"), "find_spec", lambda _: None)
    (problem,) = problems_of(lambda: planned(make_config, dataset, "train.load_in_4bit=true"))
    assert "bitsandbytes" in problem.message
    assert planned(make_config, dataset)["steps"]


def test_bfloat16_is_refused_where_the_device_has_none(prepared, make_config, monkeypatch):
    from tunewright.train.refusals import Place

    _, dataset = prepared
    without = Place("cpu", has_bfloat16=False)
    monkeypatch.setattr(module("_plan"), "_place", lambda *_: without)
    (problem,) = problems_of(lambda: planned(make_config, dataset, "train.dtype=bfloat16"))
    assert problem.where == "train.dtype"
    assert planned(make_config, dataset)["steps"]


def test_a_base_that_lacks_a_shard_is_refused(prepared, make_config, base):
    _, dataset = prepared
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00002.safetensors")}
    index["weight_map"][next(iter(tensors))] = "model-00002-of-00002.safetensors"
    save_file(tensors, base / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    weights.unlink()
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    found = problems_of(lambda: planned(make_config, dataset, f"model.model_name_or_path={base}"))
    assert {p.code for p in found} == {"E_MODEL"}
    assert any("model-00002-of-00002" in f"{p.message}{p.where}" for p in found)


def test_a_config_that_lacks_a_size_is_refused(prepared, make_config, base):
    _, dataset = prepared
    config = json.loads((base / "config.json").read_text())
    del config["hidden_size"]
    (base / "config.json").write_text(json.dumps(config))
    (problem,) = problems_of(
        lambda: planned(make_config, dataset, f"model.model_name_or_path={base}")
    )
    assert problem.code == "E_MODEL"
    assert "hidden_size" in problem.message


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with FakeHub() as server:
        connect(server, monkeypatch, tmp_path / "cache", TOKEN)
        yield server


def files_of(base: Path) -> dict:
    return {file.name: file.read_bytes() for file in base.iterdir() if file.is_file()}


def test_no_weights_are_fetched_from_the_hub(prepared, make_config, base, hub):
    _, dataset = prepared
    hub.add("org/base", files_of(base), kind="models")
    facts = planned(make_config, dataset, "model.model_name_or_path=org/base")
    assert facts["base_parameters"] == 4_984_192
    assert hub.count("GET", "config.json") >= 1
    assert hub.count("GET", ".safetensors") == 0


def test_a_gated_base_asks_for_a_token_together_with_what_else_is_wrong(
    prepared, make_config, base, hub
):
    _, dataset = prepared
    hub.add("org/gated", files_of(base), kind="models", gated=True)
    overrides = ["model.model_name_or_path=org/gated", "train.deepspeed=none.json"]
    found = problems_of(lambda: planned(make_config, dataset, *overrides))
    assert found[0].code == "E_HUB"
    assert "HF_TOKEN" in found[0].fix
    assert {p.where for p in found[1:]} == {"train.deepspeed"}


def test_a_file_of_four_rows_works_and_says_what_to_expect(tmp_path):
    rows = [{"prompt": f"Question {n}?", "completion": f"Answer {n}."} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = load_config(
        "preset:demo",
        [
            f"prepare.source={tmp_path / 'rows.jsonl'}",
            "prepare.eval_split=0.25",
            f"output_dir={tmp_path / 'run'}",
        ],
    )
    facts = plan(config, prepare(config)).facts
    assert facts["rows"] + facts["held_out_rows"] == 4
    assert "by heart" in facts["expect"]
    assert "says little" in facts["expect"]
