"""Rows to a training and a held-out side: by source, in proportion, the same in any order of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from tunewright.data.near._shingles import hash_of, mixed
from tunewright.data.near.union import Union

SMALL_SET = 50
"""Rows under which a split has a floor, a ceiling and a warning."""
FEWEST_HELD = 2
OVERSHOOT = 1.5
"""A cluster is passed over where it would take a side to this multiple of its share."""
UNDERSHOOT = 0.95
"""Part of the share that is enough."""


@dataclass(frozen=True)
class Split:
    """What is held out.

    Attributes:
        held: Of each row, whether it is held out.
        share: Held-out characters as a share of all.
        notes: What a user should know about this split, in sentences.
    """

    held: NDArray[np.bool_]
    share: float
    notes: list[str]


@dataclass(frozen=True)
class _Clusters:
    """Figures of clusters, each an array with one value a cluster."""

    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]
    ranks: NDArray[np.uint64]


def content_digest(text: str) -> int:
    """Return a 64-bit number that stands for a text, the same in every process."""
    data = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(data, "little")


def clusters(
    groups: Sequence[int] | Sequence[str] | NDArray[np.int64], pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return each row's cluster, named by its first row.

    Rows with one group, and rows of a pair (i, j), directly or through others, are one cluster.
    """
    _, first, inverse = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    joined = Union(len(groups))
    parents = np.frombuffer(joined.parents, dtype=np.int32) if len(groups) else np.empty(0, "i4")
    parents[:] = first[inverse]
    for start in range(0, len(pairs), 10_000):
        for one, other in pairs[start : start + 10_000].tolist():
            joined.join(one, other)
    while not np.array_equal(parents, further := parents[parents]):
        parents[:] = further
    return parents.astype(np.int64)


def hold_out(
    together: NDArray[np.int64],
    lengths: Sequence[int] | NDArray[np.int64],
    digests: Sequence[int] | NDArray[np.uint64],
    *,
    share: float,
    seed: int,
    strata: Sequence[str | int | None] | None = None,
) -> Split:
    """Return whole clusters to hold out, about `share` of all characters and never all of them.

    Clusters are taken in the order of a hash of their rows' content and the seed, so neither the order
    nor the number of the rows plays a part; one that would overshoot the share by half is passed over.
    Each stratum is held out in the same share where its clusters are small enough for that. Of the
    other strata one cluster each is taken as long as the whole stays within the same bound.
    Under 50 rows, at least 2 rows and a tenth are held out, and never more than half.

    Args:
        together: Each row's cluster, as `clusters` returns them.
        lengths: Each row's length in characters.
        digests: Each row's `content_digest`.
        share: Part of the characters that is wanted.
        seed: Another seed gives another split.
        strata: Each row's stratum, such as its agent or style; None where it has none.

    Raises:
        ValueError: There are fewer than two clusters.
    """
    names, cluster_of = np.unique(together, return_inverse=True)
    if len(names) < 2:
        raise ValueError("all rows belong together")
    weights = np.asarray(lengths, dtype=np.int64)
    made = _figures(cluster_of, len(names), weights, np.asarray(digests, dtype=np.uint64), seed)
    parts, labels = _strata(strata, cluster_of, made)
    chooser = _Chooser(made, share)
    notes = _by_stratum(chooser, parts, labels)
    if len(together) < SMALL_SET:
        chooser.mind_small_sets()
    held = chooser.chosen[cluster_of]
    reached = float(weights[held].sum() / max(1, weights.sum()))
    return Split(held, reached, [*_remarks(held, reached, share), *notes])


def _figures(
    cluster_of: NDArray[np.int64],
    count: int,
    weights: NDArray[np.int64],
    digests: NDArray[np.uint64],
    seed: int,
) -> _Clusters:
    sizes = np.zeros(count, dtype=np.int64)
    np.add.at(sizes, cluster_of, weights)
    # a sum does not depend on the order of the rows
    ranks = np.zeros(count, dtype=np.uint64)
    np.add.at(ranks, cluster_of, mixed(digests ^ np.uint64(hash_of(f"split {seed}".encode()))))
    return _Clusters(sizes, np.bincount(cluster_of, minlength=count), mixed(ranks))


def _strata(
    strata: Sequence[str | int | None] | None, cluster_of: NDArray[np.int64], made: _Clusters
) -> tuple[list[NDArray[np.int64]], list[str]]:
    """Return the clusters of each stratum in the order of their ranks, and the strata's names.

    A cluster is of the stratum that most of its rows are of. Strata of one cluster, and rows without
    one, are the last stratum together.
    """
    ranked = np.lexsort((made.sizes, made.ranks))
    if strata is None:
        return [ranked], [""]
    names = sorted({str(s) for s in strata if s is not None})
    numbers = {name: n for n, name in enumerate(names)}
    of_row = np.array([-1 if s is None else numbers[str(s)] for s in strata], dtype=np.int64)
    keys, counts = np.unique(cluster_of * (len(names) + 1) + of_row + 1, return_counts=True)
    owner, stratum = np.divmod(keys, len(names) + 1)
    best = np.lexsort((-stratum, counts, owner))
    of_cluster = np.empty(len(made.sizes), dtype=np.int64)
    of_cluster[owner[best]] = stratum[best]
    sizes = np.bincount(of_cluster, minlength=len(names) + 1)
    own = np.flatnonzero(sizes >= 2)
    own = own[own > 0]
    # one sort puts the clusters of each stratum side by side, in the order of their ranks
    by_stratum = ranked[np.argsort(of_cluster[ranked], kind="stable")]
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    parts = [by_stratum[bounds[s] : bounds[s + 1]] for s in own.tolist()]
    rest = ranked[~np.isin(of_cluster[ranked], own)]
    labels = [names[s - 1] for s in own.tolist()]
    return ([*parts, rest], [*labels, ""]) if len(rest) else (parts, labels)


def _by_stratum(
    chooser: "_Chooser", parts: Sequence[NDArray[np.int64]], labels: Sequence[str]
) -> list[str]:
    """Choose clusters stratum by stratum; return a note on those that got none."""
    thin = [n for n, part in enumerate(parts) if not chooser.take_share(part)]
    smallest = {n: chooser.smallest(parts[n]) for n in thin}
    without: list[str] = []
    for n in sorted(thin, key=lambda n: (chooser.made.sizes[smallest[n]], labels[n])):
        if not (len(parts[n]) > 1 and chooser.take_if_it_fits(smallest[n])) and labels[n]:
            without.append(labels[n])
    if not chooser.chosen.any():
        chooser.take(chooser.smallest(np.arange(len(chooser.chosen))))
        without = without if len(parts) > 1 else []
    if not without:
        return []
    shown = ", ".join(sorted(without)[:5]) + (", ..." if len(without) > 5 else "")
    return [f"Nothing is held out of {shown}: their rows are too few, or hang together."]


class _Chooser:
    """Takes clusters, and knows how much has been taken."""

    def __init__(self, made: _Clusters, share: float) -> None:
        self.made = made
        self.chosen = np.zeros(len(made.sizes), dtype=np.bool_)
        self._share = share
        self._total = int(made.sizes.sum())
        self._held = 0

    def take(self, cluster: int) -> None:
        """Hold a cluster out."""
        self.chosen[cluster] = True
        self._held += int(self.made.sizes[cluster])

    def take_share(self, part: NDArray[np.int64]) -> bool:
        """Take about the share of a stratum, never all of it; return whether anything was taken."""
        sizes = self.made.sizes[part]
        wanted = self._share * float(sizes.sum())
        held, taken = 0, []
        for place, size in enumerate(sizes.tolist()):
            if held >= wanted * UNDERSHOOT or len(taken) == len(part) - 1:
                break
            if held + size <= wanted * OVERSHOOT:
                held += size
                taken.append(place)
        self.chosen[part[taken]] = True
        self._held += held
        return bool(taken)

    def smallest(self, part: NDArray[np.int64]) -> int:
        """Return the smallest cluster of some; of equal ones the first in rank."""
        return int(part[np.lexsort((self.made.ranks[part], self.made.sizes[part]))[0]])

    def take_if_it_fits(self, cluster: int) -> bool:
        """Take a cluster unless the whole would overshoot; return whether it was taken."""
        fits = self._held + self.made.sizes[cluster] <= self._share * self._total * OVERSHOOT
        if fits:
            self.take(cluster)
        return bool(fits)

    def mind_small_sets(self) -> None:
        """Take or give back clusters until 2 rows and a tenth, and at most half, are held out."""
        rows, total = self.made.rows, int(self.made.rows.sum())
        floor, ceiling = max(FEWEST_HELD, round(total / 10)), total // 2
        order = np.lexsort((self.made.ranks, rows)).tolist()
        for cluster in order:
            held = int(rows[self.chosen].sum())
            if held < floor and not self.chosen[cluster] and held + rows[cluster] <= ceiling:
                self.take(cluster)
        for cluster in order:
            excess = int(rows[self.chosen].sum()) - ceiling
            if excess > 0 and self.chosen[cluster] and self.chosen.sum() > 1:
                self.chosen[cluster] = False
        if int(rows[self.chosen].sum()) > ceiling:
            self.chosen[:] = False
            self.take(order[0])


def _remarks(held: NDArray[np.bool_], reached: float, share: float) -> list[str]:
    rows, count = len(held), int(held.sum())
    notes: list[str] = []
    if rows < SMALL_SET:
        notes.append(
            f"There are only {rows} rows: {count} of them are held out, too few for exact figures."
        )
    if not share / OVERSHOOT <= reached <= share * OVERSHOOT:
        notes.append(
            f"{reached:.0%} of the text is held out instead of {share:.0%}: rows that belong "
            "together make large clusters."
            if rows >= SMALL_SET
            else f"{reached:.0%} of the text is held out instead of {share:.0%}."
        )
    return notes
