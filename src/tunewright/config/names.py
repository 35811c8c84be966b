"""Names that become files and folders."""

import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))]
)


def check_name(name: str) -> str:
    """Return the name if it is safe as a file name on every system.

    Raises:
        ValueError: It is not: says what is allowed.
    """
    if not _NAME.fullmatch(name) or name.endswith(".") or name.split(".")[0].lower() in _RESERVED:
        raise ValueError(
            "use 1 to 100 letters, digits, dots, hyphens and underscores, starting with a letter or digit"
        )
    return name


def usable_name(text: str) -> str | None:
    """Return a text as a name, or None where nothing of it can be one."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:100].strip(".-_")
    try:
        return check_name(name)
    except ValueError:
        return None
