"""Which artifacts of a run are there, belong together, and are what its config would make."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tunewright import data
from tunewright.artifacts import MAKERS, MANIFEST, Artifact, Kind, load_artifact, make_key
from tunewright.config.inputs import differences, settings_of
from tunewright.config.load import load_config
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError
from tunewright.evaluate import prompts_digest
from tunewright.events import SILENT, Listener
from tunewright.pipeline.steps import STEPS, Artifacts, Step
from tunewright.publish import is_published
from tunewright.targets import CONFIG_FILE


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


def finished(config: Config, step: Step, found: Artifacts, listener: Listener) -> Artifact | None:
    """Return what a stage made, if it is whole and would be made alike again; None: it has to be made."""
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
