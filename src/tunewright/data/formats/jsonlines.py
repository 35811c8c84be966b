"""JSON lines to records: one object a line. Pure."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tunewright.data.formats.jsontext import parse
from tunewright.data.formats.lines import Ends, text_of
from tunewright.data.formats.records import Record, Report, too_large, unreadable


def read_jsonlines(
    path: Path, numbered: Iterable[tuple[int, bytes | None]], ends: Ends, report: Report
) -> Iterator[Record]:
    """Yield the rows of physical lines; blank lines are counted and passed over.

    Args:
        path: For messages.
        numbered: Line number and line, None for one that is too long.
        ends: Where blank lines are counted.
        report: Called for every line that is no row.
    """
    for number, raw in numbered:
        if raw is None:
            report(unreadable(path, number, f"The line is {too_large()}."))
            continue
        if not raw.strip(b" \t"):
            ends.blank += 1
            continue
        try:
            row = parse(text_of(raw))
        except ValueError as error:
            report(unreadable(path, number, f"The line is not usable: {error}.", of=error))
        else:
            yield Record(row, number)
