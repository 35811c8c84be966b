"""Readers of foreign bytes, given any: libFuzzer looks for what the hand-made cases leave out."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from faults.fuzz_targets import TARGETS, WrongError, gguf, jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ROOT

SECONDS = 120
"""Of each target."""
FEWEST = 1000
"""Inputs in that time: fewer would mean that the reader hangs, or that nothing is fuzzed."""


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return one of the seeds with some stretches of it replaced, doubled or taken out."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 16))
        stretch = data[at : at + length]
        put = draw(st.one_of(st.binary(max_size=16), st.just(stretch * 2)))
        data = data[:at] + put + data[at + length :]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused(name):
    call, seeds = TARGETS[name]
    known = seeds()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.one_of(changed(known), st.binary(max_size=200)))
    def holds(data: bytes) -> None:
        call(data)

    for data in known:
        call(data)
    holds()


def test_the_targets_notice_a_reader_that_is_wrong(monkeypatch):
    """The negative case: without this the targets could hold of anything."""
    from faults import fuzz_targets

    monkeypatch.setattr(fuzz_targets, "read_jsonlines", lambda *_: iter(()))
    with pytest.raises(WrongError, match="rows"):
        jsonl(b'{"a": 1}\n')
    plain = fuzz_targets.read_layout

    def shifted(stream):
        layout = plain(stream)
        first, *others = layout.tensors
        return replace(layout, tensors=[replace(first, start=first.start + 32), *others])

    monkeypatch.setattr(fuzz_targets, "read_layout", shifted)
    with pytest.raises(WrongError):
        gguf(TARGETS["gguf"][1]()[0])


@pytest.mark.faults
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_in_minutes(name, tmp_path):
    pytest.importorskip("atheris", reason="atheris is there for Linux on x86-64 only")
    for number, seed in enumerate(TARGETS[name][1]()):
        (tmp_path / f"seed-{number}").write_bytes(seed)
    paths = os.pathsep.join(str(ROOT / part) for part in ("tests", "src"))
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("fuzz.py")),
            name,
            str(tmp_path),
            str(SECONDS),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert tried
    assert int(tried[1]) >= FEWEST, done.stderr[-2000:]
