"""The only file where two stages meet."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from filelock import FileLock

from tunewright import data
from tunewright.artifacts import MAKERS, MANIFEST, Artifact, Kind, fsync, load_artifact, make_key
from tunewright.config.inputs import differences, settings_of
from tunewright.config.load import config_of_source, dump_config, load_config
from tunewright.config.paths import usable_path
from tunewright.config.schema import Config
from tunewright.data import check, prepare
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.evaluate import Checkpoint, compare, prompts_digest
from tunewright.events import SILENT, Listener
from tunewright.export import export
from tunewright.machine import process_rank
from tunewright.merge import Candidate, merge
from tunewright.publish import is_published, publish
from tunewright.report import report
from tunewright.targets import CONFIG_FILE, config_of, is_described
from tunewright.train import plan, train, whole_checkpoints, write_checkpoint

Stage = Literal[
    "prepare", "check", "plan", "train", "compare", "merge", "export", "publish", "report"
]
STAGES: tuple[Stage, ...] = get_args(Stage)
DRAFT_NAME_BYTES = 20
"""What the name of a folder gets besides while it is being written."""
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
        lambda c, a, s: compare(
            c,
            a["dataset"],
            a["adapter"],
            checkpoints=checkpoints_of(c, a["adapter"]) if c.compare.checkpoints else (),
            listener=s,
        ),
    ),
    "merge": Step(
        "merged",
        ("adapter", "dataset"),
        lambda c, a, s: merge(
            c, a["adapter"], a["dataset"], checkpoints=_candidates(c, a["adapter"]), listener=s
        ),
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
        finished = None if again else _finished(config, step, found, listener)
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


def loaded(
    config: Config, kinds: Sequence[Kind], *, listener: Listener = SILENT
) -> dict[Kind, Artifact]:
    """Return artifacts of a run, which are whole, belong together, and are what the config would make.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING, E_ARTIFACT_INVALID.
    """
    run_dir = Path(config.run_dir)
    found: dict[Kind, Artifact] = {}
    for kind in kinds:
        found[kind] = load_artifact(run_dir / kind, kind, verify=True)
    _require_current(config, found, listener)
    return found


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


def _require_current(config: Config, found: Artifacts, listener: Listener) -> None:
    """Refuse artifacts that do not belong together, or that the config would make otherwise.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID.
    """
    problems = _mismatches(Path(config.run_dir), found)
    if not problems:
        judged = (_outdated(config, artifact, listener) for artifact in found.values())
        problems = [problem for problem in judged if problem]
    if problems:
        raise TunewrightError(problems)


def _outdated(config: Config, artifact: Artifact, listener: Listener) -> Problem | None:
    """Return a problem if the config, or the files it names, would make another artifact."""
    kind = artifact.kind
    if not _same_options(config, artifact):
        message = f"The {kind} was made with other options than these{_named(config, artifact)}."
        way_out = "; or leave the options as they were"
    elif changed := _changed_inputs(config, artifact, listener):
        names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        message, way_out = f"Files have changed since the {kind} was made: {names}.", ""
    else:
        return None
    fix = f"{MAKERS[kind]} CONFIG makes it again{way_out}."
    return Problem("E_ARTIFACT_INVALID", message, str(artifact.path), fix)


def _same_options(config: Config, artifact: Artifact) -> bool:
    """Return whether the options that determine an artifact are those it was made with."""
    settings = _settings(config, artifact)
    return artifact.key == make_key(artifact.kind, settings, artifact.parents, artifact.made_by)


def _named(config: Config, artifact: Artifact) -> str:
    """Return which options differ, in brackets, where the run folder still has those of the artifact."""
    try:
        old = load_config(Path(config.run_dir) / CONFIG_FILE)
    except TunewrightError:
        return ""
    if not _same_options(old, artifact):
        return ""
    names = differences(settings_of(old, artifact.kind), settings_of(config, artifact.kind))
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _changed_inputs(config: Config, artifact: Artifact, listener: Listener) -> list[str]:
    """Return which of the files that a dataset was made of are others now, or new, or missing.

    Files of a source that is not there, or of a Hub that cannot be reached, count as unchanged.
    """
    if artifact.kind != "dataset":
        return []
    made_of = artifact.facts.get("inputs", {})
    now = data.input_digests(config)
    names = (made_of.keys() | now.keys()) - ({"model.chat_template"} - now.keys())
    gone = [name for name, digest in now.items() if not digest]
    for source in gone:
        listener.said(f"{source} is not there or cannot be reached; the dataset is as it was made.")
    if gone:  # without the files of one source, those of others may have other names
        names = {name for name in made_of if now.get(name)}
    return sorted(name for name in names if made_of.get(name) != now.get(name))


def checkpoints_of(config: Config, adapter: Artifact) -> list[Checkpoint]:
    """Return the whole checkpoints of the training that an adapter is from, in the order of steps.

    Those of a training that was begun anew since have other losses.
    """
    losses = dict(adapter.facts["eval_losses"])
    return [
        Checkpoint(step, path, loss)
        for step, path, loss in whole_checkpoints(Path(config.run_dir))
        if loss is not None and losses.get(step) == loss
    ]


def _candidates(config: Config, adapter: Artifact) -> list[Candidate]:
    """Return the checkpoints that can be merged in place of the adapter, if one is asked for."""
    found = [] if config.merge.checkpoint is None else checkpoints_of(config, adapter)
    write = partial(write_checkpoint, config, adapter.path)
    return [Candidate(one.step, one.eval_loss, partial(write, one.path)) for one in found]


def _finished(config: Config, step: Step, found: Artifacts, listener: Listener) -> Artifact | None:
    path = Path(config.run_dir) / step.kind
    parents = step.parents or tuple(found)
    try:
        artifact = load_artifact(path, step.kind)
        settings = _settings(config, artifact)
    except TunewrightError:
        return None
    if step.kind == "published" and not is_published(config, artifact):
        return None
    digests = {kind: found[kind].digest for kind in parents}
    same = artifact.key == make_key(step.kind, settings, digests)
    whole = all((path / name).is_file() for name in artifact.files)
    return artifact if same and whole and not _changed_inputs(config, artifact, listener) else None


def _settings(config: Config, artifact: Artifact) -> dict[str, Any]:
    """Return what determines an artifact beside its parents; files that are gone count as they were."""
    settings = settings_of(config, artifact.kind)
    if artifact.kind == "dataset":
        settings["inputs"] = artifact.facts.get("inputs")
    if artifact.kind == "evaluation":
        settings |= prompts_digest(config)
    if artifact.kind == "check":
        settings["against"] = data.against_digests(config)
    return settings


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
