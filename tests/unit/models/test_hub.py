"""The Hub's client keeps quiet while something is fetched or uploaded, and only then."""

import sys

import pytest
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from tunewright.models._hub import quiet


@pytest.fixture(autouse=True)
def restored():
    before = are_progress_bars_disabled()
    yield
    (disable_progress_bars if before else enable_progress_bars)()


@pytest.mark.parametrize("off", [True, False])
def test_bars_are_off_inside_and_as_before_afterwards(monkeypatch, off):
    # What the environment of a test run says about bars must not matter here.
    module = sys.modules[are_progress_bars_disabled.__module__]
    monkeypatch.setattr(module, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    (disable_progress_bars if off else enable_progress_bars)()
    with pytest.raises(KeyError), quiet():
        assert are_progress_bars_disabled()
        raise KeyError
    assert are_progress_bars_disabled() == off
