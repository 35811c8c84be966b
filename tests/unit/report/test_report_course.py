"""How a training went, from its files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.artifacts import Artifact
from tunewright.report.course import Course, read_course

CREATED = "1970-01-01T00:16:40+00:00"


def line(step: int, seconds: float, **more: object) -> dict:
    given = {"tokens_per_second": 100.0 * step or None, "memory_bytes": 1000 + step}
    return {"step": step, "seconds": seconds, "time": 500 + seconds, "steps": 9} | given | more


def course_of(folder: Path, progress: list[dict], metrics: list[dict] | None = None) -> Course:
    file = folder / "progress.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in progress))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics or []))
    return read_course(Artifact("adapter", folder, "", "", {}, {}, {}, CREATED), file)


def test_learning_rates_come_from_the_adapter(tmp_path):
    rows = [{"step": 0, "eval_loss": 4.0}, {"step": 1, "learning_rate": 0.002, "loss": 4.1}]
    assert course_of(tmp_path, [], rows).learning_rates == [(1, 0.002)]


def test_speed_and_memory(tmp_path):
    found = course_of(tmp_path, [line(0, 0), line(1, 2), line(2, 5), line(2, 6)])
    assert found.speeds == [(1, 100.0), (2, 200.0)]
    assert found.memory == [(0, 1000), (1, 1001), (2, 1002)]
    assert (found.tokens_per_second, found.peak_bytes, found.seconds) == (150.0, 1002, 6)


def test_steps_that_were_taken_again_count_once_and_their_time_twice(tmp_path):
    first = [line(1, 10), line(2, 20), line(3, 30, tokens_per_second=1.0)]
    found = course_of(tmp_path, [*first, line(2, 5), line(3, 15)])
    assert found.speeds == [(1, 100.0), (2, 200.0), (3, 300.0)]
    assert found.seconds == 45


def test_what_came_after_the_adapter_is_another_training(tmp_path):
    found = course_of(tmp_path, [line(1, 10), line(2, 20, time=1001.0)])
    assert [step for step, _ in found.memory] == [1]


def test_events_are_no_figures(tmp_path):
    event = {"time": 500.0, "event": "checkpoint", "text": "checkpoint of step 1"}
    assert course_of(tmp_path, [event]).seconds is None


@pytest.mark.parametrize("torn", [b'{"step": 1, "sec', b"\xff\xfe", b"[1]", b"null", b""])
def test_a_torn_line_is_left_out(tmp_path, torn):
    file = tmp_path / "progress.jsonl"
    file.write_bytes(json.dumps(line(1, 2)).encode() + b"\n" + torn)
    found = read_course(Artifact("adapter", tmp_path, "", "", {}, {}, {}, CREATED), file)
    assert found.memory == [(1, 1001)]


@given(st.binary(max_size=80))
def test_any_file_can_be_read(tmp_path_factory, raw):
    folder = tmp_path_factory.mktemp("any")
    (folder / "metrics.jsonl").write_bytes(raw)
    artifact = Artifact("adapter", folder, "", "", {}, {}, {}, CREATED)
    assert read_course(artifact, folder / "metrics.jsonl").speeds == []


def test_without_files_nothing_is_known(tmp_path):
    artifact = Artifact("adapter", tmp_path, "", "", {}, {}, {}, CREATED)
    for found in (read_course(artifact, tmp_path / "none"), read_course(None, tmp_path / "none")):
        assert found == Course([], [], [], None)
        assert found.tokens_per_second is None
        assert found.peak_bytes is None
