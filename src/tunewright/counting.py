"""Numbers of things in words. Pure."""


def counted(count: int, one: str, several: str | None = None) -> str:
    """Return how many there are: `1 row`, `2,000 rows`.

    Args:
        count: Number of things.
        one: What one is called.
        several: What several are called; unset: with an s.
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
