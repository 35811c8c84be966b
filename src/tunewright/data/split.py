"""Rows to a training and a held-out side, by source. Pure."""

import hashlib
from collections.abc import Hashable, Iterable, Sequence


def clusters(groups: Sequence[Hashable], linked: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return row numbers that must stay together: same group, or linked, directly or through others."""
    parent = list(range(len(groups)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[Hashable, int] = {}
    for row, group in enumerate(groups):
        parent[root(row)] = root(first.setdefault(group, row))
    for one, other in linked:
        parent[root(one)] = root(other)
    members: dict[int, list[int]] = {}
    for row in range(len(groups)):
        members.setdefault(root(row), []).append(row)
    return list(members.values())


def hold_out(
    together: Sequence[Sequence[int]], texts: Sequence[str], share: float, seed: int
) -> set[int]:
    """Return the rows to hold out: whole clusters, about `share` of all characters, never all of them.

    The choice depends on the rows' content and the seed, not on their order: clusters are taken in the
    order of a hash of their texts, and one that would overshoot the share by half is passed over.

    Raises:
        ValueError: There are fewer than two clusters.
    """
    if len(together) < 2:
        raise ValueError("all rows belong together")
    ranked = sorted(together, key=lambda rows: _rank((texts[r] for r in rows), seed))
    sizes = [sum(len(texts[r]) for r in rows) for rows in ranked]
    wanted = share * sum(sizes)
    chosen: list[int] = []
    held = 0.0
    for index, size in enumerate(sizes):
        if held >= wanted * 0.95 or len(chosen) == len(ranked) - 1:
            break
        if held + size <= wanted * 1.5:
            chosen.append(index)
            held += size
    if not chosen:
        chosen = [sizes.index(min(sizes))]
    return {row for index in chosen for row in ranked[index]}


def _rank(texts: Iterable[str], seed: int) -> str:
    digests = sorted(hashlib.sha256(text.encode()).hexdigest() for text in texts)
    return hashlib.sha256(f"{seed}{''.join(digests)}".encode()).hexdigest()
