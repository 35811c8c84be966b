"""What must hold of any bytes that a reader is given, and bytes to begin with.

Each target raises `WrongError` where its reader and an independent reading of the same bytes differ; any other
exception is the reader's own and a fault as well.
"""

import io
import json
import math
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFWriter
from support import SAMPLES

from tunewright.data.formats.jsonlines import read_jsonlines
from tunewright.data.formats.lines import Ends, physical_lines
from tunewright.data.formats.records import MAX_DEPTH
from tunewright.data.storyboards.deforum import read_settings, settings_key
from tunewright.models.gguf_file import GgufError, read_layout


class WrongError(Exception):
    """A reader has not done what it says."""


def require(holds: object, what: str) -> None:
    """Raise where something does not hold."""
    if not holds:
        raise WrongError(what)


def jsonl(data: bytes) -> None:
    """Each physical line is a row, blank, or refused; a row is what Python's own reader makes of it."""
    ends, refused = Ends(), []
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)]
    found = {
        record.line: record.data
        for record in read_jsonlines(
            Path("rows.jsonl"), physical_lines(blocks, ends), ends, refused.append
        )
    }
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if not lines[-1]:
        lines.pop()
    wanted = {number: _row(line) for number, line in enumerate(lines, 1) if line.strip(b" \t")}
    require(ends.blank == len(lines) - len(wanted), "blank lines")
    require(found == {n: row for n, row in wanted.items() if row is not None}, "rows")
    places = [int(problem.where.split(":")[1]) for problem in refused]
    require(places == [n for n, row in wanted.items() if row is None], "lines that are refused")


def _row(line: bytes) -> dict[str, Any] | None:
    """Return the row of a line, None if it is none: by Python's own reader and a walk over its tokens."""
    twice = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = twice or len({key for key, _ in found}) < len(found)
        return dict(found)

    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=pairs)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    if twice or b"\0" in line or not isinstance(value, dict) or _depth(value) > MAX_DEPTH:
        return None
    return value


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + max(map(_depth, inner), default=0)


def deforum(data: bytes) -> None:
    """Shots have places in the file and names of their own; whatever is told has a place."""
    text = data.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    if not settings_key(text):
        return
    told: list[tuple[int, str, str]] = []
    shots = read_settings("s.json", text, lambda *said: told.append(said))
    count = text.count("\n") + 1
    require(all(1 <= shot.line <= count for shot in shots), "lines of shots")
    require(all(1 <= line <= count and what and fix for line, what, fix in told), "what is told")
    require(all(shot.text.strip() for shot in shots), "a shot without a prompt")
    require(len({shot.source_id for shot in shots}) == len(shots), "names of shots")
    numbers = [v for shot in shots for v in shot.parameters.values() if isinstance(v, float)]
    require(all(map(math.isfinite, numbers)), "a parameter that is no number")


def gguf(data: bytes) -> None:
    """A file that is let through has the tensors in it that gguf's own reader finds."""
    try:
        layout = read_layout(io.BytesIO(data))
    except GgufError as error:
        require(error.faults and all(where and what for where, what in error.faults), "its words")
        return
    require(all(t.start + t.bytes <= len(data) for t in layout.tensors), "a tensor beyond the file")
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(data)
        file.flush()
        read = GGUFReader(file.name)
        mine = {t.name: (t.start, t.bytes) for t in layout.tensors}
        require(mine == {t.name: (t.data_offset, t.n_bytes) for t in read.tensors}, "tensors")


def rows() -> list[bytes]:
    """Return files of rows."""
    lines = (SAMPLES / "shell-helper.jsonl").read_bytes().splitlines(keepends=True)[:3]
    odd = b'\xef\xbb\xbf{"a": [1, 2.5e3, null, "\\ud83d\\ude00"]}\r\n\r\n{"a": 1, "a": 2}\n{"b": NaN}\r{"c'
    return [b"".join(lines), odd]


def settings() -> list[bytes]:
    """Return Deforum settings."""
    found = [
        p.read_bytes()
        for p in sorted((SAMPLES / "storyboards").iterdir())
        if b"prompts" in p.read_bytes()
    ]
    loose = (
        b"{animation_mode: '3D', max_frames: 120, // two shots\n'prompts': {0: 'a pier --neg fog', 60: "
        b"'waves',}, 'angle': '0:(0), 60:(1.5*t)', cfg_scale_schedule: '0:(7)'}"
    )
    return [*found, loose]


def small_gguf() -> list[bytes]:
    """Return a small whole file, and one with an array and an alignment of its own."""
    made = []
    for alignment in (None, 64):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "a.gguf"
            writer = GGUFWriter(file, "llama")
            writer.add_context_length(64)
            writer.add_token_list(["a", "b"])
            if alignment:
                writer.add_custom_alignment(alignment)
            for name in ("token_embd.weight", "output.weight"):
                writer.add_tensor(name, _numbers(64).reshape(2, 32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            made.append(file.read_bytes())
    return made


def _numbers(count: int) -> Any:
    import numpy as np

    return np.frombuffer(struct.pack(f"<{count}f", *range(count)), dtype=np.float32)


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "jsonl": (jsonl, rows),
    "deforum": (deforum, settings),
    "gguf": (gguf, small_gguf),
}
"""What is called with bytes, and what gives bytes to begin with."""
