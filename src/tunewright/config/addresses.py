"""Addresses of servers."""

from urllib.parse import urlsplit


def fault_of_endpoint(url: str) -> str | None:
    """Return what the address of an OpenAI-compatible endpoint should be, if it is not one."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    else:
        if parts.username or parts.password:
            return "an address without a key in it: keys come from the environment"
        if parts.query or parts.fragment:
            return "an address that ends before any '?' or '#'"
        usable = usable and url.isascii() and url.isprintable() and " " not in url
    return None if usable else "an address such as http://127.0.0.1:8000/v1"
