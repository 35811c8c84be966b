"""How many rows of each form a file has, and where each form begins. Pure."""

from dataclasses import dataclass, field

from tunewright.data.formats.forms import Form


@dataclass
class Tally:
    """Counts rows by form as they are read.

    Attributes:
        counts: Rows of each form.
        first: Line of the first row of each form.
    """

    counts: dict[Form, int] = field(default_factory=dict)
    first: dict[Form, int] = field(default_factory=dict)

    def add(self, form: Form, line: int) -> None:
        """Count a row."""
        self.counts[form] = self.counts.get(form, 0) + 1
        self.first.setdefault(form, line)


def mixed(tally: Tally) -> str:
    """Return what a file with rows of several forms holds, in words; empty where all have one form."""
    if len(tally.counts) < 2:
        return ""
    parts = [f"{count:,} {form} from line {tally.first[form]:,}" for form, count in ranked(tally)]
    return f"rows of {len(parts)} forms: {'; '.join(parts)}"


def ranked(tally: Tally) -> list[tuple[Form, int]]:
    """Return forms and counts, the most frequent first."""
    return sorted(tally.counts.items(), key=lambda item: (-item[1], item[0]))
