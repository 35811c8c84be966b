"""Which artifacts of a run are there, belong together, and are what its config would make; if not, why not."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunewright import data
from tunewright.artifacts import (
    MAKERS,
    MANIFEST,
    Artifact,
    Kind,
    called,
    fingerprints,
    load_artifact,
    make_key,
)
from tunewright.config import version
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError
from tunewright.evaluate import prompts_digest
from tunewright.events import SILENT, Listener
from tunewright.pipeline.questions import settled
from tunewright.pipeline.steps import STAGES, STEPS, Artifacts, Stage, Step
from tunewright.publish import is_published

ASKED_FOR = "it was asked for"
"""Reason of a stage that is done anew although it is finished."""
SHOWN = 3
"""Reasons that a line names."""


@dataclass(frozen=True)
class Standing:
    """How a stage stands.

    Attributes:
        artifact: What it has made; None: nothing, or nothing that can be read.
        reasons: Why it would be made otherwise now; none, and an artifact: it is finished.
    """

    artifact: Artifact | None
    reasons: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Return whether there is nothing to do."""
        return self.artifact is not None and not self.reasons


def because(reasons: Sequence[str]) -> str:
    """Return reasons in a line: the first, and how many more there are."""
    more = len(reasons) - SHOWN
    return "; ".join(reasons[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


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
    _require_current(_settled(config), found, listener)
    return found


def _settled(config: Config) -> Config:
    """Return the config with the checkpoint that the user has chosen for the adapter that is there."""
    try:
        return settled(config, load_artifact(Path(config.run_dir) / "adapter", "adapter"))
    except TunewrightError:
        return config


def present(config: Config) -> dict[Kind, Artifact]:
    """Return the artifacts of a run that are complete and belong together, in the order of the stages."""
    found: dict[Kind, Artifact] = {}
    run_dir = Path(config.run_dir)
    for step in STEPS.values():
        if not (run_dir / step.kind / MANIFEST).is_file() or step.kind == "report":
            continue
        artifact = load_artifact(run_dir / step.kind, step.kind)
        try:
            apart = _mismatches(run_dir, {step.kind: artifact})
        except TunewrightError:
            # What it was made of is gone.
            continue
        if not apart:
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
                message = f"The {called(artifact.kind)} was made from another {called(kind)} than the one here."
                fix = f"tunewright run {shlex.quote(str(run_dir))}"
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
    settings = _settings(config, artifact)
    if artifact.key != make_key(kind, settings, artifact.parents, artifact.made_by):
        names = _changed_options(artifact, settings)
        named = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
        message = f"The {called(kind)} was made with other options than these{named}."
        way_out = "; or leave the options as they were"
    elif changed := _changed_inputs(config, artifact, listener):
        names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        message, way_out = f"Files have changed since the {called(kind)} was made: {names}.", ""
    else:
        return None
    fix = f"{MAKERS[kind]} CONFIG makes it again{way_out}."
    return Problem("E_ARTIFACT_INVALID", message, str(artifact.path), fix)


def _changed_options(artifact: Artifact, settings: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of what determines an artifact otherwise now; of one inside another, that one."""
    if not artifact.options:
        return []
    before, now = artifact.options, fingerprints(settings)
    changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    return sorted(name for name in changed if not any(name.startswith(f"{o}.") for o in changed))


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


def standing(config: Config, step: Step, found: Artifacts, listener: Listener = SILENT) -> Standing:
    """Return what a stage has made, and every reason why it would be made otherwise now.

    Args:
        config: The run.
        step: The stage.
        found: What the stages before have made; one that is to be made anew is not among them.
        listener: Told of sources that are not there.
    """
    path = Path(config.run_dir) / step.kind
    try:
        artifact = load_artifact(path, step.kind)
    except TunewrightError:
        there = os.path.lexists(path)
        return Standing(None, (f"{step.kind}/{MANIFEST} is missing or damaged",) if there else ())
    try:
        reasons = (
            *_by_whom(artifact),
            *_of_what(config, artifact, listener),
            *_of_whom(artifact, found, step.reads(found)),
            *(
                f"{step.kind}/{name} is missing"
                for name in artifact.files
                if not (path / name).is_file()
            ),
        )
        digests = {kind: found[kind].digest for kind in step.reads(found) if kind in found}
        settings = _settings(config, artifact)
        if not reasons and artifact.key != make_key(step.kind, settings, digests):
            reasons = ("it was made with other options",)
        if step.kind == "published" and not is_published(config, artifact):
            reasons += (f"version {artifact.facts['version']} is not in the store",)
    except TunewrightError as error:
        reasons = tuple(problem.message.removesuffix(".") for problem in error.problems)
    return Standing(artifact, reasons)


def _by_whom(artifact: Artifact) -> list[str]:
    own = version("tunewright")
    if artifact.made_by == own:
        return []
    return [f"Tunewright {artifact.made_by or 'of an unknown version'} made it, this is {own}"]


def _of_what(config: Config, artifact: Artifact, listener: Listener) -> list[str]:
    """Return which options and files have changed."""
    # Names of files in the settings, as a person knows them.
    prompts = config.compare.prompts_file or "compare.prompts_file"
    files = {"prompts_sha256": prompts, "against": "check.against"}
    names = [
        files.get(name, name.removeprefix("against."))
        for name in _changed_options(artifact, _settings(config, artifact))
    ]
    changed = dict.fromkeys([*names, *_changed_inputs(config, artifact, listener)])
    return [f"{name} changed" for name in changed]


def _of_whom(artifact: Artifact, found: Artifacts, parents: Sequence[Kind]) -> list[str]:
    """Return which parents are others now."""
    reasons: list[str] = []
    for kind in parents:
        noun = called(kind)
        if kind not in found:
            reasons.append(f"its {noun} is to be made first")
        elif kind not in artifact.parents:
            reasons.append(f"there is a {noun} now")
        elif artifact.parents[kind] != found[kind].digest:
            reasons.append(f"its {noun} was made anew")
    gone = [kind for kind in artifact.parents if kind not in parents]
    return [*reasons, *(f"its {called(kind)} counts no more" for kind in gone)]


def survey(config: Config, listener: Listener = SILENT) -> dict[Stage, Standing]:
    """Return how every stage of a run stands, in their order; with the checkpoint that the user has chosen."""
    found: dict[Kind, Artifact] = {}
    table: dict[Stage, Standing] = {}
    for stage in STAGES:
        step = STEPS[stage]
        config = settled(config, found.get("adapter"))
        one = table[stage] = standing(config, step, found, listener)
        if one.finished and one.artifact is not None:
            found[step.kind] = one.artifact
    return table


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
