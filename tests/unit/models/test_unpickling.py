"""S11: pickled weights become safetensors in a process that can do nothing else, and nothing of a pickle is run."""

import json
import os
import pickle

import pytest
import torch
from commands import here
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.errors import TunewrightError
from tunewright.models import unpickling
from tunewright.models._folders import resolve_model
from tunewright.models._weights import check_base
from tunewright.models.unpickling import convert


class Evil:
    """What runs a command when it is read."""

    def __init__(self, canary):
        """Take the file that the command makes."""
        self.canary = canary

    def __reduce__(self):
        """Return the call."""
        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def old(tmp_path):
    """A model as they were stored years ago, with tied weights, a program and an optimizer."""
    folder = tmp_path / "old"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    config = AutoConfig.for_model("qwen3", **sizes, **heads, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    torch.save({"lr": 1}, folder / "optimizer.pt")
    (folder / "modeling_x.py").write_text("raise SystemExit")
    (folder / "tokenizer.json").write_text("{}")
    return folder, model.state_dict()


def same(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_weights_stay_what_they_are_and_the_rest_stays_behind(old, tmp_path):
    folder, wanted = old
    new = tmp_path / "new"
    assert convert(folder, new) == {"path": str(new), "files": 1, "tensors": len(wanted)}
    same(load_file(new / "model.safetensors"), wanted)
    names = {path.name for path in new.iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    assert not names & {"modeling_x.py", "optimizer.pt", "pytorch_model.bin"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_shards_get_an_index(old, tmp_path):
    folder, wanted = old
    (folder / "pytorch_model.bin").unlink()
    names = sorted(wanted)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = {name: wanted[name] for name in part}
        torch.save(shard, folder / f"pytorch_model-0000{number}-of-00002.bin")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    convert(folder, tmp_path / "new")
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == wanted.keys()
    same({n: load_file(tmp_path / "new" / f)[n] for n, f in index["weight_map"].items()}, wanted)
    check_base(tmp_path / "new")


def test_one_file_and_an_adapter(tmp_path):
    weights = {"a": torch.arange(4.0), "b": torch.ones(2, 2, dtype=torch.bfloat16)}
    torch.save({"state_dict": weights}, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "one")
    same(load_file(tmp_path / "one" / "model.safetensors"), weights)
    (tmp_path / "adapter").mkdir()
    torch.save(weights, tmp_path / "adapter" / "adapter_model.bin")
    convert(tmp_path / "adapter", tmp_path / "two")
    same(load_file(tmp_path / "two" / "adapter_model.safetensors"), weights)


@pytest.mark.parametrize(
    "kind",
    [
        *("runs a command", "with tensors"),
        *(
            pytest.param(kind, marks=pytest.mark.faults)
            for kind in ("no tensors", "cut", "no pickle")
        ),
    ],
)
def test_what_is_no_weights_is_refused_and_not_run(tmp_path, kind):
    canary = tmp_path / "canary"
    file = tmp_path / "model.bin"
    if kind == "runs a command":
        file.write_bytes(pickle.dumps(Evil(canary)))
    elif kind == "with tensors":
        torch.save({"a": torch.ones(2), "b": Evil(canary)}, file)
    elif kind == "no tensors":
        torch.save({"a": torch.ones(2), "epoch": 3}, file)
    else:
        torch.save({"a": torch.ones(2)}, file)
        file.write_bytes(file.read_bytes()[:100] if kind == "cut" else b"hello")
    with pytest.raises(TunewrightError) as caught:
        convert(file, tmp_path / "new")
    assert caught.value.problems[0].code == "E_UNSAFE_FORMAT"
    assert not canary.exists()
    assert not (tmp_path / "new").exists()


def test_a_child_that_writes_too_much_or_dies_leaves_nothing(old, tmp_path, monkeypatch):
    folder, _ = old
    monkeypatch.setattr(unpickling, "SPARE_MEGABYTES", 0)
    monkeypatch.setattr(unpickling, "MEGABYTE", 10**12)
    with pytest.raises(TunewrightError, match="E_UNSAFE_FORMAT"):
        convert(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_that_a_refusal_names_works(old, tmp_path):
    folder, _ = old
    (folder / "modeling_x.py").unlink()
    with pytest.raises(TunewrightError) as caught:
        resolve_model(str(folder))
    words = caught.value.problems[0].fix.split("tunewright ")[1].split()
    assert here(*words, cwd=tmp_path).returncode == 0
    assert here(*words, cwd=tmp_path).returncode == 2
    assert here("convert", "none", "new", cwd=tmp_path).returncode == 2
    assert here("convert", str(tmp_path), "new", cwd=tmp_path).returncode == 4
