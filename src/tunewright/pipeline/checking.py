"""A check of anything: of a run, or of data that has no config yet."""

from collections.abc import Sequence
from typing import Any

from tunewright import data
from tunewright.config.load import config_of_source
from tunewright.config.paths import usable_path
from tunewright.events import SILENT, Listener
from tunewright.pipeline.running import run_stage
from tunewright.targets import config_of, is_described

DRAFT_NAME_BYTES = 20
"""What the name of a folder gets besides while it is being written."""


def check_any(
    target: str,
    overrides: Sequence[str] = (),
    *,
    out: str | None = None,
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Return what a check finds as JSON values, for a config, a run, or data that has no config yet.

    With `out` the rows of the sources are repaired and written there.

    Raises:
        TunewrightError: As data.check and data.check_source do; E_NAME, `out` cannot be a path.
    """
    described = is_described(target)
    config = (
        config_of(target, overrides, note=listener.said)
        if described
        else config_of_source(target, overrides)
    )
    if out is not None:
        folder = usable_path(out, spare_bytes=DRAFT_NAME_BYTES)
        return data.repair(config, folder, listener=listener)
    if not described:
        return data.check_source(config, listener=listener)
    made = run_stage(config, "check", listener=listener)
    return {"path": str(made.path), **made.facts, "rendered": data.rendered(made)}
