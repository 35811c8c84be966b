import csv
import datetime
import gzip
import io
import json
import math
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SAMPLES

from tunewright.data.formats import kind_of, read
from tunewright.errors import TunewrightError

ROWS = [{"prompt": f"Say {n}, \u2028 caf\u00e9", "completion": f'"{n}"\n'} for n in range(5)]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12)


def refuse(problem):
    raise AssertionError(problem)


def rows_of(path):
    notes = []
    return [(r.line, dict(r.data)) for r in read(path, refuse, notes.append)], notes


def refusal(path):
    with pytest.raises(TunewrightError) as caught:
        list(read(path, refuse, refuse))
    (problem,) = caught.value.problems
    return problem


@given(
    st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), min_size=1, max_size=6),
    st.data(),
)
@settings(max_examples=60)
def test_what_json_writes_is_read_back(tmp_path_factory, rows, data):
    folder = tmp_path_factory.mktemp("r")
    ascii_only = data.draw(st.booleans())
    blank = data.draw(st.lists(st.sampled_from(["", " ", "\t"]), max_size=3))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [part for row in rows for part in (*blank, json.dumps(row, ensure_ascii=ascii_only))]
    (folder / "rows.jsonl").write_bytes(end.join(lines).encode())
    step = len(blank) + 1
    found, _ = rows_of(folder / "rows.jsonl")
    assert found == [(step * n, row) for n, row in enumerate(rows, 1)]
    indent = data.draw(st.sampled_from([None, 0, 1]))
    (folder / "rows.json").write_text(json.dumps(rows, indent=indent), newline=end)
    assert [row for _, row in rows_of(folder / "rows.json")[0]] == rows


@given(
    st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=6),
    st.sampled_from(",;\t|"),
)
@settings(max_examples=60)
def test_what_csv_writes_is_read_back(tmp_path_factory, rows, mark):
    path = tmp_path_factory.mktemp("c") / ("rows.tsv" if mark == "\t" else "rows.csv")
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=mark, quoting=csv.QUOTE_ALL).writerows(
        [["prompt", "completion"], *rows]
    )
    path.write_text(out.getvalue(), newline="")
    found, _ = rows_of(path)
    assert [list(row.values()) for _, row in found] == rows
    line = 2
    for (at, _), row in zip(found, rows, strict=True):
        assert at == line
        line += 1 + sum(cell.count("\n") for cell in row)


NAMES = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.json.gz", "a.jsonl.zst", "a.parquet", "a.arrow"]
BEGINNINGS = [
    b"",
    b"[",
    b'{"data": [{',
    b'a,"',
    b"\xff\xfe",
    b"\0\0\xfe\xff",
    b"PAR1",
    b"ARROW1\0\0",
    b"\xff" * 4,
]


@given(st.sampled_from(NAMES), st.sampled_from(BEGINNINGS), st.binary(max_size=60))
@settings(max_examples=300)
def test_any_bytes_give_rows_or_our_error(tmp_path_factory, name, begin, data):
    path = tmp_path_factory.mktemp("b") / name
    path.write_bytes(
        {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)(begin + data)
    )
    reported = []
    try:
        rows = list(read(path, reported.append, lambda said: None))
    except TunewrightError as error:
        assert error.exit_code in (3, 9)
    else:
        assert rows or reported


def test_every_form_gives_the_same_rows(tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    for name, make in {
        "a.arrow": pa.ipc.new_file,
        "b.arrow": pa.ipc.new_stream,
        "a.feather": pa.ipc.new_file,
    }.items():
        with make(tmp_path / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    for name, data in {
        "a.jsonl": lines,
        "a.ndjson": b"\xef\xbb\xbf" + lines,
        "b.jsonl": lines.decode().encode("utf-16"),
        "c.jsonl": json.dumps(ROWS).encode(),
        "a.json": json.dumps(ROWS, indent=2).encode(),
        "b.json": json.dumps({"version": 1, "rows": ROWS}, indent=2).encode(),
        "c.json": json.dumps({"data": ROWS}).encode(),
        "d.json": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
        "e.json": lines,
        "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl.zst": zstandard.compress(lines[:99]) + zstandard.compress(lines[99:]),
        "b.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    }.items():
        (tmp_path / name).write_bytes(data)
    for path in tmp_path.iterdir():
        found, _ = rows_of(path)
        assert [row for _, row in found] == ROWS, path.name
        if path.suffix in {".parquet", ".arrow", ".feather", ".jsonl"} and path.name != "c.jsonl":
            assert [line for line, _ in found] == [1, 2, 3, 4, 5]
    assert [line for line, _ in rows_of(tmp_path / "a.json")[0]] == [2, 6, 10, 14, 18]
    assert [line for line, _ in rows_of(tmp_path / "d.json")[0]] == [1, 5, 9, 13, 17]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"a": 1}\n', "JSON lines: the first line is an object"),
        ("a.jsonl", b"oops\n", "JSON lines: the name says '.jsonl'"),
        ("a.json", b'[{"a": 1}]', "begins with ["),
        ("a.json", b'{"data": [{"a": 1}]}', "holds a list of rows"),
        ("a.json", b'{\n "meta": 1,\n "train": [{"a": 1}]}', "holds a list of rows"),
        ("a.json", b'{\n "a": 1\n}', "over several lines"),
        ("a.jsonl", b'{"data": ["x"], "b": 1}\n{"data": ["y"], "b": 1}', "JSON lines"),
        ("a.jsonl", b'{\n{"a": 1}', "JSON lines"),
        ("a.csv", b"a;b\n1,5;2,5\n", "semicolon"),
        ("a.csv", b'"a, b",c\n"1;2",3\n', "comma"),
        ("a.csv", b"text\nhello; you\n", "comma"),
        ("a.tsv", b"a,b\n1,2\n", "TSV"),
        ("a.csv.gz", gzip.compress(b"a|b\n1|2\n", mtime=0), "bar"),
    ],
)
def test_the_kind_is_said_with_its_reason(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    assert words in kind_of(tmp_path / name).reason


def test_what_was_changed_is_counted(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r{"a": 3}\n')
    found, notes = rows_of(tmp_path / "a.jsonl")
    assert [line for line, _ in found] == [1, 3, 4]
    assert notes == [
        "a byte-order mark (UTF-8) passed over",
        "2 lines end in CRLF, read as LF",
        "1 line ends in a lone CR, read as LF",
        "1 blank line passed over",
    ]
    (tmp_path / "a.json").write_text('{"version": 1, "data": [{"a": 1}], "b": 2}')
    assert rows_of(tmp_path / "a.json")[1] == [
        "rows are under the key 'data'; not read: 'version', 'b'"
    ]
    (tmp_path / "a.csv").write_text(",prompt,completion\n0,a,b\n")
    found, notes = rows_of(tmp_path / "a.csv")
    assert found == [(2, {"column_1": "0", "prompt": "a", "completion": "b"})]
    assert notes == ["column 1 has no name and is called 'column_1'"]


def test_columns_of_tables_become_plain_values(tmp_path):
    rows = {
        "when": [datetime.datetime(2024, 5, 1, 12), None],
        "cost": [Decimal("1.50"), None],
        "score": [math.nan, 1.5],
        "talk": [[{"role": "user", "content": "q"}], []],
        "image": [b"\x89PNG", None],
        "meta": [{"a": None, "b": 1}, None],
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    found, notes = rows_of(tmp_path / "a.parquet")
    assert found == [
        (1, {"when": "2024-05-01T12:00:00", "cost": "1.50", "score": None,
             "talk": [{"role": "user", "content": "q"}], "meta": {"a": None, "b": 1}}),
        (2, {"when": None, "cost": None, "score": 1.5, "talk": [], "meta": None}),
    ]  # fmt: skip
    assert notes == [
        "column 'image' holds bytes and is not read",
        "column 'score': 1 times NaN or infinity, read as null",
    ]
    json.dumps([row for _, row in found], allow_nan=False)


def test_a_row_of_a_table_that_is_no_text_is_reported_alone(tmp_path):
    column = pa.Array.from_buffers(
        pa.string(),
        3,
        [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffc")],
    )
    table = pa.table({"text": column})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    problem = refusal(tmp_path / "a.arrow")
    assert "damaged" in problem.message
    assert "UTF" in problem.message.upper()


def test_columns_that_are_there_twice(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "'text' are there twice" in refusal(tmp_path / "a.parquet").message


def test_files_that_cannot_be_opened(tmp_path):
    assert refusal(tmp_path / "none.jsonl").code == "E_NOT_FOUND"
    (tmp_path / "folder.jsonl").mkdir()
    assert refusal(tmp_path / "folder.jsonl").code == "E_IO"
    (tmp_path / "a.csv").write_text("prompt,completion\n")
    assert refusal(tmp_path / "a.csv").code == "E_DATA_EMPTY"
    (tmp_path / "a.pt").write_bytes(b"PK\x03\x04")
    assert refusal(tmp_path / "a.pt").code == "E_UNSAFE_FORMAT"


def test_rows_before_a_broken_place_are_given(tmp_path):
    lines = "".join(json.dumps({"text": f"{n} {n * n}"}) + "\n" for n in range(30_000)).encode()
    packed = gzip.compress(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    found = []
    with pytest.raises(TunewrightError) as caught:
        found.extend(read(tmp_path / "a.jsonl.gz", refuse, refuse))
    (problem,) = caught.value.problems
    assert "ends early" in problem.message
    assert problem.where.endswith(f":{len(found) + 1}")
    assert len(found) > 10_000


def test_a_bomb_streams(tmp_path):
    """160 MB in one line, in a few kilobytes."""
    (tmp_path / "small.jsonl").write_bytes(b"x" * 40 * 2**20)
    bomb = zstandard.ZstdCompressor().compressobj()
    packed = b"".join(bomb.compress(b"x" * 2**20) for _ in range(160)) + bomb.flush()
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert len(packed) < 100_000
    child(tmp_path / "small.jsonl", tmp_path / "a.jsonl.zst", "0")


def test_the_bundled_samples_are_rows():
    for path in [SAMPLES / "shell-helper.jsonl", *(SAMPLES / "agents").glob("*.jsonl")]:
        found, notes = rows_of(path)
        assert [line for line, _ in found] == list(range(1, len(found) + 1))
        assert notes == []


def child(small, large, word):
    """Read two files in a process of its own; memory may not grow by more than 32 MB from one to the other."""
    code = """
import resource, sys
from pathlib import Path
from tunewright.data.formats import read
from tunewright.errors import TunewrightError
def run(name):
    try:
        print(sum(1 for _ in read(Path(name), lambda problem: None, lambda said: None)))
    except TunewrightError as error:
        print(error.problems[0].code)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = run(sys.argv[1])
print((run(sys.argv[2]) - before) // 1024)
"""
    command = [sys.executable, "-c", code, str(small), str(large)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert out[1] == word
    assert int(out[-1]) <= 32


@pytest.mark.parametrize(
    ("name", "count"),
    [("a.jsonl", 300_000), ("a.json", 100_000), ("a.csv", 100_000), ("a.parquet", 100_000)],
)
def test_memory_does_not_grow_with_the_rows(tmp_path, name, count):
    def write(path, size):
        rows = ({"prompt": f"question {n} " * 5, "completion": f"answer {n}"} for n in range(size))
        if name == "a.parquet":
            schema = pa.schema({"prompt": pa.string(), "completion": pa.string()})
            with pq.ParquetWriter(path, schema) as writer:
                for _ in range(size // 5000):
                    writer.write_table(
                        pa.Table.from_pylist([next(rows) for _ in range(5000)], schema)
                    )
            return
        with path.open("w") as stream:
            if name == "a.csv":
                stream.write("prompt,completion\n")
                stream.writelines(f"{row['prompt']},{row['completion']}\n" for row in rows)
            elif name == "a.json":
                stream.write("[")
                stream.writelines(json.dumps(row) + ",\n" for row in rows)
                stream.write('{"prompt": "last", "completion": "row"}]')
            else:
                stream.writelines(json.dumps(row) + "\n" for row in rows)

    write(tmp_path / f"small-{name}", 10_000)
    write(tmp_path / name, count)
    child(tmp_path / f"small-{name}", tmp_path / name, str(count + (name == "a.json")))
