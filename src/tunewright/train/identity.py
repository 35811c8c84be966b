"""What a run was started from, compared when it is resumed."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import Problem, TunewrightError

ENVIRONMENT = frozenset({"device", "device_name", "threads", "world_size", "sharded", "dtype"})
"""Fields of the machine, not of the run: another value may change the last bits of the result."""
ENVIRONMENTS = ("versions.", "passes.")
"""Beginnings of more such fields: libraries, and how the rows of a step go through the model."""
TOLD = frozenset({"reasons", "asked", "gain", "finished", "set_aside"})
"""Fields that are kept and not compared: measured figures are never the same twice."""

_WAYS = {
    "rows_a_step": "Set train.per_device_train_batch_size and train.gradient_accumulation_steps so that their "
    "product, times the processes, is what it was"
}
_DIGEST = re.compile(r"[0-9a-f]{40,64}")
_ABSENT = object()
_LONGEST = 60


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the fields whose values differ, in order."""
    before, after = _flat(saved), _flat(now)
    return sorted(
        name
        for name in before.keys() | after.keys()
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    )


def require_same(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, allow_inexact: bool, where: Path
) -> list[str]:
    """Return the fields of the machine that differ and were allowed to.

    Args:
        saved: Identity of the run that is to be resumed.
        now: Identity of the run as it would be started now.
        allow_inexact: Whether the machine may be another one.
        where: The run, for the message.

    Raises:
        TunewrightError: E_RESUME_MISMATCH, what is trained, or how, has changed. E_RESUME_ENV, the machine
            has, and that was not allowed. Every field is named, with both values.
    """
    changed = differences(saved, now)
    machine = [name for name in changed if _is_environment(name)]
    fatal = [name for name in changed if name not in machine]
    before, after = _flat(saved), _flat(now)

    def problem(code: str, name: str, fix: str) -> Problem:
        values = f"{_shown(before.get(name, _ABSENT))}, now {_shown(after.get(name, _ABSENT))}"
        return Problem(code, f"'{name}' has changed: it was {values}.", str(where), fix)

    problems = [
        problem(
            "E_RESUME_MISMATCH",
            name,
            f"{_WAYS.get(name, 'Put it back')}; or `tunewright train ... --restart` begins again at step 0 and "
            "keeps the old checkpoints aside.",
        )
        for name in fatal
    ]
    if not allow_inexact:
        problems += [
            problem(
                "E_RESUME_ENV",
                name,
                "Put it back, or resume where the run was started; or `tunewright train ... --allow-inexact` goes on, "
                "not bit for bit the same.",
            )
            for name in machine
        ]
    if problems:
        raise TunewrightError(problems)
    return machine


def is_same_training(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether nothing but the machine differs."""
    return all(_is_environment(name) for name in differences(saved, now))


def _is_environment(name: str) -> bool:
    return name in ENVIRONMENT or name.startswith(ENVIRONMENTS)


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves by dotted name, as JSON gives them back: a tuple and a list are the same."""
    found: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                visit(f"{prefix}.{name}" if prefix else name, inner)
        else:
            found[prefix] = value

    for name, value in json.loads(json.dumps(dict(fields))).items():
        if name not in TOLD:
            visit(name, value)
    return found


def _shown(value: Any) -> str:
    """Return a value in a few characters; a long one by its digest, so that two differ in sight."""
    if value is _ABSENT:
        return "not there"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:12]
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 20]}... (SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"
