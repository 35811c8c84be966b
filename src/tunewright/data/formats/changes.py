"""What is done to the columns of rows and the keys of messages on their way to canonical rows, counted. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tunewright.data.formats.columns import listed

MOST_KEYS = 200
"""Keys of messages that are counted by name."""
OTHERS = "other keys"


@dataclass
class Changes:
    """Collects what was done to the rows of a file.

    Attributes:
        renamed: Columns that got another name, since theirs has a meaning here.
        left_out: How often each key of messages that is not used was there.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def leave_out(self, keys: Iterable[str]) -> None:
        """Count keys of messages."""
        for key in keys:
            known = key in self.left_out or len(self.left_out) < MOST_KEYS
            self.left_out[key if known else OTHERS] += 1

    def notes(self) -> list[str]:
        """Return what is worth saying, in words."""
        said: list[str] = []
        if self.renamed:
            pairs = ", ".join(f"{old} -> {new}" for old, new in self.renamed.items())
            said.append(f"columns renamed: {pairs}")
        if self.left_out:
            counts = [f"{key} ({times(count)})" for key, count in self.left_out.most_common()]
            said.append(f"messages have keys that are left out: {listed(counts)}")
        return said


def times(count: int) -> str:
    """Return a number of times in words."""
    return "once" if count == 1 else f"{count:,} times"
