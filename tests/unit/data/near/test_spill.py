import numpy as np
import pytest

from tunewright.data.near import _spill
from tunewright.data.near._spill import Spill

DTYPE = np.dtype([("key", "<u8"), ("row", "<u4")])


@pytest.mark.parametrize("buffer", [1, 1000, 10**9])
def test_parts_come_back_in_order(tmp_path, monkeypatch, buffer):
    monkeypatch.setattr(_spill, "BUFFER_BYTES", buffer)
    rng = np.random.default_rng(1)
    spill, expected = Spill(tmp_path / "x", DTYPE), {}
    for _ in range(20):
        records = np.zeros(rng.integers(0, 60), dtype=DTYPE)
        records["row"] = rng.integers(0, 10**6, len(records))
        parts = rng.integers(0, 4, len(records)).astype(np.uint8) * np.uint8(85)
        spill.add(records, parts)
        for record, part in zip(records.tolist(), parts.tolist(), strict=True):
            expected.setdefault(part, []).append(record)
    for part in (0, 1, 85, 170, 255):
        assert spill.part(part).tolist() == expected.get(part, [])
    spill.add(np.ones(1, dtype=DTYPE), np.array([1], dtype=np.uint8))
    assert spill.part(1).tolist() == [(1, 1)]
    spill.close()


def test_an_empty_spill_has_empty_parts(tmp_path):
    spill = Spill(tmp_path / "x", DTYPE)
    assert len(spill.part(0)) == 0
    spill.close()
