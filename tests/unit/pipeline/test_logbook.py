"""One log: what was done and said and why, without secrets; a log that cannot be written stops nothing."""

import re
from pathlib import Path

import pytest

from tunewright.errors import TunewrightError
from tunewright.events import Silent
from tunewright.pipeline import STAGES, run, run_stage
from tunewright.pipeline.logbook import seconds_of

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7xY9zA1cD3e"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \d+ (\w+) +(.*)")


class Heard(Silent):
    def __init__(self):
        self.texts = []

    def said(self, text):
        self.texts.append(text)


def lines(config) -> list[tuple[str, str]]:
    text = (Path(config.run_dir) / "logs" / "run.log").read_text()
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(matches)
    return [(match[1], match[2]) for match in matches]


def test_what_was_done_skipped_and_why(fakes, configured):
    fakes.said["check"] = "Rows:\n \x1b[31mfine"
    warning = {"code": "W_CUT", "message": "Cut.", "where": "a:1", "fix": ""}
    fakes.facts["check"] = {"warnings": [{"code": "W_CUT", "count": 3, "first": [warning]}]}
    config = configured()
    run(config, until="plan")
    found = lines(config)
    assert found[0][0] == "start"
    assert re.fullmatch(
        r"run --until plan; Tunewright \S+, config SHA-256 [0-9a-f]{64}", found[0][1]
    )
    assert [what for what, _ in found[1:]] == [
        "begin", "end", "begin", "note", "end", "warning", "decision", "begin", "end", "finish",
    ]  # fmt: skip
    assert found[4] == ("note", r"Rows: \x1b[31mfine")
    assert found[6] == ("warning", "W_CUT: Cut. (a:1, and 2 more)")
    assert found[7][1].startswith(
        "warnings: continue (by default); asked was: The check of the data"
    )
    other = configured("train.learning_rate=1e-4")
    run(other, until="plan")
    rest = lines(config)[len(found) :]
    assert ("skip", "prepare: nothing changed") in rest
    assert ("begin", "plan again, because: train.learning_rate changed; its dataset") not in rest
    assert ("begin", "plan again, because: train.learning_rate changed") in rest
    assert rest[0][1] != found[0][1]
    assert seconds_of(Path(config.run_dir)).keys() == {"prepare", "check", "plan"}


def test_errors_and_what_was_interrupted(fakes, configured):
    config = configured()
    fakes.broken["check"] = "E_LEAK"
    with pytest.raises(TunewrightError):
        run(config)
    assert ("error", "E_LEAK: No. (check)") in lines(config)
    fakes.broken["check"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert ("stopped", "run by KeyboardInterrupt") in lines(config)
    fakes.broken["check"] = ZeroDivisionError("x")
    with pytest.raises(ZeroDivisionError):
        run_stage(config, "check")
    assert ("error", "E_INTERNAL: ZeroDivisionError: x") in lines(config)
    # The three that failed: none of them ended.
    assert [text.split()[0] for what, text in lines(config) if what == "end"] == ["prepare"]
    assert [what for what, _ in lines(config)].count("failed") == 3
    assert [what for what, _ in lines(config)].count("finish") == 3


def test_every_command_of_a_stage_is_in_it(fakes, configured):
    config = configured()
    for stage in STAGES:
        run_stage(config, stage)
    assert [text.partition(";")[0] for what, text in lines(config) if what == "start"] == [*STAGES]


def test_no_secret_is_in_it(fakes, configured):
    fakes.said["prepare"] = f"token {TOKEN} and password = hunter2hunter2"
    fakes.broken["check"] = ValueError(f"https://user:s3cretpass1@host/ {TOKEN}")
    config = configured()
    with pytest.raises(ValueError, match="host"):
        run(config)
    text = (Path(config.run_dir) / "logs" / "run.log").read_text()
    assert TOKEN not in text
    assert "s3cretpass1" not in text
    assert "hunter2hunter2" not in text
    assert "hf_aB" in text


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(fakes, configured):
    config = configured()
    folder = Path(config.run_dir)
    folder.mkdir()
    (folder / "logs").write_text("a file in its place")
    heard = Heard()
    assert len(run(config, listener=heard)) == len(STAGES)
    assert sum("log cannot be written" in text for text in heard.texts) == 1
    assert "merge: done in 0.0 s" in heard.texts
    assert seconds_of(folder) == {}


@pytest.mark.parametrize("link", ["logs", "logs/run.log"])
def test_it_is_not_written_through_a_link(fakes, configured, tmp_path, link):
    config = configured()
    outside = tmp_path / "outside"
    outside.mkdir()
    place = Path(config.run_dir) / link
    place.parent.mkdir(parents=True)
    place.symlink_to(outside if link == "logs" else outside / "file")
    run(config, until="prepare")
    assert list(outside.iterdir()) == []


def test_a_command_that_is_refused_at_once_leaves_no_folder(fakes, configured):
    config = configured()
    with pytest.raises(TunewrightError):
        run_stage(config, "merge")
    assert not Path(config.run_dir).exists()
