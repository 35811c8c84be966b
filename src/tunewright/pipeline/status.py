"""How a run stands, told without doing anything: for `status`, and for a run that is only tried."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunewright.config.schema import Config
from tunewright.errors import TunewrightError
from tunewright.events import SILENT, Listener
from tunewright.pipeline.announcing import Running, running
from tunewright.pipeline.choosing import chosen
from tunewright.pipeline.logbook import seconds_of
from tunewright.pipeline.state import ASKED_FOR, Standing, survey
from tunewright.pipeline.steps import STEPS, Stage
from tunewright.publish.versions.manifest import refusals
from tunewright.targets import CONFIG_FILE, config_of, is_described
from tunewright.train.history import TRAINING, Reader
from tunewright.train.lock import holder

State = Literal["done", "missing", "outdated", "running", "interrupted", "refused"]


@dataclass(frozen=True)
class StageStatus:
    """How a stage stands.

    Attributes:
        stage: Its name.
        state: `missing` was never done or is gone, `outdated` would be made otherwise now, `interrupted` goes on
            from where it was stopped, `refused` is a publishing that the gates do not let pass.
        reasons: Why it is not done.
        created: When it was done; ISO time, UTC.
        seconds: Time it took, as the log says.
        size_bytes: What it takes on the disk.
        gates_passed: Of those that it has.
        gates: Number of gates.
        process: Which does it now.
    """

    stage: Stage
    state: State
    reasons: tuple[str, ...] = ()
    created: str | None = None
    seconds: float | None = None
    size_bytes: int = 0
    gates_passed: int = 0
    gates: int = 0
    process: Running | None = None


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        run: Its folder.
        stages: In their order; none where its config cannot be read.
        verdict: Of the comparison.
        next: What to type.
        fault: Why its config cannot be read.
    """

    run: str
    stages: tuple[StageStatus, ...] = ()
    verdict: str | None = None
    next: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Tried:
    """What a run would do with a stage.

    Attributes:
        stage: Its name.
        would: Skip it, do it, or do it again.
        reasons: Why it would be done again.
    """

    stage: Stage
    would: Literal["skip", "do", "again"]
    reasons: tuple[str, ...] = ()


def runs_in(target: str) -> Path | None:
    """Return the folder that a target is, if it is no run and holds some.

    Raises:
        TunewrightError: E_NAME, it cannot be a path.
    """
    if is_described(target):
        return None
    folder = Path(target)
    return folder if any(folder.glob(f"*/{CONFIG_FILE}")) else None


def status(config: Config, target: str, *, listener: Listener = SILENT) -> RunStatus:
    """Return how a run stands; `target` is what the user calls it.

    Files are not hashed: `verify` does.
    """
    run_dir = Path(config.run_dir)
    table = survey(config, listener)
    busy = {one.stage: one for one in running(run_dir)}
    took = seconds_of(run_dir)
    training = holder(run_dir / TRAINING)
    if training and "train" not in busy:
        busy["train"] = Running("train", training.pid, training.host, training.since)
    stages = tuple(
        _status(run_dir, stage, one, table, busy.get(stage), took.get(stage))
        for stage, one in table.items()
    )
    evaluation = table["compare"].artifact
    verdict = evaluation.facts.get("verdict") if evaluation else None
    return RunStatus(str(run_dir), stages, verdict, _next(config, target, stages))


def statuses(
    folder: Path, overrides: Sequence[str] = (), *, listener: Listener = SILENT
) -> list[RunStatus]:
    """Return how each run in a folder stands; one whose config cannot be read has a `fault`."""
    found: list[RunStatus] = []
    for file in sorted(folder.glob(f"*/{CONFIG_FILE}")):
        run = str(file.parent)
        try:
            found.append(status(config_of(run, overrides), run, listener=listener))
        except TunewrightError as error:
            found.append(RunStatus(run, fault=error.problems[0].message))
    return found


def tried(
    config: Config,
    *,
    until: str | None = None,
    start: str | None = None,
    only: Sequence[str] = (),
    listener: Listener = SILENT,
) -> list[Tried]:
    """Return what `run` with the same arguments would do with each stage, and why.

    Raises:
        TunewrightError: E_USAGE, the choice of stages contradicts itself.
    """
    stages, anew = chosen(until=until, start=start, only=only)
    table = survey(config, listener)
    return [_tried(stage, table[stage], anew=anew) for stage in stages]


def _tried(stage: Stage, one: Standing, *, anew: bool) -> Tried:
    if anew and one.artifact:
        return Tried(stage, "again", (ASKED_FOR,))
    if one.finished:
        return Tried(stage, "skip")
    return Tried(stage, "again" if one.reasons else "do", one.reasons)


def as_json(found: RunStatus) -> dict[str, Any]:
    """Return it as JSON values."""
    stages = [{**vars(one), "process": _process(one.process)} for one in found.stages]
    return {**vars(found), "stages": stages}


def _process(process: Running | None) -> dict[str, Any] | None:
    return vars(process) if process else None


def _status(
    run_dir: Path,
    stage: Stage,
    one: Standing,
    table: Mapping[Stage, Standing],
    process: Running | None,
    seconds: float | None,
) -> StageStatus:
    made, reasons = one.artifact, one.reasons
    state: State = "done" if one.finished else "outdated" if reasons else "missing"
    if stage == "train" and not one.finished and (stopped := _stopped(run_dir)):
        state, reasons = "interrupted", (stopped, *reasons)
    if stage == "publish" and not one.finished and (refused := _refused(table)):
        state, reasons = "refused", refused
    if process:
        state = "running"
    gates = made.facts.get("gates", ()) if made else ()
    folders = (STEPS[stage].kind, *((TRAINING,) if stage == "train" else ()))
    return StageStatus(
        stage,
        state,
        reasons,
        made.created if made else None,
        seconds if made else None,
        sum(_size_bytes(run_dir / folder) for folder in folders),
        sum(bool(gate["passed"]) for gate in gates),
        len(gates),
        process,
    )


def _stopped(run_dir: Path) -> str | None:
    """Return where a training was stopped; None: it has come to its end, or has not begun."""
    history = Reader(run_dir / TRAINING).read()
    if history.state(running=False) != "interrupted" or not history.step:
        return None
    return f"stopped at step {history.step:,} of {history.steps:,}"


def _refused(table: Mapping[Stage, Standing]) -> tuple[str, ...]:
    """Return why publishing is refused; nothing where what it needs is not there yet."""
    artifacts = {}
    for stage in ("train", "compare", "export"):
        one = table[stage]
        if one.artifact is None or not one.finished:
            return ()
        artifacts[STEPS[stage].kind] = one.artifact
    return tuple(problem.message.removesuffix(".") for problem in refusals(artifacts))


def _next(config: Config, target: str, stages: Sequence[StageStatus]) -> str | None:
    run, named = shlex.quote(config.run_dir), shlex.quote(target)
    states = {one.stage: one.state for one in stages}
    if states.get("train") == "running":
        return f"tunewright watch {run}"
    if "running" in states.values():
        return None
    open_states = {state for state in states.values() if state != "done"}
    if not open_states:
        return f"tunewright chat {run}"
    if open_states == {"refused"}:
        return f"tunewright report {run}"
    return f"tunewright run {named}"


def _size_bytes(folder: Path) -> int:
    """Return what the files of a folder take."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(path, name).lstat().st_size
            except OSError:
                continue
    return total
