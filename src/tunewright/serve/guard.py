"""Who may ask: the address that is bound, the API key, and what pages of other sites are kept from. Pure."""

import hmac
import ipaddress
import os
from collections.abc import Sequence

from tunewright.errors import failure

KEY = "TUNEWRIGHT_API_KEY"
"""Environment variable with the API key: neither config nor command line, which others can read."""
LOCAL = ("localhost", "127.0.0.1", "::1")


def api_key() -> str | None:
    """Return the key that requests have to show; None: none is set."""
    return os.environ.get(KEY, "").strip() or None


def is_local(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def require_guarded(host: str, key: str | None, *, allow_without_key: bool) -> None:
    """Refuse an address that others can reach where nothing keeps them out.

    Raises:
        TunewrightError: E_CONFIG_VALUE.
    """
    if key is None and not is_local(host) and not allow_without_key:
        raise failure(
            "E_CONFIG_VALUE",
            f"Anyone who can reach {host} could use the model: there is no API key.",
            where="serve.host",
            fix=f"Set {KEY} in the environment; or `--allow-without-key`, where that is meant.",
        )


def shows_key(header: str | None, key: str | None) -> bool:
    """Return whether an Authorization header has the key; the time it takes tells nothing of the key."""
    scheme, _, given = (header or "").partition(" ")
    # Headers arrive as Latin-1, whatever their bytes mean.
    shown = given.strip().encode("latin-1", errors="replace")
    return key is None or (hmac.compare_digest(shown, key.encode()) and scheme.lower() == "bearer")


def names_us(headers: Sequence[str], host: str) -> bool:
    """Return whether a request was sent to this machine by a name of its own.

    A page can let a name of its own point here; its requests then come with that name.
    """
    if len(headers) != 1:
        return False
    name = headers[0].rpartition(":")[0] if headers[0].rpartition(":")[2].isdigit() else headers[0]
    return name.strip("[]").lower() in (*LOCAL, host.strip("[]").lower())
