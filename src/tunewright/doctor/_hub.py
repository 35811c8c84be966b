"""Whether the Hub can be reached, and what its token may do."""

from collections.abc import Iterator

import httpx
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from tunewright.doctor.findings import Finding

SECONDS = 10.0
NEEDED = "The bundled base and models in folders need no Hub."


def hub() -> Iterator[Finding]:
    """Give findings on the Hub and on the token."""
    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        fix = f"Unset HF_HUB_OFFLINE to fetch and push. {NEEDED}"
        yield Finding("hub", "Hub", "note", "HF_HUB_OFFLINE is set", fix)
        return
    try:
        answer = httpx.get(f"{endpoint}/api/models?limit=1", timeout=SECONDS)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        text = f"{endpoint} cannot be reached: {error or type(error).__name__}"
        fix = f"Check the network, HTTPS_PROXY and HF_ENDPOINT. {NEEDED}"
        yield Finding("hub", "Hub", "note", text, fix)
        return
    yield Finding("hub", "Hub", "good", f"{endpoint} answers")
    yield token()


def token() -> Finding:
    """Return the finding on the token, which is never shown."""
    known = get_token()
    if known is None:
        fix = "For private and gated models: make one at huggingface.co/settings/tokens, and set HF_TOKEN."
        return Finding("hub", "token", "note", "none", fix)
    try:
        who = HfApi(token=known).whoami()
    except (HfHubHTTPError, httpx.HTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        text = f"the Hub does not take it ({status or type(error).__name__})"
        fix = "Make another at huggingface.co/settings/tokens, and set HF_TOKEN."
        return Finding("hub", "token", "bad", text, fix)
    access = who.get("auth", {}).get("accessToken", {})
    role = str(access.get("role", "unknown role"))
    text = f"that of {who.get('name')}, {role}"
    if role == "read":
        return Finding("hub", "token", "note", text, "To push, it has to have the right to write.")
    return Finding("hub", "token", "good", text)
