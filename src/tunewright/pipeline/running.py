"""Running stages: one, or all of them with finished ones skipped."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tunewright.artifacts import Artifact, Kind, fsync
from tunewright.config.load import dump_config
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import SILENT, Listener
from tunewright.machine import process_rank
from tunewright.pipeline.state import finished, loaded, present
from tunewright.pipeline.steps import ASIDE, STAGES, STEPS, Stage
from tunewright.publish import publish
from tunewright.targets import CONFIG_FILE
from tunewright.train import plan, train


@dataclass(frozen=True)
class Outcome:
    """What became of a stage in a run.

    Attributes:
        stage: Its name.
        artifact: What it made.
        skipped: It was finished before.
        seconds: Time it took.
    """

    stage: Stage
    artifact: Artifact
    skipped: bool
    seconds: float


class PublishingRefusedError(TunewrightError):
    """Publishing was refused; everything else of the run is done.

    Attributes:
        outcomes: Of the stages that are done, the report included.
    """

    def __init__(self, problems: Iterable[Problem], outcomes: Sequence[Outcome]) -> None:
        super().__init__(problems)
        self.outcomes = outcomes


def run(
    config: Config, *, until: Stage | None = None, listener: Listener = SILENT
) -> list[Outcome]:
    """Return the outcome of every stage up to `until`; finished stages are skipped.

    A stage is finished if its folder is complete and was made from the same options and the same parents.
    Once one is done again, so are all after it. The report is made even if publishing is refused.

    Raises:
        TunewrightError: As the stages do.
    """
    outcomes: list[Outcome] = []
    found: dict[Kind, Artifact] = {}
    refused: TunewrightError | None = None
    again = False
    for stage in STAGES[: STAGES.index(until) + 1] if until else STAGES:
        step = STEPS[stage]
        started = time.monotonic()
        done = None if again else finished(config, step, found, listener)
        again = again or (done is None and stage not in ASIDE)
        try:
            artifact = done or step.make(config, found, listener)
        except TunewrightError as error:
            if stage != "publish":
                raise
            refused = error
            continue
        _remember(config)
        found[step.kind] = artifact
        outcomes.append(Outcome(stage, artifact, done is not None, time.monotonic() - started))
    if refused:
        raise PublishingRefusedError(refused.problems, outcomes) from refused
    return outcomes


def run_stage(
    config: Config, stage: Stage, *, listener: Listener = SILENT, **options: Any
) -> Artifact:
    """Return what one stage makes of the artifacts that are there.

    Args:
        config: The run.
        stage: Its name.
        listener: Told how far it is.
        options: Of the stage's own function: `force` of publish; `resume`, `restart`, `allow_inexact` of train.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING names the command that makes what is missing.
            E_ARTIFACT_INVALID, what is there was made from something else than what is there now, or
            with other options.
    """
    step = STEPS[stage]
    run_dir = Path(config.run_dir)
    whole = stage == "report"
    found = present(config) if whole else loaded(config, step.parents, listener=listener)
    parents = [found[kind] for kind in step.parents]
    if options:
        function = {"plan": plan, "publish": publish, "train": train}[stage]
        artifact = function(config, *parents, listener=listener, **options)
    else:
        artifact = step.make(config, found, listener)
    # A look at other options does not change what the run is.
    if stage not in ASIDE or not (run_dir / CONFIG_FILE).is_file():
        _remember(config)
    return artifact


def _remember(config: Config) -> None:
    """Write the resolved config into the run folder, so that later commands need only the folder."""
    if process_rank():
        return
    folder = Path(config.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One name, so that what a killed process left is written over; the lock keeps two apart.
        draft = folder / f".{CONFIG_FILE}.new"
        with FileLock(folder / f".{CONFIG_FILE}.lock"):
            draft.write_text(dump_config(config), encoding="utf-8")
            fsync(draft)
            draft.replace(folder / CONFIG_FILE)
    except OSError as error:
        raise failure("E_IO", f"{error.strerror}.", where=folder) from error
