"""A test fails that begins a process with a secret among its words: anybody on the machine can list them (S10)."""

import os
import sys
from collections.abc import Iterable

VARIABLES = (
    "HF_TOKEN",
    "OPENAI_API_KEY",
    "TUNEWRIGHT_API_KEY",
    "VLLM_API_KEY",
    "WANDB_API_KEY",
)
SHORTEST = 6
"""Characters: shorter values are those of tests that need none, and words of many commands."""


def watch() -> None:
    """Look at every process that this one begins, for as long as it lives."""
    sys.addaudithook(_heard)


def _heard(event: str, given: tuple[object, ...]) -> None:
    if event == "subprocess.Popen":
        words = given[1]
        require_none(words if isinstance(words, list | tuple) else [words])


def require_none(words: Iterable[object]) -> None:
    """Raise if a secret of the environment is in one of the words of a command."""
    said = "\0".join(os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in words)
    for name in VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= SHORTEST and secret in said:
            raise AssertionError(f"a process is begun with the value of {name} among its words")
