"""The only file where two stages meet."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from tunewright.artifacts import MANIFEST, Artifact, Kind, load_artifact, make_key
from tunewright.config.inputs import settings_of
from tunewright.config.load import PRESET, config_of_source, dump_config, load_config
from tunewright.config.schema import Config
from tunewright.data import check, check_source, input_digests, prepare, rendered, repair
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.evaluate import compare
from tunewright.events import SILENT, Listener
from tunewright.export import export
from tunewright.merge import merge
from tunewright.publish import Pushed, is_published, publish, push_dataset
from tunewright.report import report
from tunewright.train import plan, train

Stage = Literal[
    "prepare", "check", "plan", "train", "compare", "merge", "export", "publish", "report"
]
STAGES: tuple[Stage, ...] = get_args(Stage)
CONFIG_FILE = "run.yaml"
ASIDE: tuple[Stage, ...] = ("check", "plan")
"""Stages that nothing is made of: done again, they leave the later ones as they are."""

Artifacts = Mapping[Kind, Artifact]


@dataclass(frozen=True)
class Step:
    """A stage: what it makes, of what, and how.

    Attributes:
        kind: What it makes; also the name of its folder.
        parents: Artifacts it reads.
        make: Calls the stage.
    """

    kind: Kind
    parents: tuple[Kind, ...]
    make: Callable[[Config, Artifacts, Listener], Artifact]


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


STEPS: Mapping[Stage, Step] = {
    "prepare": Step("dataset", (), lambda c, a, s: prepare(c, listener=s)),
    "check": Step("check", ("dataset",), lambda c, a, s: check(c, a["dataset"], listener=s)),
    "plan": Step("plan", ("dataset",), lambda c, a, s: plan(c, a["dataset"], listener=s)),
    "train": Step("adapter", ("dataset",), lambda c, a, s: train(c, a["dataset"], listener=s)),
    "compare": Step(
        "evaluation",
        ("dataset", "adapter"),
        lambda c, a, s: compare(c, a["dataset"], a["adapter"], listener=s),
    ),
    "merge": Step(
        "merged",
        ("adapter", "dataset"),
        lambda c, a, s: merge(c, a["adapter"], a["dataset"], listener=s),
    ),
    "export": Step(
        "exported",
        ("merged", "dataset"),
        lambda c, a, s: export(c, a["merged"], a["dataset"], listener=s),
    ),
    "publish": Step(
        "published",
        ("adapter", "evaluation", "exported"),
        lambda c, a, s: publish(c, a["adapter"], a["evaluation"], a["exported"], listener=s),
    ),
    "report": Step("report", (), lambda c, a, s: report(c, a, listener=s)),
}


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
        finished = None if again else _finished(config, step, found)
        again = again or (finished is None and stage not in ASIDE)
        try:
            artifact = finished or step.make(config, found, listener)
        except TunewrightError as error:
            if stage != "publish":
                raise
            refused = error
            continue
        _remember(config)
        found[step.kind] = artifact
        outcomes.append(Outcome(stage, artifact, finished is not None, time.monotonic() - started))
    if refused:
        raise PublishingRefusedError(refused.problems, outcomes) from refused
    return outcomes


def run_stage(
    config: Config, stage: Stage, *, force: bool = False, listener: Listener = SILENT
) -> Artifact:
    """Return what one stage makes of the artifacts that are there; `force` is publishing's.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING names the command that makes what is missing.
            E_ARTIFACT_INVALID, what is there was made from something else than what is there now.
    """
    step = STEPS[stage]
    run_dir = Path(config.run_dir)
    found: Artifacts
    if stage == "report":
        found = present(config)
    else:
        found = {kind: load_artifact(run_dir / kind, kind, verify=True) for kind in step.parents}
        problems = _mismatches(run_dir, found)
        if problems:
            raise TunewrightError(problems)
    if stage == "publish":
        artifact = publish(
            config,
            found["adapter"],
            found["evaluation"],
            found["exported"],
            force=force,
            listener=listener,
        )
    else:
        artifact = step.make(config, found, listener)
    _remember(config)
    return artifact


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
        TunewrightError: As data.check and data.check_source do.
    """
    described = target.startswith(PRESET) or _is_config(Path(target))
    config = config_of(target, overrides) if described else config_of_source(target, overrides)
    if out is not None:
        return repair(config, Path(out), listener=listener)
    if not described:
        return check_source(config, listener=listener)
    made = run_stage(config, "check", listener=listener)
    return {"path": str(made.path), **made.facts, "rendered": rendered(made)}


def _is_config(path: Path) -> bool:
    folders = (path, path.absolute().parent) if path.is_dir() else ()
    return path.suffix in (".yaml", ".yml") or any((f / CONFIG_FILE).is_file() for f in folders)


def push(config: Config, *, dry_run: bool = False, listener: Listener = SILENT) -> Pushed:
    """Upload a run's dataset to the Hub.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING; else as publish.push_dataset does.
    """
    run_dir = Path(config.run_dir)
    dataset = load_artifact(run_dir / "dataset", "dataset", verify=True)
    checked = present(config).get("check")
    return push_dataset(config, dataset, checked, dry_run=dry_run, listener=listener)


def present(config: Config) -> dict[Kind, Artifact]:
    """Return the artifacts of a run that are complete and belong together, in the order of the stages."""
    found: dict[Kind, Artifact] = {}
    run_dir = Path(config.run_dir)
    for step in STEPS.values():
        if not (run_dir / step.kind / MANIFEST).is_file() or step.kind == "report":
            continue
        artifact = load_artifact(run_dir / step.kind, step.kind)
        if not _mismatches(run_dir, {step.kind: artifact}):
            found[step.kind] = artifact
    return found


def _mismatches(run_dir: Path, found: Artifacts) -> list[Problem]:
    """Return a problem for every artifact, up to the first, that was made from another parent."""
    problems: list[Problem] = []
    seen: set[Kind] = set()
    todo = list(found.values())
    while todo:
        artifact = todo.pop()
        for name, digest in artifact.parents.items():
            kind = cast("Kind", name)
            parent = load_artifact(run_dir / kind, kind)
            if parent.digest != digest:
                message = f"The {artifact.kind} was made from another {kind} than the one here."
                fix = f"tunewright run {run_dir}"
                problems.append(Problem("E_ARTIFACT_INVALID", message, str(artifact.path), fix))
            if kind not in seen:
                seen.add(kind)
                todo.append(parent)
    return problems


def config_of(target: str, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a config file, a preset, a run folder, or a stage's folder in it.

    Raises:
        TunewrightError: E_NOT_FOUND, it is none of these; else as load_config does.
    """
    path = Path(target)
    if target.startswith(PRESET) or not path.is_dir():
        return load_config(target, overrides)
    for folder in (path, path.absolute().parent):
        if (folder / CONFIG_FILE).is_file():
            config = load_config(folder / CONFIG_FILE, overrides)
            # The folder may have been moved or may be named from elsewhere: it is where it was found.
            elsewhere = any(o.startswith("output_dir=") for o in overrides)
            return config if elsewhere else config.model_copy(update={"output_dir": str(folder)})
    raise failure(
        "E_NOT_FOUND",
        "The folder is not a run: it has no run.yaml.",
        where=target,
        fix="Name a config file, or a folder that `tunewright run` has made.",
    )


def _finished(config: Config, step: Step, found: Artifacts) -> Artifact | None:
    path = Path(config.run_dir) / step.kind
    parents = step.parents or tuple(found)
    try:
        artifact = load_artifact(path, step.kind)
    except TunewrightError:
        return None
    if step.kind == "published" and not is_published(config, artifact):
        return None
    settings = settings_of(config, step.kind)
    if step.kind == "dataset":
        settings["inputs"] = input_digests(config)
    digests = {kind: found[kind].digest for kind in parents}
    same = artifact.key == make_key(step.kind, settings, digests)
    return artifact if same and _all_there(artifact) else None


def _all_there(artifact: Artifact) -> bool:
    return all((artifact.path / name).is_file() for name in artifact.files)


def _remember(config: Config) -> None:
    """Write the resolved config into the run folder, so that later commands need only the folder."""
    folder = Path(config.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{CONFIG_FILE}.{os.getpid()}"
        draft.write_text(dump_config(config), encoding="utf-8")
        draft.replace(folder / CONFIG_FILE)
    except OSError as error:
        raise failure("E_IO", f"{error.strerror}.", where=folder) from error


def exported_of(config: Config) -> Artifact:
    """Return a run's exported files.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING, nothing has been exported.
    """
    return load_artifact(Path(config.run_dir) / "exported", "exported")
