"""Good files with random faults: read as the standard library (`json`, `csv`) and pyarrow read them, strictly.

No exception but ours, no silent change, every fault named with its line.
"""

import csv
import gzip
import io
import json
import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tunewright.data.formats import kind_of
from tunewright.errors import TunewrightError

END = re.compile(rb"\r\n|\r|\n")
ROWS = [{"prompt": f"Say {n}.", "completion": f"{n} \u2028 caf\u00e9"} for n in range(8)]
MUTATIONS = 60
"""Of each of the good files."""


def table(rows, *, stream=False):
    out = io.BytesIO()
    data = pa.Table.from_pylist(rows)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(out, data.schema) as writer:
        writer.write_table(data, max_chunksize=3)
    return out.getvalue()


def parquet(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, write_page_checksum=True, row_group_size=3)
    return out.getvalue()


def good_files():
    lines = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS)
    turns = [
        ("system", "s"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "\u00e9\n"),
        ("assistant", "a"),
    ]
    talk = {"messages": [{"role": role, "content": content} for role, content in turns]}
    talks = [json.dumps(talk)] * 6
    alpaca = [{"instruction": "i", "input": "", "output": f"o{n}", "id": n} for n in range(6)]
    wide = "prompt,completion\n" + "".join(
        f'"Say, {n}","a\n""b"" {n}"\n{n},x y\n' for n in range(5)
    )
    return {
        "plain.jsonl": lines,
        "talks.ndjson": "\r\n".join(talks).encode(),
        "marked.jsonl": b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r"),
        "utf16.jsonl": "\n".join(map(json.dumps, ROWS)).encode("utf-16"),
        "list.json": json.dumps(alpaca, indent=1).encode(),
        "dense.json": json.dumps(ROWS, ensure_ascii=False).encode(),
        "rows.json": (b"[" + b",\n".join(lines.splitlines()) + b"]"),
        "held.json": json.dumps({"version": "1", "data": ROWS}, indent=1).encode(),
        "wide.csv": wide.encode(),
        "tabs.tsv": b"prompt\tcompletion\n" + b"".join(b"a %d\tb\n" % n for n in range(9)),
        "lines.jsonl.gz": gzip.compress(lines, mtime=0),
        "lines.jsonl.zst": zstandard.compress(lines),
        "rows.parquet": parquet(ROWS),
        "rows.arrow": table(ROWS),
        "rows.feather": table(ROWS, stream=True),
    }  # fmt: skip


def mutated(data, rng):
    """Return the bytes with one or two of: cut off, a bit flipped, bytes put in or taken out, lines swapped."""
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data = data[: max(1, at)]
        elif kind == 1:
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == 2:
            extra = rng.choice(
                [b'"', b",", b"\n", b"\r", b"{", b"]", b"\\", b"\0", b"\xff", b"\xe2\x80\xa8"]
            )
            data = data[:at] + extra + data[at:]
        elif kind == 3:
            data = data[:at] + data[at + rng.randint(1, 9) :] or b"x"
        elif kind == 4:
            data = data[:at] + rng.randbytes(rng.randint(1, 4)) + data[at:]
        else:
            lines = data.split(b"\n")
            one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one]
            data = b"\n".join(lines)
    return data


def strict_json(text):
    def pairs(found):
        if len({key for key, _ in found}) < len(found):
            raise KeyError
        return dict(found)

    def constant(name):
        raise KeyError

    value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def is_row(line):
    try:
        text = line.decode()
        value = strict_json(text)
    except (ValueError, KeyError):
        return None
    return value if isinstance(value, dict) and "\0" not in text else None


def lines_of(data):
    if data.startswith(b"\xff\xfe"):
        data = (
            data[2 : len(data) // 2 * 2]
            .decode("utf-16-le", errors="surrogatepass")
            .encode(errors="surrogatepass")
        )
    return END.split(data.removeprefix(b"\xef\xbb\xbf"))


def check_lines(data, records, problems):
    good = {n: row for n, line in enumerate(lines_of(data), 1) if (row := is_row(line))}
    bad = [n for n, line in enumerate(lines_of(data), 1) if line.strip(b" \t") and not is_row(line)]
    unread = [line for line, text in problems if "are not read" in text]
    last = unread[0] if unread else 10**9
    assert {r.line: dict(r.data) for r in records} == {n: r for n, r in good.items() if n < last}
    of_records = {r.line for r in records}
    named = [line for line, _ in problems if line not in of_records and line]
    assert named == [n for n in bad if n < last] + unread


def check_document(data, records, problems):
    text = b"\n".join(lines_of(data)).decode(errors="surrogateescape")
    lines = text.split("\n")
    decoder = json.JSONDecoder()
    starts = [sum(len(line) + 1 for line in lines[:n]) for n in range(len(lines))]
    for record in records:
        line = lines[record.line - 1]
        begins = [m.start() for m in re.finditer(r"\{", line)]
        seen = [raw(decoder, text, starts[record.line - 1] + at) for at in begins]
        assert dict(record.data) in seen
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        fatal = [line for line, said in problems if "are not read" in said]
        several = error.msg == "Extra data" and text.lstrip().startswith("{")
        undecoded = "\udc80" <= max(text[: error.pos + 2]) <= "\udcff"
        assert fatal == [error.lineno] or several or undecoded
    else:
        whole = whole["data"] if isinstance(whole, dict) and "data" in whole else whole
        if not problems:
            assert [dict(r.data) for r in records] == whole


def raw(decoder, text, at):
    try:
        return decoder.raw_decode(text, at)[0]
    except ValueError:
        return None


def check_csv(data, records, problems, mark):
    text = b"\n".join(lines_of(data)).decode(errors="surrogateescape")
    wanted, end = csv_rows(text, mark)
    header = [name.strip() for name in wanted.pop(0)[1]] if wanted else []
    named = {line for line, _ in problems}
    fatal = min([line for line, said in problems if "are not read" in said], default=10**9)
    got = {record.line: list(record.data.values()) for record in records}
    for line, cells in wanted:
        if line < min(fatal, end) and line not in named:
            assert got[line] == cells
            assert len(cells) == len(header)
    for line, cells in got.items():
        rest = text.split("\n")[line - 1 :]
        assert csv_rows("\n".join(rest), mark)[0][0] == (1, cells)
    if not problems:
        assert end == 10**9
        assert list(got.items()) == wanted


def csv_rows(text, mark):
    """Return (line, cells) of all rows up to the first fault, and the line where that record begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    rows, line = [], 1
    try:
        for cells in reader:
            if any(cells) or len(cells) > 1:
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error:
        return rows, line
    return rows, 10**9


def check_table(data, records, problems, *, parquet):
    try:
        if parquet:
            limits = {"thrift_string_size_limit": 2**20, "thrift_container_size_limit": 1000}
            table = pq.read_table(io.BytesIO(data), page_checksum_verification=True, **limits)
        else:
            opened = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
            table = opened(io.BytesIO(data)).read_all()
        table.validate(full=True)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        assert problems
        return
    if not problems:
        assert [dict(r.data) for r in records] == rows
        assert [r.line for r in records] == list(range(1, len(rows) + 1))


def check_again(path, data, records, problems):
    """Check a mutated file against another reading of it."""
    try:
        kind = kind_of(path)
    except TunewrightError:
        assert problems
        assert not records
        return
    if path.suffix in {".gz", ".zst"}:
        try:
            data = gzip.decompress(data) if path.suffix == ".gz" else unpacked(data)
        except (OSError, EOFError, ValueError, gzip.zlib.error):
            assert problems
            return
    if kind.reader in {"parquet", "arrow"}:
        check_table(data, records, problems, parquet=kind.reader == "parquet")
    elif kind.reader == "csv":
        check_csv(data, records, problems, kind.delimiter)
    elif kind.reader == "lines":
        check_lines(data, records, problems)
    else:
        check_document(data, records, problems)


def unpacked(data):
    with pa.input_stream(io.BytesIO(data), compression="zstd") as stream:
        return stream.read()


GOOD = good_files()


@pytest.mark.parametrize("number", range(MUTATIONS))
@pytest.mark.parametrize("name", GOOD)
def test_mutated(folder, outcome, name, number):
    data = mutated(GOOD[name], random.Random(f"{name} {number}"))
    path = folder / name
    path.write_bytes(data)
    records, _, problems = outcome(path)
    check_again(path, data, records, problems)


def test_there_are_enough():
    made = {mutated(GOOD[k], random.Random(f"{k} {n}")) for k in GOOD for n in range(MUTATIONS)}
    assert len(made) >= 800


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_good(folder, outcome, name):
    (folder / name).write_bytes(GOOD[name])
    records, rows, problems = outcome(folder / name)
    assert problems == []
    assert len(records) == len(rows) >= 6
    check_again(folder / name, GOOD[name], records, problems)
