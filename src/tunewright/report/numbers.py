"""Numbers as people read them; a dash for what is none."""

import math
from collections.abc import Mapping
from typing import Any

NONE = "–"


def as_number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def num(value: object, digits: int = 2) -> str:
    """Return a number for reading."""
    number = as_number(value)
    if number is None:
        return NONE
    if isinstance(number, int):
        return f"{number:,}"
    if number and abs(number) < 10**-digits:
        return f"{number:.1e}"
    return f"{number:,.{digits}f}"


def percent(value: object, digits: int = 1) -> str:
    """Return a share as percent."""
    number = as_number(value)
    return NONE if number is None else f"{100 * number:.{digits}f} %"


def ends(estimate: Mapping[str, Any], digits: int = 1, *, share: bool = False) -> str:
    """Return an interval's `low` and `high` for reading; `share`: as percent. Without them it is empty."""
    low, high = (as_number(estimate.get(end)) for end in ("low", "high"))
    if low is None or high is None:
        return ""
    scale, unit = (100, " %") if share else (1, "")
    return f"{scale * low:,.{digits}f} to {scale * high:,.{digits}f}{unit}"


def size(value: object) -> str:
    """Return a number of bytes in MB, from a GB on in GB."""
    number = as_number(value)
    if number is None:
        return NONE
    return f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def clock(value: object) -> str:
    """Return a number of seconds in the two units that matter."""
    number = as_number(value)
    if number is None:
        return NONE
    if round(number) < 60:
        return f"{number:.0f} s" if number >= 10 else f"{number:.1f} s"
    minutes, seconds = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def above(estimate: Mapping[str, Any], still: float) -> int | None:
    """Return 1 or -1 if the whole interval is above or below `still`, 0 if not, None if there is none."""
    low, high = (as_number(estimate.get(end)) for end in ("low", "high"))
    if low is None or high is None:
        return None
    return 1 if low > still else -1 if high < still else 0
