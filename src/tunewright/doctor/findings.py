"""What a look at this machine finds."""

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: packages, machine, device, tools, disk, hub or store.
        name: What it is.
        state: good; note, something does not work that not everybody needs; bad, something that has to be mended.
        text: What was found.
        fix: What to do; empty where there is nothing to do.
    """

    area: str
    name: str
    state: State
    text: str
    fix: str = ""
