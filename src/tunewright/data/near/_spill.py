"""Records that are collected on disk and read again part by part."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARTS = 256
BUFFER_BYTES = 16 * 2**20


class Spill:
    """A file of fixed-size records in 256 parts.

    Records gather in memory until there are 16 MB of them; then they are sorted by part and added to
    the file as one run. A part is the sum of its pieces in all runs.
    """

    def __init__(self, path: Path, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        self._file = path.open("w+b")
        self._waiting: list[tuple[NDArray[np.void], NDArray[np.uint8]]] = []
        self._waiting_bytes = 0
        self._runs: list[NDArray[np.int64]] = []
        self._records = 0

    def add(self, records: NDArray[np.void], parts: NDArray[np.uint8]) -> None:
        """Add records, each to its part."""
        self._waiting.append((records, parts))
        self._waiting_bytes += records.nbytes
        if self._waiting_bytes >= BUFFER_BYTES:
            self._flush()

    def part(self, number: int) -> NDArray[np.void]:
        """Return the records of a part, in the order in which they were added."""
        self._flush()
        sizes = [int(bounds[number + 1] - bounds[number]) for bounds in self._runs]
        records = np.empty(sum(sizes), dtype=self._dtype)
        filled = 0
        for bounds, size in zip(self._runs, sizes, strict=True):
            if size:
                self._file.seek(int(bounds[number]) * self._dtype.itemsize)
                self._file.readinto(records[filled : filled + size].view(np.uint8).data)
                filled += size
        return records

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        records = np.concatenate([r for r, _ in self._waiting])
        parts = np.concatenate([p for _, p in self._waiting])
        self._waiting, self._waiting_bytes = [], 0
        self._file.seek(0, 2)
        self._file.write(records[np.argsort(parts, kind="stable")].tobytes())
        counts = np.bincount(parts, minlength=PARTS)
        self._runs.append(self._records + np.concatenate([[0], np.cumsum(counts)]))
        self._records += len(records)
