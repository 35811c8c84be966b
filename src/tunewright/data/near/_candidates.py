"""Rows of one bucket to pairs that are worth an exact comparison."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALL_BUCKET = 32
"""Rows up to which every pair of a bucket is looked at."""
LEADERS = 64
"""Rows of a larger bucket that all its rows are compared with."""
ENOUGH = 4
"""Leaders that a row may resemble before it is left alone."""
PAIRS_AT_ONCE = 16_384
ROWS_AT_ONCE = 16_384

Pairs = NDArray[np.uint32]


@dataclass(frozen=True)
class Sieve:
    """Tells from one byte of each signature value whether two rows may be similar enough.

    The share of equal bytes estimates the Jaccard similarity; four standard errors on either side of
    the threshold are left to the exact comparison.

    Source: Li and König 2010, "b-Bit minwise hashing" (b = 8).

    Attributes:
        sketch_of: Returns the sketches of some rows, given by number in any order.
        possible: Equal bytes from which a pair is worth a comparison.
        certain: Equal bytes from which the two rows may stand for each other.
    """

    sketch_of: Callable[[NDArray[np.uint32]], NDArray[np.uint8]]
    possible: int
    certain: int

    def pairs(self, rows: NDArray[np.uint32], hashes: NDArray[np.uint64]) -> Iterator[Pairs]:
        """Yield pairs (i, j), i < j, out of the buckets of a part; rows with one hash are a bucket.

        Large buckets are compared with up to 64 leaders only, so the work stays proportional to the
        rows. A pair that shares such a bucket may be passed over there: it is still found in a band
        where its bucket is small, or both rows are found near the same leader.
        """
        order = np.lexsort((rows, hashes))
        rows, hashes = rows[order], hashes[order]
        starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
        sizes = np.diff(np.concatenate([starts, [len(rows)]]))
        for size in np.unique(sizes[sizes > 1]):
            these = starts[sizes == size]
            if size <= SMALL_BUCKET:
                yield from self._all_pairs(rows, these, int(size))
            else:
                for start in these:
                    yield from self._with_leaders(rows[start : start + size])

    def _all_pairs(
        self, rows: NDArray[np.uint32], starts: NDArray[np.int64], size: int
    ) -> Iterator[Pairs]:
        left, right = np.triu_indices(size, 1)
        step = max(1, PAIRS_AT_ONCE // len(left))
        for at in range(0, len(starts), step):
            some = starts[at : at + step, None]
            pairs = np.stack([rows[some + left].ravel(), rows[some + right].ravel()], axis=1)
            numbers, places = np.unique(pairs, return_inverse=True)
            sketches = self.sketch_of(numbers)
            places = places.reshape(pairs.shape)
            equal = np.count_nonzero(sketches[places[:, 0]] == sketches[places[:, 1]], axis=1)
            yield pairs[equal >= self.possible]

    def _with_leaders(self, rows: NDArray[np.uint32]) -> Iterator[Pairs]:
        leaders: list[tuple[int, NDArray[np.uint8]]] = []
        for at in range(0, len(rows), ROWS_AT_ONCE):
            slice_ = rows[at : at + ROWS_AT_ONCE]
            sketches = self.sketch_of(slice_)
            waiting = np.arange(len(slice_))
            met = np.zeros(len(slice_), dtype=np.int64)
            tried = 0
            while len(waiting):
                if tried == len(leaders):
                    if len(leaders) == LEADERS:
                        break
                    leaders.append((int(slice_[waiting[0]]), sketches[waiting[0]].copy()))
                    waiting = waiting[1:]
                row, sketch = leaders[tried]
                tried += 1
                equal = np.count_nonzero(sketches[waiting] == sketch, axis=1)
                alike = waiting[equal >= self.possible]
                met[alike] += 1
                yield np.stack([np.full(len(alike), row, dtype=np.uint32), slice_[alike]], axis=1)
                waiting = waiting[(equal < self.certain) & (met[waiting] < ENOUGH)]
