import pytest

from tunewright.config.schema import TrainSection
from tunewright.train import trackers
from tunewright.train.trackers import missing_trackers, wandb_mode

KEY = {"WANDB_API_KEY": "k"}
URL = "https://api.example.net"


def test_each_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: name == "wandb" or None)
    options = TrainSection(report_to=("trackio", "wandb", "tensorboard"))
    problems = missing_trackers(options)
    assert [p.fix for p in problems] == [
        "pip install 'tunewright[trackio]'",
        "pip install 'tunewright[tensorboard]'",
    ]
    assert {p.code for p in problems} == {"E_CONFIG_VALUE"}
    assert missing_trackers(TrainSection()) == []


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": ""}, "offline"),
        (KEY, "online"),
        ({"WANDB_MODE": "online"}, "offline"),
        (KEY | {"WANDB_MODE": "offline"}, "offline"),
        (KEY | {"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        (KEY | {"WANDB_MODE": "shared"}, "shared"),
    ],
)
def test_without_a_key_wandb_is_never_asked_to_send(environment, mode, tmp_path):
    assert wandb_mode(environment | {"NETRC": str(tmp_path / "none")}, URL) == mode


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.example.net"])
def test_a_key_in_the_netrc_file_counts_for_its_host_only(tmp_path, host):
    file = tmp_path / "netrc"
    file.write_text(f"machine {host} login user password secret\n")
    file.chmod(0o600)
    known = {"NETRC": str(file)}
    assert wandb_mode(known, URL) == "online"
    assert wandb_mode(known | {"WANDB_BASE_URL": "https://wandb.example.org"}, URL) == "offline"
    file.write_text(f"machine {host} nonsense\n")
    assert wandb_mode(known, URL) == "offline"
