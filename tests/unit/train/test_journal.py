import json
import resource
import subprocess
import sys

import pytest

from tunewright.train import journal
from tunewright.train.journal import Journal, keep, line_of


def refuse(error):
    raise AssertionError(error)


def test_every_row_is_a_whole_line_at_once(tmp_path):
    file = tmp_path / "rows.jsonl"
    book = Journal(file, refuse)
    for step in range(3):
        book.add({"step": step, "text": "é\n\x1b\ud800"})
        assert file.read_bytes().count(b"\n") == step + 1
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows == [{"step": step, "text": "é\n\x1b\ud800"} for step in range(3)]


def test_lines_that_the_disk_refuses_follow_when_it_takes_them(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    place = tmp_path / "gone"
    refused = []
    book = Journal(place / "rows.jsonl", refused.append)
    book.add({"step": 1})
    book.add({"step": 2})
    assert len(refused) == 1  # asked again only after a while
    place.mkdir()
    now[0] += journal.RETRY_SECONDS
    book.add({"step": 3})
    assert (place / "rows.jsonl").read_bytes() == b"".join(line_of({"step": n}) for n in (1, 2, 3))
    book.add({"step": 4})
    assert (place / "rows.jsonl").read_bytes().count(b"\n") == 4
    assert len(refused) == 1


FILLING = """
import resource, sys
from pathlib import Path
from tunewright.train.journal import Journal
refused = []
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
book = Journal(Path(sys.argv[1]), refused.append)
for step in range(20):
    book.add({"step": step})
print(len(refused))
"""


def test_a_line_that_does_not_fit_leaves_no_part(tmp_path):
    """The limit is in the middle of a line: the kernel would write its beginning."""
    file = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FILLING, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
    assert 50 % len(line_of({"step": 0}))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows == [{"step": step} for step in range(len(rows))]
    assert file.read_bytes().endswith(b"\n")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


def rows_file(tmp_path, *lines: bytes):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join(lines))
    return file


def test_rows_after_the_checkpoint_go_and_a_torn_line_is_put_aside(tmp_path):
    lines = [line_of({"step": step}) for step in range(5)]
    torn = lines[4][:-3]
    file = rows_file(tmp_path, *lines[:4], torn)
    assert keep(file, lambda row: row["step"] <= 2) == [{"step": n} for n in range(3)]
    assert file.read_bytes() == b"".join(lines[:3])
    assert (tmp_path / "rows.jsonl.torn").read_bytes() == torn + b"\n"
    assert names_in(tmp_path) == ["rows.jsonl", "rows.jsonl.torn"]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_kill_at_any_byte_of_the_last_line_loses_that_line_only(tmp_path, cut):
    lines = [line_of({"step": step}) for step in range(3)]
    file = rows_file(tmp_path, *lines[:2], lines[2][:-cut])
    assert [row["step"] for row in keep(file, lambda row: True)] == [0, 1]
    assert file.read_bytes() == b"".join(lines[:2])


@pytest.mark.parametrize(
    "bad", [b"null\n", b"[1]\n", b"{\n", b"\xff\n", b"[" * 9000 + b"\n", b"\n"]
)
def test_a_broken_line_in_the_middle_takes_no_other_with_it(tmp_path, bad):
    file = rows_file(tmp_path, line_of({"step": 1}), bad, line_of({"step": 2}))
    assert [row["step"] for row in keep(file, lambda row: True)] == [1, 2]
    assert (tmp_path / "rows.jsonl.torn").read_bytes() == bad


def test_a_whole_file_is_not_touched(tmp_path):
    file = rows_file(tmp_path, line_of({"step": 1}))
    before = file.stat()
    keep(file, lambda row: True)
    after = file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert keep(tmp_path / "none.jsonl", lambda row: True) == []


def test_a_process_that_does_not_write_leaves_the_file_to_the_one_that_does(tmp_path):
    file = rows_file(tmp_path, line_of({"step": 1}), line_of({"step": 2}), b"{")
    before = file.read_bytes()
    assert keep(file, lambda row: row["step"] < 2, writes=False) == [{"step": 1}]
    assert file.read_bytes() == before
    assert names_in(tmp_path) == ["rows.jsonl"]
