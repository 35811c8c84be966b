"""What a look at a machine finds, and that each thing which is wrong is told with what to do."""

import json
from importlib import metadata
from types import SimpleNamespace

import httpx
import pytest
import torch
from packaging.requirements import Requirement

from tunewright import doctor
from tunewright.accel import Speeds
from tunewright.cli import main
from tunewright.doctor import _hub, _machine, examine, packages, stores
from tunewright.errors import failure
from tunewright.train._gpu import Gpu


def by_name(findings) -> dict:
    return {finding.name: finding for finding in findings}


def test_this_machine_is_looked_at_in_every_area(tmp_path):
    found = list(examine(tmp_path / "store", hub=False))
    areas = list(dict.fromkeys(finding.area for finding in found))
    assert areas == ["packages", "machine", "device", "tools", "disk", "store"]
    assert all(finding.text for finding in found)
    assert all(finding.fix for finding in found if finding.state == "bad")
    names = by_name(found)
    assert names["packages"].state == "good"
    assert f"torch {metadata.version('torch')}" in names["packages"].text
    assert names["4 bits (bitsandbytes)"].state == "good"


@pytest.mark.parametrize(
    ("version", "state"), [("3.11.0", "good"), ("3.14.0rc1", "bad"), ("3.10.9", "bad")]
)
def test_python_has_a_range(version, state):
    assert packages.python(version, ">=3.11,<3.14").state == state


def test_packages_that_are_missing_or_of_another_version():
    needed = [
        Requirement(line) for line in ("click>=8.2,<9", "rich>=99", "nothing-of-that-name>=1")
    ]
    found = packages.needed_packages(needed)
    assert found.state == "bad"
    assert found.text == (
        f"rich is {metadata.version('rich')}, and >=99 is needed; nothing-of-that-name is not installed"
    )
    assert found.fix == "pip install 'rich>=99' 'nothing-of-that-name>=1'"
    assert packages.needed_packages(needed[:1]).state == "good"


def test_what_is_always_needed_and_what_an_extra_needs():
    needed, extras = packages.requirements(
        [
            "torch>=2.11",
            'wandb; extra == "wandb"',
            'old>1; python_version < "3.0"',
        ]
    )
    assert [one.name for one in needed] == ["torch"]
    assert {name: [one.name for one in parts] for name, parts in extras.items()} == {
        "wandb": ["wandb"]
    }
    found = packages.requirements(metadata.requires("tunewright"))[1]
    assert set(found) == set(packages.EXTRAS)
    assert set(metadata.metadata("tunewright").get_all("Provides-Extra")) - set(found) == {
        "kquants"
    }
    missing = packages.extra("wandb", [Requirement("nothing-of-that-name")])
    assert (missing.state, missing.fix) == ("note", "pip install 'tunewright[wandb]'")


def test_a_card_that_pytorch_does_not_use_has_to_be_mended(monkeypatch):
    card = Gpu("NVIDIA GeForce RTX 4090", 0, 0, 24 * 10**9, 30)
    monkeypatch.setattr(_machine, "gpus", lambda: [card])
    (found,) = _machine.devices("cpu")
    assert found.state == "bad"
    assert "RTX 4090 is there, and PyTorch" in found.text
    monkeypatch.setattr(_machine, "gpus", list)
    (found,) = _machine.devices("cpu")
    assert found.state == "note"


def test_cards_that_it_uses_are_named(monkeypatch):
    facts = SimpleNamespace(name="NVIDIA H200", total_memory=141e9, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    found = list(_machine.devices("cuda"))
    assert [one.name for one in found] == ["NVIDIA H200"] * 2
    assert "141.0 GB, compute capability 9.0" in found[0].text


@pytest.mark.parametrize(
    ("speeds", "dtype"), [(Speeds(100, 300), "bfloat16"), (Speeds(100, 30), "float32")]
)
def test_what_it_computes_in(monkeypatch, speeds, dtype):
    monkeypatch.setattr(_machine.accel, "measure_speeds", lambda _: speeds)
    assert f"is {dtype} here" in _machine.speeds("cpu").text


def test_4_bits_that_do_not_come_back_have_to_be_mended(monkeypatch):
    monkeypatch.setattr(_machine.four_bits, "dequantize_4bit", lambda *_: torch.zeros(64, 64))
    found = _machine.in_4_bits("cpu")
    assert (found.state, found.fix) == ("bad", "pip install --force-reinstall bitsandbytes")


def test_tools_that_are_not_there(monkeypatch):
    monkeypatch.setattr(_machine, "quantizer", lambda: None)
    monkeypatch.setattr("tunewright.models.gguf_types.quantizer", lambda: None)
    monkeypatch.setattr(_machine.shutil, "which", lambda _: None)
    monkeypatch.setattr(_machine, "find_spec", lambda name: None if name == "unsloth" else name)
    found = by_name(_machine.tools("cuda"))
    assert found["K-quants"].fix.startswith("pip install 'tunewright[kquants]'")
    assert found["Ollama"].state == "note"
    assert (found["unsloth"].state, found["unsloth"].fix) == ("note", "pip install unsloth")
    assert (found["liger-kernel"].state, found["liger-kernel"].fix) == ("good", "")
    assert set(by_name(_machine.tools("cpu"))) == {"K-quants", "Ollama"}


@pytest.mark.parametrize(("free", "state"), [(0.5e9, "bad"), (5e9, "note"), (500e9, "good")])
def test_room_on_a_disk(monkeypatch, tmp_path, free, state):
    space = SimpleNamespace(path=tmp_path, free_bytes=free)
    monkeypatch.setattr(_machine, "disk_space", lambda _: space)
    assert _machine.disk("here", tmp_path / "not yet").state == state


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_machine.tempfile, "TemporaryFile", refuse)
    found = _machine.disk("here", tmp_path)
    assert found.state == "bad"
    assert found.text.endswith("cannot be written: Permission denied")


def hub(monkeypatch, answer, *, token=None, who=None) -> dict:
    monkeypatch.setattr(_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_hub.httpx, "get", answer)
    monkeypatch.setattr(_hub, "get_token", lambda: token)
    monkeypatch.setattr(_hub, "HfApi", lambda token: SimpleNamespace(whoami=who))
    return by_name(_hub.hub())


def answers(_, timeout):
    return httpx.Response(200, request=httpx.Request("GET", "https://huggingface.co"))


def test_a_hub_that_cannot_be_reached_is_no_fault_of_the_machine(monkeypatch):
    def cut(_, timeout):
        raise httpx.ConnectError("no route")

    found = hub(monkeypatch, cut)["Hub"]
    assert (found.state, found.text.rpartition(": ")[2]) == ("note", "no route")
    found = hub(monkeypatch, lambda *_, **__: httpx.Response(503, request=answers(0, 0).request))
    assert found["Hub"].state == "note"
    monkeypatch.setattr(_hub.constants, "HF_HUB_OFFLINE", True)
    (found,) = _hub.hub()
    assert found.text == "HF_HUB_OFFLINE is set"


def test_tokens(monkeypatch):
    secret = "hf_" + "a" * 34
    assert hub(monkeypatch, answers)["token"].state == "note"

    def person(role):
        return lambda: {"name": "ann", "auth": {"accessToken": {"role": role}}}

    found = hub(monkeypatch, answers, token=secret, who=person("write"))["token"]
    assert (found.state, found.text) == ("good", "that of ann, write")
    found = hub(monkeypatch, answers, token=secret, who=person("read"))["token"]
    assert found.state == "note"

    def refused():
        raise httpx.HTTPStatusError(f"401 for {secret}", request=None, response=httpx.Response(401))

    found = hub(monkeypatch, answers, token=secret, who=refused)["token"]
    assert (found.state, found.text) == ("bad", "the Hub does not take it (401)")
    assert secret not in found.text + found.fix


def test_a_store_that_is_not_there_is_whole_or_is_damaged(monkeypatch, tmp_path):
    (found,) = stores.store(tmp_path / "none")
    assert found.state == "note"
    assert not (tmp_path / "none").exists()
    (tmp_path / "other").mkdir()
    (found,) = stores.store(tmp_path / "other")
    assert found.state == "bad"
    assert "store verify" not in found.fix
    monkeypatch.setattr(stores.layout, "existing", lambda folder: folder)
    monkeypatch.setattr(stores, "list_versions", lambda _: [SimpleNamespace(agent="a")] * 3)
    monkeypatch.setattr(stores, "verify", lambda _: [])
    (found,) = stores.store(tmp_path)
    assert (found.state, found.text) == ("good", f"{tmp_path}: 3 versions of 1 agent, all whole")
    damaged = failure("E_DIGEST_MISMATCH", "A file has changed.", where=tmp_path).problems
    monkeypatch.setattr(stores, "verify", lambda _: list(damaged))
    (found,) = stores.store(tmp_path)
    assert (found.state, found.text) == ("bad", "1 problem: A file has changed.")


def test_a_library_that_cannot_be_imported_is_a_finding_and_the_rest_is_looked_at(
    monkeypatch, tmp_path
):
    def broken():
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(doctor, "_of_machine", broken)
    found = list(examine(tmp_path, hub=False))
    (bad,) = [finding for finding in found if finding.area == "machine"]
    assert bad.state == "bad"
    assert bad.text == "OSError: libcudart.so.13: cannot open shared object file"
    assert found[-1].area == "store"


def some(*states):
    return lambda *_, **__: [
        doctor.Finding(
            "disk", f"thing {at}", state, f"it is {state}", "" if state == "good" else "do it"
        )
        for at, state in enumerate(states)
    ]


def test_what_the_command_prints_and_its_exit_code(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "examine", some("good", "note"))
    assert main(["doctor", "--offline"]) == 0
    told = capfd.readouterr()
    assert told.out.splitlines() == [
        "disk",
        "  ✓ thing 0  it is good",
        "  – thing 1  it is note",
        "             do it",
        "This machine is ready. What has a dash is only needed for what stands beside it.",
    ]
    monkeypatch.setattr(doctor, "examine", some("good", "bad", "bad"))
    assert main(["doctor"]) == 1
    told = capfd.readouterr()
    assert "ready" not in told.out
    assert told.err.count("ERROR E_MACHINE: it is bad") == 2
    assert told.err.count("fix: do it") == 2
    assert main(["doctor", "--json"]) == 1
    printed = json.loads(capfd.readouterr().out)
    assert [finding["state"] for finding in printed["findings"]] == ["good", "bad", "bad"]
    assert [problem["code"] for problem in printed["errors"]] == ["E_MACHINE"] * 2
