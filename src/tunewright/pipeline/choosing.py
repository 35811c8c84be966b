"""Which stages a command is about."""

from collections.abc import Sequence

from tunewright.errors import Problem, TunewrightError
from tunewright.pipeline.steps import STAGES, Stage


def chosen(
    *, until: str | None, start: str | None, only: Sequence[str]
) -> tuple[tuple[Stage, ...], bool]:
    """Return the stages to go through in their order, and whether they are done anew even if they are finished.

    Raises:
        TunewrightError: E_USAGE, for every name that is no stage, and for a choice that
            contradicts itself.
    """
    known = STAGES
    given = {
        "--until": [until] if until else [],
        "--from": [start] if start else [],
        "--only": only,
    }
    problems = [
        Problem("E_USAGE", f"'{name}' is no stage.", flag, f"Name one: {_all(known)}.")
        for flag, names in given.items()
        for name in names
        if name not in known
    ]
    if only and (until or start):
        fix = "Give --only alone, or --from and --until."
        problems.append(
            Problem("E_USAGE", "--only names the stages by itself.", "tunewright run", fix)
        )
    if problems:
        raise TunewrightError(problems)
    if only:
        return tuple(stage for stage in known if stage in only), True
    names: tuple[str, ...] = known
    first = names.index(start) if start else 0
    last = names.index(until) if until else len(known) - 1
    if first > last:
        message = f"'{start}' comes after '{until}': nothing is left to do."
        problem = Problem("E_USAGE", message, "--from", f"The order is: {_all(known)}.")
        raise TunewrightError([problem])
    return known[first : last + 1], start is not None


def _all(stages: Sequence[str]) -> str:
    return ", ".join(stages)
