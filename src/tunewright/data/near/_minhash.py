"""MinHash signatures, and how they are cut into bands."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunewright.data.near._shingles import Shingled, constants, mixed

MOST_MISSED = 0.005
"""Chance at which a pair right at the threshold may be overlooked."""


@dataclass(frozen=True)
class Banding:
    """A signature's `bands` bands of `rows` values each."""

    bands: int
    rows: int

    @property
    def values(self) -> int:
        """Values of a signature that are used."""
        return self.bands * self.rows

    def missed(self, similarity: float) -> float:
        """Return the chance that two texts of this Jaccard similarity share no band.

        Source: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", 3rd ed., section 3.4.2.
        """
        return (1 - similarity**self.rows) ** self.bands


def banding(threshold: float, permutations: int) -> Banding:
    """Return the most selective bands that still find nearly all pairs at the threshold."""
    found = Banding(permutations, 1)
    for rows in range(2, permutations + 1):
        longer = Banding(permutations // rows, rows)
        if longer.missed(threshold) <= MOST_MISSED:
            found = longer
    return found


class MinHasher:
    """Makes signatures and band hashes of one shape."""

    def __init__(self, shape: Banding) -> None:
        self.shape = shape
        # 32 random bits are enough: a text has far fewer than 2^32 shingles
        self._factors = (constants("minhash factor", shape.values) >> np.uint64(32)).astype(
            np.uint32
        ) | np.uint32(1)
        self._offsets = (constants("minhash offset", shape.values) >> np.uint64(32)).astype(
            np.uint32
        )
        self._within = constants("band", shape.rows)
        self._bands = constants("band number", shape.bands)

    def signatures(self, shingled: Shingled) -> NDArray[np.uint32]:
        """Return each text's signature, (texts, values).

        Two signatures agree in a value with the chance that is the texts' Jaccard similarity. A
        permutation is x -> a x + b modulo 2^32 with odd a, over hashes that are random already.

        Source: Broder 1997, "On the resemblance and containment of documents"; Broder and others 2000,
        "Min-wise independent permutations" (linear permutations).
        """
        hashes = (shingled.hashes >> np.uint64(32)).astype(np.uint32)
        scratch = np.empty_like(hashes)
        found = np.empty((self.shape.values, len(shingled.starts)), dtype=np.uint32)
        for value in range(self.shape.values):
            np.multiply(hashes, self._factors[value], out=scratch)
            np.add(scratch, self._offsets[value], out=scratch)
            np.minimum.reduceat(scratch, shingled.starts, out=found[value])
        return np.ascontiguousarray(found.T)

    def band_hashes(self, signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return a hash of every band of every text, (texts, bands); bands never share a hash."""
        shape = (len(signatures), self.shape.bands, self.shape.rows)
        values = signatures.astype(np.uint64).reshape(shape)
        return mixed((values * self._within).sum(axis=2, dtype=np.uint64) + self._bands)
