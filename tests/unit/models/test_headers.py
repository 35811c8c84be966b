"""Every rule of the safetensors format has a file that breaks it, and the library's own files keep all."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file

from tunewright.models.headers import (
    BITS,
    MAX_HEADER_BYTES,
    HeaderError,
    check_safetensors,
    parse_header,
    read_header,
)


def entry(begin: int, end: int, **other: Any) -> dict[str, Any]:
    values = {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}
    return values | other


def written(path: Path, header: Any, data: int = 16, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * data
    )
    return path


def test_what_the_library_writes_is_sound(tmp_path):
    tensors = {
        "a": torch.zeros(3, 4),
        "empty": torch.zeros(0, 7),
        "scalar": torch.tensor(1.0, dtype=torch.bfloat16),
        "ids": torch.arange(5),
    }
    file = tmp_path / "a.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    header = read_header(file)
    assert {name: x.shape for name, x in header.items()} == {
        name: tuple(x.shape) for name, x in tensors.items()
    }
    assert (header["scalar"].dtype, header["ids"].dtype) == ("BF16", "I64")
    assert check_safetensors(file) == []
    assert check_safetensors(written(tmp_path / "none", {}, 0)) == []


BROKEN = {
    "it is cut off in 'b': 8 bytes are missing": {"a": entry(0, 8), "b": entry(8, 24)},
    "8 bytes after 'a' belong to no tensor": {"a": entry(0, 8)},
    "4 bytes between 'a' and 'b' belong to no tensor": {"a": entry(0, 8), "b": entry(12, 16)},
    "4 bytes between the header and 'a' belong to no tensor": {"a": entry(4, 16)},
    "'b' overlaps 'a'": {"a": entry(0, 12), "b": entry(8, 16)},
    "'a' is F32 [3] and has 16 bytes, not 12": {"a": entry(0, 16, shape=[3])},
    "'a' is F16 [4] and has 16 bytes, not 8": {"a": entry(0, 16, dtype="F16")},
    "'a' is of the unknown type 'F31'": {"a": entry(0, 16, dtype="F31")},
    "'a' is of the unknown type '7'": {"a": entry(0, 16, dtype=7)},
    "'a' has a shape that is no list of sizes": {"a": entry(0, 16, shape=[-4])},
    "'b' has a shape that is no list of sizes": {"b": entry(0, 16, shape=[4.0])},
    "'c' has a shape that is no list of sizes": {"c": entry(0, 16, shape=[True, 4])},
    "'d' has a shape that is no list of sizes": {"d": entry(0, 16, shape=4)},
    "'a' has offsets that are no range": {"a": entry(0, 16, data_offsets=[16, 0])},
    "'b' has offsets that are no range": {"b": entry(0, 16, data_offsets=[0])},
    "'c' has offsets that are no range": {"c": entry(0, 16, data_offsets=[0, 2**64])},
    "'a' does not have just dtype, shape and data_offsets": {"a": entry(0, 16, more=1)},
    "'b' does not have just dtype, shape and data_offsets": {"b": [1]},
    "'__metadata__' holds more than texts": {"__metadata__": {"a": 1}, "a": entry(0, 16)},
    "the header does not begin with '{'": [1],
    "the header is not JSON": b'{"a": ',
    "'a' is there twice": b'{"a": %b, "a": %b}' % ((json.dumps(entry(0, 16)).encode(),) * 2),
    "'dtype' is there twice": b'{"a": {"dtype": "F16", "dtype": "F32"}}',
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_rule_is_named(tmp_path, reason):
    assert check_safetensors(written(tmp_path / "a", BROKEN[reason])) == [reason]


def test_what_is_too_deep_or_not_text_is_no_json(tmp_path):
    for text in (b'{"a":' * 100_000, b'{"\xff": 1}', b'{"a": ' + b"9" * 5000 + b"}"):
        assert check_safetensors(written(tmp_path / "a", text)) == ["the header is not JSON"]


def test_a_length_that_cannot_be(tmp_path):
    huge = written(tmp_path / "a", {}, length=MAX_HEADER_BYTES + 1)
    assert check_safetensors(huge) == ["the header has 100,000,001 bytes, more than 100,000,000"]
    assert check_safetensors(written(tmp_path / "a", {}, length=500)) == [
        "it is cut off in the header"
    ]
    (tmp_path / "a").write_bytes(b"\0" * 7)
    assert check_safetensors(tmp_path / "a") == ["it is cut off before the header"]


def test_all_that_is_wrong_is_said_at_once():
    header = {"a": entry(0, 16, dtype="F31"), "b": entry(0, 16, shape=[])}
    with pytest.raises(HeaderError) as caught:
        parse_header(json.dumps(header).encode(), 16)
    assert len(caught.value.reasons) == 2


SIZES = st.lists(st.integers(0, 5), max_size=3)
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64, "BOOL": torch.bool}


@given(st.dictionaries(st.text(max_size=5), st.tuples(st.sampled_from(sorted(DTYPES)), SIZES)))
@settings(max_examples=50, deadline=None)
def test_every_file_of_the_library_is_read_as_it_is(form):
    form.pop("__metadata__", None)
    raw = save(
        {name: torch.zeros(shape, dtype=DTYPES[dtype]) for name, (dtype, shape) in form.items()}
    )
    (length,) = struct.unpack("<Q", raw[:8])
    found = parse_header(raw[8 : 8 + length], len(raw) - 8 - length)
    assert {name: (x.dtype, list(x.shape)) for name, x in found.items()} == form


@pytest.fixture(scope="module")
def sound() -> bytes:
    return save({"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.float16)}, {"k": "v"})


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_what_we_take_the_library_takes(sound, tmp_path_factory, data):
    """A changed file is refused in words, or is one that the library reads too."""
    raw = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.sampled_from([*b'0123456789"{}[],:- F', 0, 255]))
    file = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    file.write_bytes(raw[: data.draw(st.integers(0, len(raw))) or None])
    reasons = check_safetensors(file)
    try:
        with safe_open(file, framework="pt") as stream:
            taken = set(stream.keys())
    except SafetensorError:
        taken = None
    if not reasons:
        assert taken == set(read_header(file))


def test_types_are_those_of_the_library(tmp_path):
    for dtype, bits in BITS.items():
        size = 8 * bits // 8
        one = {"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}
        file = written(tmp_path / "a.safetensors", one, size)
        assert check_safetensors(file) == []
        with safe_open(file, framework="pt") as stream:
            assert list(stream.keys()) == ["a"]
