"""What of the machine a process may use."""

import os

import pytest

from tunewright import machine
from tunewright.cli import main


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_processors(tmp_path, monkeypatch, files, quota):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.cpu_quota() == quota
    assert machine.cpu_count() == (1 if quota == 1.5 else 3)


@pytest.mark.parametrize("own", [None, "7"])
def test_threads_are_no_more_than_the_share(tmp_path, monkeypatch, own, capsys):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000")
    # Set first, so that what the command sets is taken back.
    monkeypatch.setenv("OMP_NUM_THREADS", own or "")
    if not own:
        monkeypatch.delenv("OMP_NUM_THREADS")
    assert main(["--version"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == (own or "1")
