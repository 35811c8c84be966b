"""A run of stages that take no time."""

import fake_stages
import pytest

from tunewright import load_config


@pytest.fixture
def fakes(monkeypatch):
    return fake_stages.install(monkeypatch)


@pytest.fixture
def configured(tmp_path):
    """Return a function that gives the config of one run with other options."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Who?\n")
    (tmp_path / "c.yaml").write_text(
        f"name: mine\noutput_dir: {tmp_path / 'run'}\nprepare: {{source: {rows}}}\n"
        f"compare: {{prompts_file: {prompts}}}\n"
    )
    return lambda *overrides: load_config(tmp_path / "c.yaml", overrides)
