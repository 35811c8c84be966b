"""Over three hundred malformed files made by hand: no exception but ours, the right line in each message."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tunewright.data.formats import read
from tunewright.errors import TunewrightError

GOOD = b'{"prompt": "a", "completion": "b"}'

BAD_JSON = {  # a line that is no row: words of the message
    b"{bad": "a key in double quotes", b'{"prompt": "a"': "ends before", b'{"prompt": "a", ': "ends before",
    b'{"prompt": "a': "never closed", b'{"prompt": ': "ends before", b"{": "ends before",
    b'{"prompt"}': "colon is missing", b'{"prompt": "a" "completion": "b"}': "a comma or",
    b'{"prompt": "a", "completion": "b",}': "comma before the closing", b'{"a": [1, 2,]}': "comma before",
    b'{"prompt": "a"}}': "after the end", b'{"a": "b"}{"a": "b"}': "after the end", b'{"a": 1},': "after the end",
    b'{"a": "b"} // note': "after the end", b"{'prompt': 'a'}": "double quotes", b'{"a": \'b\'}': "double quotes",
    b'{prompt: "a"}': "a key in double quotes", b'{"a": undefined}': "a value is missing",
    b'{"a": True}': "a value is missing", b'{"a": None}': "a value is missing", b'{"a": .5}': "a value is missing",
    b'{"a": +5}': "a value is missing", b'{"a": 05}': "comma or a closing", b'{"a": 0x10}': "comma or a closing",
    b'{"a": NaN}': "NaN is not JSON", b'{"a": Infinity}': "Infinity is not", b'{"a": -Infinity}': "-Infinity is not",
    b'{"a": 1e999}': "too large", b'{"a": 1' + b"0" * 5000 + b"}": "too many digits",
    b'{"a": "tab\there"}': "control character", b'{"a": "\x01"}': "control character",
    b'{"a": "\\x41"}': "backslash", b'{"a": "\\u12"}': "hexadecimal", b'{"a": "C:\\dir"}': "backslash",
    b'{"a": "\\ud800"}': "surrogate", b'{"a": "\\udc00"}': "surrogate", b'{"\\ud800": "x"}': "surrogate",
    b'{"a": "\\ude00\\ud83d"}': "surrogate", b'{"a": "1", "a": "2"}': "'a' is given twice",
    b'{"m": [{"role": "user", "role": "x"}]}': "'role' is given twice", b'{"a": "caf\xe9"}': "0xE9 is not UTF-8",
    b'{"a": "\xc0\xaf"}': "0xC0 is not", b'{"a": "\xed\xa0\x80"}': "0xED is not", b'{"a": "\xf5"}': "0xF5 is not",
    b'{"a": "\xe2\x80"}': "0xE2 is not", b"\xff\xfe": "0xFF is not", b'{"a": "x\0y"}': "NUL", b"\0": "NUL",
    b"null": "not null", b"12": "not a number", b'"text"': "not text", b"[1, 2]": "not a list", b"true": "true or",
    b"-1.5e3": "a number", b"[]": "not a list", b'[{"prompt": "a", "completion": "b"}]': "not a list",
    b'{"a": ' * 3000 + b"1" + b"}" * 3000: "nested", b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}": "nested",
    b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}": "nested", b'{"a": ' * 100_000: "nested",
    b"prompt,completion": "a value is missing", b"<row/>": "a value is missing", b"...": "a value is missing",
    b"\x0b": "a value is missing", b"\xc2\xa0": "a value is missing", b"\xe2\x80\xa8": "a value is missing",
    b"\x0c": "a value is missing", b"PK\x03\x04": "a value is missing", b"\x1f\x8b\x08": "0x8B is not",
}  # fmt: skip
NOT_FIRST = {b"\xff\xfe", b"PK\x03\x04", b"\x1f\x8b\x08", b"[" + GOOD + b"]"}
"""At the beginning of a file these say what the whole file is."""


def says(*turns):
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


U, A, S = ("user", "q"), ("assistant", "a"), ("system", "s")
BAD_ROWS = [  # JSON that is no usable row, and words of the message
    ({}, "no known form"), ({"question": "q", "answer": "a"}, "no known form"), ({"prompt": "q"}, "no known form"),
    ({"completion": "a"}, "no known form"), ({"instruction": "i"}, "no known form"),
    ({"prompt": "q", "text": "t"}, "no known form"),
    ({"prompt": "q", "completion": ""}, "completion is empty"), ({"prompt": "q", "response": " \n"}, "only white"),
    ({"prompt": "q", "completion": None}, "completion is null"), ({"prompt": None, "completion": "a"}, "prompt is null"),
    ({"prompt": "q", "completion": 4}, "completion is a number"), ({"prompt": True, "completion": "a"}, "true or false"),
    ({"prompt": " ", "completion": "a"}, "prompt is only white"), ({"prompt": "q", "completion": {}}, "an object"),
    ({"prompt": [], "completion": "a"}, "prompt is a list of messages, but"), ({"prompt": "q\0", "completion": "a"}, "NUL"),
    ({"prompt": [{"role": "user", "content": "q"}], "completion": "a"}, "completion is not"),
    ({"prompt": [{"role": "user", "content": "q"}], "completion": []}, "completion is empty"),
    ({"prompt": "", "completion": "a"}, "prompt is empty; for plain text use a column named text"),
    ({"prompt": None, "response": "a"}, "prompt is null; for plain text use a column named text"),
    ({"prompt": "q", "completion": "a", "tools": [{}]}, "tools are not supported"),
    ({"instruction": "i", "output": ""}, "output is empty"), ({"instruction": "", "output": "o"}, "instruction is empty"),
    ({"instruction": "i", "input": 3, "output": "o"}, "input is a number"),
    ({"instruction": None, "output": None}, "instruction is null; output is null"),
    ({"instruction": "i", "prompt": "", "style": "x"}, "prompt is empty"),
    ({"instruction": "i", "prompt": "p", "style": 7}, "style is a number"),
    ({"instruction": "i", "prompt": "p", "tags": [1]}, "tags is a list"),
    ({"text": ""}, "text is empty"), ({"text": None}, "text is null"), ({"text": ["a"]}, "text is a list"),
    ({"text": "\t\n"}, "only white"), ({"messages": None}, "messages is null"), ({"messages": []}, "messages is empty"),
    ({"messages": "hi"}, "messages is text"), ({"messages": {"role": "user"}}, "messages is an object"),
    ({"messages": [None]}, "messages[0] is null"), ({"messages": ["hi"]}, "messages[0] is text"),
    (says(U), "no assistant turn"), (says(S), "no assistant turn"), (says(S, U), "no assistant turn"),
    (says(A), "begins with an assistant"), (says(S, A, U), "begins with an assistant"), (says(U, A, U), "ends with a user"),
    (says(U, U, A), "messages[1] is a second user"), (says(U, A, A), "messages[2] is a second assistant"),
    (says(S, S, U, A), "two system turns"), (says(U, A, S), "not the first"), (says(U, S, A), "not the first"),
    (says(S, U, A, S, U, A), "two system turns"), (says(("tool", "x"), U, A), "turns of tools"),
    (says(U, ("function", "x")), "turns of tools"), (says(U, ("narrator", "x")), "unknown role"),
    (says(U, ("Assistant", "x")), "unknown role"), (says((None, "x"), A), "messages[0].role is missing"),
    (says((3, "x"), A), "messages[0].role is a number"), (says(U, ("assistant", None)), "messages[1].content is null"),
    (says(U, ("assistant", "")), "messages[1].content is empty"), (says(("user", " "), A), "only white space"),
    (says(("system", " "), U, A), "messages[0].content is only white"), (says(U, ("assistant", 5)), "is a number"),
    (says(U, ("assistant", [])), "messages[1].content is empty"),
    (says(("user", [{"type": "image_url"}]), A), "content[0] is 'image_url'"),
    (says(("user", [{"type": "text"}]), A), "content[0].text is null"), (says(("user", [5]), A), "content[0] is 'a number'"),
    ({"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}, "messages[0].content is missing"),
    ({"messages": [*says(U)["messages"], {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "tool_calls"),
    ({"messages": [*says(U)["messages"], {"role": "assistant", "content": "a", "weight": 0}]}, "weight is 0"),
    ({"messages": [*says(U)["messages"], {"role": "assistant", "content": "a", "train": False}]}, "[1].train is false"),
    ({"messages": [*says(U)["messages"], {"role": "assistant", "content": "a", "loss": False}]}, "[1].loss is false"),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 0.5}]}, "weight is 0.5"),
    ({"messages": [{"role": "user", "content": "q", "weight": 2}, says(A)["messages"][0]]}, "messages[0].weight is 2"),
    ({"conversations": [{"from": "human", "value": "q"}]}, "no assistant turn"),
    ({"conversations": [{"from": "gpt", "value": "q"}]}, "begins with an assistant"),
    ({"conversations": [{"from": "alien", "value": "q"}]}, "unknown role"),
    ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "a"}]}, "conversations[0].value is missing"),
    ({"system": "s", **says(S, U, A)}, "two system turns"), ({"system": 5, **says(U, A)}, "system is a number"),
    ({"chosen": "a", "rejected": "b"}, "preference data"),
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "prepare.columns.completion=chosen"),
]  # fmt: skip
BAD_CSV = [  # file, line, words
    (b"prompt,completion\na,b\nc\nd,e", 3, "1 value, but the header has 2"), (b"prompt,completion\na,b\nc,d,e\n", 3, "3 values"),
    (b'prompt,completion\na,b\n"c,d\ne,f\n', 3, "never closed"), (b'prompt,completion\na,"b"x\nc,d', 2, "follows the closing"),
    (b'prompt,completion\n"a\nb","c\nd,e\n', 3, "never closed"), (b'prompt,completion\na, "b"\n', 2, "space before the quote"),
    (b"prompt,prompt\na,b\n", 0, "'prompt' twice"), (b"prompt,completion\n", 0, "no rows"), (b"prompt,completion", 0, "no rows"),
    (b"prompt,completion\na,caf\xe9\n", 2, "0xE9"), (b"prompt,completion\na,\0\n", 2, "NUL"), (b",\na,b\n", 2, "no known form"),
    (b'prompt,completion\n"a,b\n"c",d\n', 2, "on line 3 text follows"), (b"prompt,completion\na,b\n,\n", 3, "completion is empty"),
    (b"prompt,completion\na,b\n,c\n", 3, "prompt is empty; for plain text"),
    (b"prompt,completion\r\na,b\r\nc\r\n", 3, "1 value"), (b"prompt,completion\ra,b\rc\r", 3, "1 value"),
    (b'prompt,completion\n"a\r\nb",c\r\nd\r\n', 4, "1 value"), (b'prompt;completion\na;"b""c"\nd\n', 3, "1 value"),
    (b"prompt\tcompletion\na\tb\nc\n", 3, "1 value"), (b"prompt|completion\na|b\nc\n", 3, "1 value"),
    (b'prompt,completion\na,"caf\xe9\nx"\n', 2, "0xE9"), (b'prompt,completion\n\n\na,b\nc\n', 5, "1 value"),
    (b'"prompt,completion\na,b\n', 1, "never closed"), (b"prompt,completion\na,b\n\x1a", 3, "1 value"),
    (b'prompt,completion\n"a" ,b\n', 2, "follows the closing"), (b"\xef\xbb\xbfprompt,completion\na", 2, "1 value"),
    (b'prompt,completion\na,"b\xe9""c\n', 2, "0xE9"), (b'{"prompt": "a"}\n', 0, "this is JSON"), (b"a,b\n1,2\n", 2, "no known form"),
]  # fmt: skip
BAD_JSON_FILES = [  # .json file, line, words
    (b'[{"prompt": "a", "completion": "b"},\n{"prompt"}]', 2, "colon is missing"), (b'[\n{"a": 1}\n{"a": 2}]', 3, "a comma or `]`"),
    (b'[{"a": 1},\n{"a": 2},\n]', 3, "comma after the last"), (b'[\n{"a": 1}\n', 3, "file ends early"), (b"[", 1, "file ends early"),
    (b"[\n\n1\n]", 3, "not a number"), (b'[{"a": 1, "a": 2}]', 1, "given twice"), (b"[NaN]", 1, "NaN"), (b"[]", 0, "no rows"),
    (b'[\n{"a": "x\ny"}]', 2, "control character"), (b'[{"a": "caf\xe9"}]', 1, "0xE9"), (b'[{"a": 1}] x', 1, "more text"),
    (b'[\r\n{"a": 1},\r\n{"b" 1}]', 3, "colon"), (b'[\r{"a": 1},\r{"b" 1}]', 3, "colon"), (b'{"data": [\n{"a": 1},\n{"a"}]}', 3, "colon"),
    (b'{"data": [\n{"a": 1}],\n"data": [{}]}', 3, "given twice"), (b'{"rows": [\n{"a": 1}],\n"train": [{}]}', 3, "Both 'rows'"),
    (b'{\n"a": 1\n}\n{\n"b" 2}', 5, "colon"), (b'{\n"a": 1,\n"b": [1,\n]\n}', 4, "comma before"), (b'{\n"a": 1,\n"a": 2\n}', 1, "twice"),
    (b'[{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}]", 1, "nested"), (b'[{"a": ' + b"[" * 70 + b"]" * 70 + b"}]", 1, "nested"),
    (b'[{"a": "\\ud800"}]', 1, "surrogate"), (b'[\n{"a": 1' + b"0" * 5000 + b"}]", 2, "digits"), (b'{"data": [{"a": 1}]', 1, "missing"),
    (b"", 0, "no rows"), (b" \n\t\n", 0, "no rows"), (b"\xef\xbb\xbf", 0, "no rows"), (b"[[1]]", 1, "not a list"),
    (b'[{"a": 1},,{"a": 2}]', 1, "a value is missing"), (b'[,{"a": 2}]', 1, "a value is missing"), (b'[{"a": 1};{"a": 2}]', 1, "a comma"),
]  # fmt: skip


ROWS = [{"prompt": f"Say {n}.", "completion": f"{n}"} for n in range(8)]


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


def file_cases():
    """Yield whole files that are not what they should be: name, bytes, line, words."""
    lines = GOOD + b"\n" + GOOD + b"\n"
    packed = gzip.compress(lines * 50), zstandard.compress(lines * 50)
    for magic, words in {
        b"PAR1": "a Parquet file", b"ARROW1\0\0": "an Arrow file", b"\x1f\x8b\x08\0": "gzip", b"(\xb5/\xfd": "Zstandard",
        b"PK\x03\x04": "ZIP", b"\x89PNG\r\n": "PNG", b"%PDF-1.7": "PDF", b"SQLite format 3\0": "SQLite", b"BZh9": "bzip2",
        b"\xfd7zXZ\0": "xz", b"GGUF": "GGUF", b"\x80\x04\x95": "pickle", b"\x80\x02}q": "pickle", b"\x93NUMPY": "run code",
        b"<!DOCTYPE html>": "web page", b"<?xml version": "XML", b"version https://git-lfs": "LFS", b"FEA1": "Feather",
    }.items():  # fmt: skip
        yield "rows.jsonl", magic + b"\0 whatever\n" * 3, 0, words
    for name in ("x.pt", "x.bin", "x.pkl", "x.npy", "x.ckpt"):
        yield name, lines, 0, "can run code"
    yield from (
        ("x.xlsx", lines, 0, "not read as rows"),
        ("x", lines, 0, "not read as rows"),
        ("x.gz", lines, 0, "damaged"),
    )
    yield from (
        ("x.parquet", lines, 0, "another kind"),
        ("x.arrow", lines, 0, "another kind"),
        ("x.feather", b"", 0, "is empty"),
    )
    yield from (
        ("x.parquet", b"PAR1" * 4, 0, "damaged"),
        ("x.arrow", b"ARROW1\0\0" * 4, 0, "damaged"),
    )
    yield from (
        ("x.parquet", parquet(ROWS)[:-9], 0, "damaged"),
        ("x.parquet.gz", packed[0], 0, "compressed '.parquet'"),
    )
    yield "x.arrow", table(ROWS)[:-40], 0, "damaged"
    yield "x.arrow", table(ROWS, stream=True)[:-100], 7, "damaged"
    yield "x.parquet", parquet([{"prompt": "a", "completion": None}, ROWS[0]]), 1, "is null"
    yield from (
        ("x.jsonl.gz", lines, 0, "damaged"),
        ("x.jsonl.zst", lines, 0, "damaged"),
        ("x.jsonl.gz", b"", 0, "no rows"),
    )
    yield "x.jsonl.gz", gzip.compress(lines) + b"garbage", 3, "damaged"
    yield "x.json.gz", gzip.compress(b"[" + GOOD + b"]\n") + b"garbage", 2, "damaged"
    yield "x.parquet", parquet(ROWS).replace(b"Say 0", b"Sax 0", 1), 1, "damaged"
    yield "x.jsonl.zst", zstandard.compress(lines) + b"garbage", 3, "damaged"
    yield "x.jsonl.gz", gzip.compress(gzip.compress(lines)), 0, "gzip"
    yield "x.jsonl.gz", gzip.compress(lines + b"{bad"), 3, "double quotes"
    yield "x.jsonl.zst", zstandard.compress(lines + b"{bad"), 3, "double quotes"
    yield "x.jsonl.gz", gzip.compress(lines)[:-1], 3, "ends early"
    yield "x.jsonl.gz", gzip.compress(lines) + gzip.compress(b"{bad"), 3, "double quotes"
    yield "x.jsonl.zst", zstandard.compress(lines)[:-1], 0, "ends early"
    for encoding in ("utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-be"):
        mark = b"" if encoding in ("utf-16", "utf-32") else "\ufeff".encode(encoding)
        yield "x.jsonl", mark + (lines.decode() + "{bad\n").encode(encoding), 3, "double quotes"
        yield "x.jsonl", mark + lines.decode().encode(encoding) + b"\x01", 3, "within a character"
    yield (
        "x.jsonl",
        b"\xff\xfe" + "{}\n".encode("utf-16-le") + b"\x00\xd8\x20\0",
        2,
        "not UTF-16-LE",
    )
    yield "x.jsonl", b"\xef\xbb\xbf" + lines + b"{bad", 3, "double quotes"
    yield "x.jsonl", lines + b"\xef\xbb\xbf" + GOOD, 3, "a value is missing"
    yield "x.jsonl", lines + b'{"prompt": "a\xe2\x80\xa8", "completion": 1}', 3, "a number"
    yield from (
        ("x.jsonl", b"", 0, "no rows"),
        ("x.jsonl", b"\n\n \n", 0, "no rows"),
        ("x.jsonl", b"\r\r\n", 0, "no rows"),
    )
    yield (
        "x.jsonl",
        lines + b'{"prompt": "' + b"x" * (33 * 2**20) + b'", "completion": "b"}\n' + GOOD,
        3,
        "larger than 32 MB",
    )
    yield (
        "x.json",
        b"[\n" + GOOD + b',\n{"prompt": "' + b"x" * (33 * 2**20) + b'"}]',
        3,
        "larger than 32 MB",
    )


def by_hand():
    for n, (bad, words) in enumerate(BAD_JSON.items()):
        end = (b"\n", b"\r\n", b"\r")[n % 3]
        yield (f"line-{n}", "x.jsonl", end.join([GOOD, b"", bad, GOOD]), 3, words)
        if bad not in NOT_FIRST:
            yield (f"first-{n}", "x.jsonl", end.join([bad, GOOD, GOOD]), 1, words)
    for n, (row, words) in enumerate(BAD_ROWS):
        text = json.dumps(row).encode()
        yield (f"row-{n}", "x.jsonl", b"\n".join([GOOD, text, GOOD]), 2, words)
        yield (f"item-{n}", "x.json", b"[" + b",\n".join([GOOD, text, GOOD]) + b"]", 2, words)
    for n, (data, line, words) in enumerate(BAD_CSV):
        name = "x.tsv" if b"\t" in data else "x.csv"
        yield (f"csv-{n}", name, data, line, words)
    for n, (data, line, words) in enumerate(BAD_JSON_FILES):
        yield (f"json-{n}", "x.json", data, line, words)
    for n, (name, data, line, words) in enumerate(file_cases()):
        yield (f"file-{n}", name, data, line, words)


CASES = list(by_hand())


@pytest.mark.parametrize(
    ("name", "file", "data", "line", "words"), CASES, ids=[c[0] for c in CASES]
)
def test_malformed(folder, outcome, name, file, data, line, words):
    path = folder / file
    path.write_bytes(data)
    _, rows, problems = outcome(path)
    said = [p for p in problems if words == "no known form" or p[1] != "no known form"]
    assert [at for at, _ in said] == [line]
    assert words in said[0][1]
    if name.startswith(("line-", "first-", "row-", "item-")):
        assert len(rows) == 2


@pytest.mark.parametrize(
    ("file", "data", "place"),
    [
        ("x.jsonl", GOOD + b'\n{"a": 1,}', ":2:9"),
        ("x.jsonl", GOOD + b'\r\n{"a": "caf\xe9"}', ":2:11"),
        ("x.jsonl", GOOD + '\n{"é": "x\0"}'.encode(), ":2:9"),
        ("x.jsonl", GOOD + b"\n[1, 2]", ":2"),
        ("x.csv", b'prompt,completion\na,b\n"x"y,z\n', ":3:4"),
        ("x.json", b'[\n{"prompt": "a", "completion": "b"},\n{"a" 2}]', ":3:6"),
    ],
)
def test_the_place_is_where_an_editor_goes(folder, file, data, place):
    path = folder / file
    path.write_bytes(data)
    problems = []
    try:
        list(read(path, problems.append, print))
    except TunewrightError as error:
        problems.extend(error.problems)
    assert [problem.where for problem in problems] == [f"{path}{place}"]


def test_there_are_enough():
    assert len({(file, data) for _, file, data, _, _ in CASES}) >= 200
