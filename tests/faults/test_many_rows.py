"""T11: a file of many rows is streamed: an address space of four gigabytes, libraries included, is enough."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ADDRESS_SPACE = 4 * 2**30
"""Bytes."""
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
"""
CHECK = f"""{LIMITED}
from tunewright.cli import main
sys.exit(main(["check", sys.argv[2], "--json"]))
"""
READ = f"""{LIMITED}
from pathlib import Path
from tunewright.data.formats import read
print(sum(1 for _ in read(Path(sys.argv[2]), print, lambda said: None)))
"""


def write(file: Path, count: int) -> Path:
    """Return a file of so many short rows, hardly two of them alike."""
    chosen = random.Random(count)
    words = ["".join(chosen.choices("abcdefghijklmnop", k=6)) for _ in range(5000)]
    with file.open("w", encoding="utf-8") as stream:
        for number in range(count):
            text = " ".join(chosen.choices(words, k=8))
            stream.write(f'{{"prompt": "row {number}", "completion": "{text}"}}\n')
    return file


def limited(program: str, file: Path, seconds: float) -> str:
    """Return what a program prints within the limit."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(ADDRESS_SPACE), str(file)],
        cwd=file.parent,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("count", [8_000, pytest.param(1_000_000, marks=pytest.mark.faults)])
def test_check_streams(tmp_path, count):
    found = json.loads(limited(CHECK, write(tmp_path / "rows.jsonl", count), 1800))
    assert found["rows"] == count


@pytest.mark.faults
def test_ten_million_rows_are_read(tmp_path):
    count = 10_000_000
    assert limited(READ, write(tmp_path / "rows.jsonl", count), 1800).split()[-1] == str(count)


def test_without_streaming_the_limit_would_be_reached(tmp_path):
    """The negative case: a program that keeps what it reads is stopped by the same limit."""
    keeps = f"{LIMITED}\nkept = [bytes(2**20) for _ in range(2 * int(sys.argv[1]) // 2**20)]"
    with pytest.raises(AssertionError, match="MemoryError"):
        limited(keeps, write(tmp_path / "rows.jsonl", 1), 60)
