"""Where metrics go beside the metrics log: what is installed, and what W&B may do. Pure."""

import netrc
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from tunewright.config.schema import TrainSection
from tunewright.errors import Problem

WANDB_HOST = "api.wandb.ai"
"""Where W&B was for most of its life: keys in netrc files are under this name."""
OFFLINE = ("offline", "dryrun", "disabled")


def missing_trackers(options: TrainSection) -> list[Problem]:
    """Return a problem for each package that `report_to` needs and that is not installed."""
    return [
        Problem(
            "E_CONFIG_VALUE",
            f"'train.report_to' has {name}, which is not installed.",
            "train.report_to",
            f"pip install 'tunewright[{name}]'",
        )
        for name in options.report_to
        if find_spec(name) is None
    ]


def wandb_mode(environment: Mapping[str, str], default_url: str) -> str:
    """Return how W&B is used: as WANDB_MODE says, but `offline` where there is no key to send with.

    Args:
        environment: Variables of the environment.
        default_url: Where the installed W&B sends to unless WANDB_BASE_URL says otherwise.
    """
    mode = environment.get("WANDB_MODE", "online")
    if mode in OFFLINE or environment.get("WANDB_API_KEY"):
        return mode
    own = environment.get("WANDB_BASE_URL")
    hosts = {urlsplit(own or default_url).hostname or "", *(() if own else (WANDB_HOST,))}
    return mode if _has_key(environment, hosts) else "offline"


def _has_key(environment: Mapping[str, str], hosts: Iterable[str]) -> bool:
    """Return whether the netrc file has a key for one of the hosts."""
    named = environment.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            known = netrc.netrc(file)
        except (OSError, netrc.NetrcParseError):
            continue
        if any(known.authenticators(host) for host in hosts):
            return True
    return False
