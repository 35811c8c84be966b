"""The reader of foreign GGUF files: what it refuses, and that nothing makes it stumble."""

import io
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.errors import TunewrightError
from tunewright.models import gguf_check, gguf_file
from tunewright.models.gguf_check import require_gguf
from tunewright.models.gguf_file import GgufError, read_layout


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def row(name, shape=(32, 2), kind=0, offset=0, dimensions=None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return (
        text(name)
        + struct.pack(f"<I{len(shape)}Q", count, *shape)
        + struct.pack("<IQ", kind, offset)
    )


ARCHITECTURE = entry("general.architecture", 8, text("llama"))


def made(
    *, keys=(ARCHITECTURE,), rows=(), data=1024, magic=b"GGUF", version=3, n_tensors=None, n_kv=None
) -> bytes:
    """Return a file made of parts, right unless they say otherwise."""
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(rows) if n_tensors is None else n_tensors,
        len(keys) if n_kv is None else n_kv,
    )
    body = head + b"".join(keys) + b"".join(rows)
    return body + b"\0" * (-len(body) % 32) + b"\1" * data


TWO = (row("a", offset=0), row("b", offset=256))
FAULTY = {
    "nothing": (b"", "the header needs 4 bytes"),
    "another kind of file": (b"PK\3\4" + bytes(64), "does not begin with GGUF"),
    "version 1": (made(version=1), "version 1"),
    "big endian": (made(version=3 << 24), "other order of bytes"),
    "n_kv 2^61": (made(n_kv=2**61), "metadata keys, more than"),
    "n_tensors 2^63": (made(n_tensors=2**63), "tensors, more than"),
    "more keys than bytes": (made(n_kv=60_000), "a list of 60,000 metadata keys needs"),
    "key of 2^40 bytes": (made(keys=[struct.pack("<Q", 2**40)]), "the key has 1,099,511,627,776"),
    "key of no bytes": (made(keys=[text("") + bytes(5)]), "the key has 0 bytes"),
    "key that is not UTF-8": (made(keys=[text(b"\xff\xfe") + bytes(5)]), "not UTF-8"),
    "key twice": (made(keys=[ARCHITECTURE, ARCHITECTURE]), "is there twice"),
    "unknown value": (made(keys=[entry("a", 13, bytes(8))]), "values of type 13"),
    "text of 2^40 bytes": (made(keys=[entry("a", 8, struct.pack("<Q", 2**40))]), "the text needs"),
    "array of 2^62": (made(keys=[entry("a", 9, struct.pack("<IQ", 4, 2**62))]), "an array of"),
    "texts of 2^62": (made(keys=[entry("a", 9, struct.pack("<IQ", 8, 2**62))]), "an array of"),
    "array of unknown": (made(keys=[entry("a", 9, struct.pack("<IQ", 77, 1))]), "array of type 77"),
    "array in an array": (
        made(keys=[entry("a", 9, struct.pack("<IQ", 9, 1) * 2000)]),
        "an array in an array",
    ),
    **{
        f"alignment {value}": (
            made(keys=[entry("general.alignment", 4, struct.pack("<I", value))]),
            "the alignment is",
        )
        for value in (0, 1, 4, 33, 2**17, 2**31)
    },
    "alignment as text": (
        made(keys=[entry("general.alignment", 8, text("32"))]),
        "the alignment is 32",
    ),
    **{
        f"{key} {value}": (
            made(keys=[ARCHITECTURE, entry(f"llama.{key}", kind, struct.pack(form, value))]),
            f"'llama.{key}'",
        )
        for key, kind, form, value in (
            ("context_length", 4, "<I", 0),
            ("context_length", 4, "<I", 2**32 - 1),
            ("block_count", 4, "<I", 0),
            ("block_count", 4, "<I", 2**31),
            ("rope.dimension_count", 4, "<I", 0),
            ("rope.dimension_count", 4, "<I", 3),
            ("attention.layer_norm_rms_epsilon", 6, "<f", float("nan")),
            ("attention.layer_norm_rms_epsilon", 6, "<f", -1.0),
        )
    },
    "name of 64 bytes": (made(rows=[row("n" * 64)]), "the name has 64 bytes"),
    "no dimensions": (made(rows=[row("a", shape=(), dimensions=0)]), "it has 0 dimensions"),
    "five dimensions": (made(rows=[row("a", dimensions=5)]), "it has 5 dimensions"),
    "a dimension of 0": (made(rows=[row("a", shape=(32, 0))]), "its dimensions are 32 x 0"),
    "dimensions that overflow": (
        made(rows=[row("a", shape=(2**33, 2**33))]),
        "its dimensions are",
    ),
    "unknown type": (made(rows=[row("a", kind=4)]), "tensors of type 4"),
    "rows of half a block": (made(rows=[row("a", shape=(48, 2), kind=8)]), "no blocks of 32"),
    "tensor twice": (made(rows=[row("a"), row("a", offset=256)]), "it is there twice"),
    "offset past the end": (made(rows=[row("a", offset=2**40)]), "it takes bytes"),
    "offset that overflows": (made(rows=[row("a", offset=2**64 - 32)]), "it takes bytes"),
    "offset in between": (made(rows=[row("a", offset=7)]), "no multiple of 32"),
    "data cut off": (made(rows=TWO, data=511), "it takes bytes"),
    "overlap": (made(rows=[row("a"), row("b", offset=224)]), "it begins inside 'a'"),
}


def test_a_right_file_is_taken():
    alignment = entry("general.alignment", 4, struct.pack("<I", 64))
    layout = read_layout(io.BytesIO(made(keys=[ARCHITECTURE, alignment], rows=TWO)))
    assert layout.metadata == {"general.architecture": "llama", "general.alignment": 64}
    assert [(t.name, t.shape, t.type, t.bytes) for t in layout.tensors] == [
        ("a", (32, 2), "F32", 256),
        ("b", (32, 2), "F32", 256),
    ]
    assert layout.tensors[1].start - layout.tensors[0].start == 256
    read_layout(io.BytesIO(made(rows=TWO, data=512)))


@pytest.mark.parametrize("whole", [(), ("a",)], ids=["", "kept"])
@pytest.mark.parametrize(("data", "what"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_file_is_refused(data, what, whole):
    with pytest.raises(GgufError) as caught:
        read_layout(io.BytesIO(data), whole)
    assert what in str(caught.value)


def test_all_faults_of_the_tensor_table_are_told_at_once():
    data = made(rows=[row("a", offset=3), row("b", offset=2**30), row("c", offset=2**31)])
    with pytest.raises(GgufError) as caught:
        read_layout(io.BytesIO(data))
    assert [where for where, _ in caught.value.faults] == [
        "tensor 'a'",
        "tensor 'b'",
        "tensor 'c'",
    ]


def test_types_are_those_of_the_gguf_library():
    known = {int(t): (t.name, *sizes) for t, sizes in GGML_QUANT_SIZES.items()}
    assert known == gguf_file.TENSOR_TYPES


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A file written by the gguf library, with a value of every kind."""
    file = tmp_path_factory.mktemp("gguf") / "real.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(2048)
    writer.add_rope_freq_base(1e4)
    writer.add_add_bos_token(True)
    writer.add_token_list([f"token{n}" for n in range(40)])
    writer.add_token_types([1] * 40)
    writer.add_chat_template("{{ messages }}" * 400)
    writer.add_tensor("a", np.zeros((4, 32), np.float32))
    writer.add_tensor("b", np.zeros(7, np.float16))
    blocks = np.zeros((2, 34), np.uint8)
    writer.add_tensor("c", blocks, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_reads_what_the_gguf_library_reads(real):
    with real.open("rb") as stream:
        layout = read_layout(stream)
    reader = GGUFReader(real)
    assert list(layout.metadata) == [f for f in reader.fields if not f.startswith("GGUF.")]
    assert layout.metadata["llama.context_length"] == 2048
    assert layout.metadata["tokenizer.ggml.tokens"] == 40
    assert layout.metadata["tokenizer.chat_template"] is None
    assert [(t.name, list(t.shape), t.type, t.start, t.bytes) for t in layout.tensors] == [
        (t.name, t.shape.tolist(), t.tensor_type.name, t.data_offset, t.n_bytes)
        for t in reader.tensors
    ]


LONG = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.chat_template")


def test_what_is_asked_for_is_kept_whole(real):
    with real.open("rb") as stream:
        metadata = read_layout(stream, LONG).metadata
    assert metadata["tokenizer.ggml.tokens"] == [f"token{n}" for n in range(40)]
    assert metadata["tokenizer.ggml.token_type"] == [1] * 40
    assert metadata["tokenizer.chat_template"] == "{{ messages }}" * 400
    assert metadata["llama.context_length"] == 2048


def consistent(data: bytes) -> bool:
    """Return whether a file is taken; if so, every tensor lies in it and has its bytes alone.

    What is kept whole of its metadata changes nothing of that.
    """
    kept = taken(data, LONG)
    layout = taken(data)
    assert (kept and kept.tensors) == (layout and layout.tensors)
    if layout is None:
        return False
    ends = sorted((t.start, t.start + t.bytes) for t in layout.tensors)
    assert all(0 < start < end <= len(data) for start, end in ends)
    assert all(one[1] <= other[0] for one, other in pairwise(ends))
    assert len({t.name for t in layout.tensors}) == len(layout.tensors)
    return True


def taken(data: bytes, whole=()):
    """Return the layout of a file, or None if it is refused."""
    try:
        return read_layout(io.BytesIO(data), whole)
    except GgufError as error:
        assert error.faults
        return None


def test_cut_anywhere(real):
    data = real.read_bytes()
    data_start = read_layout(io.BytesIO(data)).tensors[0].start
    assert not any(consistent(data[:end]) for end in range(0, data_start, 7))
    assert not any(consistent(data[:end]) for end in range(data_start, len(data) - 32))
    assert consistent(data)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_no_mutation_makes_it_stumble(real, data):
    """Bytes are altered, numbers are replaced by hard ones, parts are taken out or doubled."""
    mutated = bytearray(real.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(mutated), 1500) - 1))
        kind = data.draw(st.sampled_from(["byte", "number", "cut", "double"]))
        if kind == "byte":
            mutated[at] = data.draw(st.integers(0, 255))
        elif kind == "number":
            value = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**40, 2**61, 2**64 - 1]))
            mutated[at : at + 8] = struct.pack("<Q", value)
        else:
            length = data.draw(st.integers(1, 64))
            part = mutated[at : at + length]
            mutated[at : at + length] = b"" if kind == "cut" else part * 2
    consistent(bytes(mutated))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_make_it_stumble(tail):
    consistent(b"GGUF" + struct.pack("<IQQ", 3, 2, 2) + tail)


@pytest.mark.parametrize("name", ["n_kv 2^61", "overlap", "nothing"])
def test_the_process_tells_where_and_what(tmp_path, name):
    data, what = FAULTY[name]
    file = tmp_path / "m.gguf"
    file.write_bytes(data)
    with pytest.raises(TunewrightError) as caught:
        require_gguf(file)
    assert caught.value.exit_code == 4
    (problem,) = caught.value.problems
    assert problem.code == "E_GGUF_INVALID"
    assert what in problem.message
    assert problem.where == str(file)


def test_the_process_takes_a_right_file(real):
    require_gguf(real)


def test_a_reader_that_takes_too_long_is_ended(real):
    with pytest.raises(TunewrightError, match=r"within 0\.001 seconds"):
        require_gguf(real, seconds=0.001)


def test_a_reader_that_dies_is_a_refusal(real, tmp_path, monkeypatch):
    script = tmp_path / "reader.py"
    script.write_text("import os\nos.abort()\n")
    monkeypatch.setattr(gguf_file, "__file__", str(script))
    with pytest.raises(TunewrightError, match="ended with -6"):
        require_gguf(real)
    assert gguf_check.gguf_file is gguf_file


def test_memory_is_bounded(tmp_path):
    """Keys that fill memory end at the limit, in the process that reads them."""
    file = tmp_path / "m.gguf"
    keys = [entry(f"{n:04d}" + "k" * 60_000, 0, b"\0") for n in range(1500)]
    file.write_bytes(made(keys=keys))
    code = "import gguf_file; gguf_file.MEMORY_BYTES = 80 * 2**20; gguf_file.main()"
    folder = Path(gguf_file.__file__).parent
    with file.open("rb") as stream:
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            stdin=stream,
            capture_output=True,
            cwd=folder,
            check=False,
        )
    assert b"needs more than 80 MB" in done.stdout
