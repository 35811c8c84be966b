"""Who is measured, with which flags. Of several variants the fastest on this machine counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Flags = Mapping[str, Any]
OWN, PLAIN, PLANTED = "ours", "transformers", "planted"
PLANTED_FACTOR = 1.05


@dataclass(frozen=True)
class Contender:
    """One of those who are measured.

    Attributes:
        script: File in peers/.
        variants: Flags to choose from.
        frugal: Flags for where none of these has memory enough: with gradient checkpointing, a row a pass.
        environment: Name in `environments.PACKAGES`; empty: that of Tunewright.
        gpu: It does not run without one.
    """

    script: str
    variants: Sequence[Flags] = ({},)
    frugal: Flags | None = None
    environment: str = ""
    gpu: bool = False


def _best(plain: Flags, *more: Flags) -> list[Flags]:
    """Return variants that pad less, beside others; the rows of a step come sorted by length."""
    return [*({**plain, "micro": rows} for rows in (8, 2, 1)), *({**plain, **one} for one in more)]


NO_RECOMPUTING = {"gradient_checkpointing": False}
FRUGAL = {"gradient_checkpointing": True, "micro": 1}
CONTENDERS: dict[str, Contender] = {
    OWN: Contender("with_tunewright.py"),
    PLAIN: Contender("with_transformers.py"),
    "transformers-best": Contender("with_transformers.py", _best({}), FRUGAL),
    "trl": Contender("with_trl.py"),
    "trl-best": Contender("with_trl.py", _best(NO_RECOMPUTING, {"padding_free": True}), FRUGAL),
    "llamafactory": Contender("with_llamafactory.py", environment="llamafactory"),
    "llamafactory-best": Contender(
        "with_llamafactory.py",
        _best({"disable_gradient_checkpointing": True}, {"packed": True}),
        # It is its default.
        {"micro": 1},
        environment="llamafactory",
    ),
    "unsloth": Contender("with_unsloth.py", environment="unsloth", gpu=True),
    "axolotl": Contender("with_axolotl.py", environment="axolotl", gpu=True),
}
"""`ours` runs with its defaults."""


def planted(learning_rate: float) -> Contender:
    """Return a contender that is wrong by 5 % of the learning rate: parity has to refuse it."""
    return Contender("with_transformers.py", [{"learning_rate": PLANTED_FACTOR * learning_rate}])
