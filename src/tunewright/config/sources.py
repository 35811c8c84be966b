"""How data are named."""

import re
from pathlib import Path, PurePath

from tunewright.config.paths import fault_of

ELSEWHERE = ("hub:", "sample:")
"""Beginnings of sources that are no paths."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILE = re.compile(
    r"(?i)\.(jsonl?|ndjson|csv|tsv|parquet|arrow|feather|te?xt|md|markdown|docx|epub|fountain|settings|gz|zst)"
)


def source_path(given: str) -> str:
    """Return data as `prepare.source` names it: `org/name` that is no path here is a Hub dataset."""
    if given.startswith(ELSEWHERE) or fault_of(given) is not None:
        return given
    name = _HUB_NAME.fullmatch(given) and not _FILE.fullmatch(PurePath(given).suffix)
    return f"hub:{given}" if name and not Path(given).exists() else given
