"""Rows that belong together, directly or through others."""

from array import array


class Union:
    """Sets of rows that grow together; a set is named by its first row."""

    def __init__(self, rows: int) -> None:
        self.parents = array("i", range(rows))

    def first(self, row: int) -> int:
        """Return the first row of the set that a row is in."""
        parents = self.parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    def join(self, one: int, other: int) -> bool:
        """Make two rows' sets one; return whether they were two."""
        one, other = self.first(one), self.first(other)
        if one == other:
            return False
        self.parents[max(one, other)] = min(one, other)
        return True
