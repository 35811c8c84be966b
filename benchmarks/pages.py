"""Puts what was measured into a page of the docs, where every benchmark's table has its place."""

import re
from pathlib import Path


def fill(page: Path, mark: str, text: str) -> None:
    """Put a text between the lines `<!-- MARK:start -->` and `<!-- MARK:end -->` of a page.

    Raises:
        SystemExit: The page has no such place.
    """
    start, end = f"<!-- {mark}:start -->", f"<!-- {mark}:end -->"
    between = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    made, places = between.subn(
        lambda _: f"{start}\n{text}\n{end}", page.read_text(encoding="utf-8")
    )
    if places != 1:
        raise SystemExit(f"{page} has {places} places from {start} to {end}, and not one.")
    page.write_text(made, encoding="utf-8")
