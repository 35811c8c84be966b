"""What of a run goes to the Hub: its parts are gathered, its gates are asked, and what was uploaded is written down."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tunewright import pipeline
from tunewright.artifacts import MANIFEST, Artifact, Kind, fsync, load_artifact
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import SILENT, Listener
from tunewright.publish import Forced, Pushed, push_dataset, push_model, require_licences
from tunewright.publish.hub.repositories import PARTS, Part, repositories, require_token
from tunewright.publish.versions.manifest import refusals

RECEIPT = "pushed.json"
"""In the run's folder: each part that was uploaded, where to, and the artifact that it was."""
KINDS: Mapping[Part, Kind] = {
    "dataset": "dataset",
    "adapter": "adapter",
    "merged": "merged",
    "gguf": "exported",
}


def push(
    config: Config,
    parts: Iterable[Part] = ("adapter",),
    *,
    types: Sequence[str] | None = None,
    report: bool = False,
    force: bool = False,
    reason: str | None = None,
    dry_run: bool = False,
    listener: Listener = SILENT,
) -> list[Pushed]:
    """Upload parts of a run to the Hub, one commit a repository, and return where they are.

    The repositories are those of `publish.hub_model_id` and its like. A model is refused if it was not
    compared with its base, if the verdict is bad, or if a gate of it failed.

    Args:
        config: The run's.
        parts: Of `dataset`, `adapter`, `merged`, `gguf`.
        types: GGUF types; None: all that were exported.
        report: Put the run's report beside the card of each model.
        force: Upload in spite of a refusal; the card says so at its top.
        reason: Why, in words for the card.
        dry_run: Write and search everything, upload nothing, and touch no network.
        listener: Is told the progress.

    Raises:
        TunewrightError: E_USAGE, nothing is named, or a report without a model. E_GATE_VERDICT.
            E_ARTIFACT_MISSING, E_ARTIFACT_INVALID, a part is not made yet, or with other options; else as
            publish.push_dataset and publish.push_model do.
    """
    asked = set(parts)
    wanted: list[Part] = [part for part in PARTS if part in asked]
    models: list[Part] = [part for part in wanted if part != "dataset"]
    _require_sense(wanted, models, report=report, force=force, reason=reason)
    repos = repositories(config, wanted)
    require_licences(config, wanted, listener=listener if dry_run else None)
    found, forced = _gathered(config, wanted, models, listener, force=force, reason=reason)
    page = _report(Path(config.run_dir), found) if report else None
    related = {**_uploaded(config, found), **repos}
    send = partial(
        _send,
        config,
        artifacts=found,
        related=related,
        types=types,
        forced=forced,
        report=page,
        listener=listener,
    )
    if dry_run:
        return [send(part, dry_run=True) for part in wanted]
    if len(wanted) > 1:  # what would refuse the last part does so before the first is uploaded
        for part in wanted:
            send(part, dry_run=True)
    done: list[Pushed] = []
    for part in wanted:
        done.append(send(part, dry_run=False))
        _write_down(config, part, repos[part], done[-1])
    return done


def require_ready(config: Config) -> None:
    """Refuse a run that could not end with its upload, before hours are spent.

    Raises:
        TunewrightError: E_CONFIG_VALUE, a repository is not named. E_HUB, there is no token, or the Hub
            does not know a licence.
    """
    repos = repositories(config, config.publish.push_to_hub)
    for repo_id in list(repos.values())[:1]:
        require_token(repo_id)
    require_licences(config, repos, listener=None)


def push_after_run(config: Config, *, listener: Listener = SILENT) -> list[Pushed]:
    """Upload what `publish.push_to_hub` names, with the report; what is on the Hub as it is now is left.

    Raises:
        TunewrightError: As `push` does.
    """
    asked = config.publish.push_to_hub
    run = Path(config.run_dir)
    known, repos = _receipts(run), repositories(config, asked)
    wanted: list[Part] = [
        part
        for part in asked
        if not known.get(part, {}).items() >= _identity(config, part, repos[part]).items()
    ]
    if not wanted:
        if asked:
            listener.said(f"push: {pipeline.SKIPPED}")
        return []
    report = any(part != "dataset" for part in wanted)
    with pipeline.logged(config, f"push {','.join(wanted)}", listener) as log:
        done = push(config, wanted, report=report, listener=log.listener)
        for one in done:
            log.listener.said(f"Uploaded {one.url}, commit {one.commit}.")
    return done


def _send(
    config: Config,
    part: Part,
    *,
    artifacts: Mapping[str, Artifact],
    dry_run: bool,
    listener: Listener,
    **options: Any,
) -> Pushed:
    if part == "dataset":
        checked = artifacts.get("check")
        return push_dataset(
            config, artifacts["dataset"], checked, dry_run=dry_run, listener=listener
        )
    return push_model(config, part, artifacts, dry_run=dry_run, listener=listener, **options)


def _report(run: Path, found: Mapping[str, Artifact]) -> Artifact:
    """Return the run's report, which is of the same artifacts; what the config says of the Hub may differ."""
    report = load_artifact(run / "report", "report", verify=True)
    old = [k for k, d in report.parents.items() if k in found and found[k].digest != d]
    if old:
        message = f"The report is of another {old[0]} than the one here."
        fix = f"tunewright report {shlex.quote(str(run))}"
        raise failure("E_ARTIFACT_INVALID", message, where=report.path, fix=fix)
    return report


def _require_sense(
    wanted: Sequence[Part],
    models: Sequence[Part],
    *,
    report: bool,
    force: bool,
    reason: str | None,
) -> None:
    problems: list[Problem] = []
    if not wanted:
        fix = "Name adapter, merged, gguf or dataset."
        problems.append(Problem("E_USAGE", "Nothing is named that could be uploaded.", "push", fix))
    if report and not models:
        message = "A report is put beside a model, and no model is named."
        fix = "Add --adapter, --merged or --gguf."
        problems.append(Problem("E_USAGE", message, "--report", fix))
    if reason is not None and not force:
        message = "A reason is for what is forced."
        problems.append(Problem("E_USAGE", message, "--reason", "Add --force, or leave it out."))
    if problems:
        raise TunewrightError(problems)


def _gathered(
    config: Config,
    wanted: Sequence[Part],
    models: Sequence[Part],
    listener: Listener,
    *,
    force: bool,
    reason: str | None,
) -> tuple[dict[str, Artifact], Forced | None]:
    """Return what is uploaded and what the cards speak of; and what speaks against it, if it is forced.

    Raises:
        TunewrightError: E_GATE_VERDICT; as pipeline.loaded does.
    """
    run = Path(config.run_dir)
    needed: list[Kind] = [KINDS[part] for part in wanted]
    if models and "adapter" not in needed:
        needed.append("adapter")
    compared = bool(models) and (run / "evaluation" / MANIFEST).is_file()
    if compared:
        needed.append("evaluation")
    certain = pipeline.loaded(config, needed, listener=listener)
    found: dict[str, Artifact] = {**certain, **_spoken_of(run, certain)}
    if "dataset" in wanted and "check" not in found:
        listener.said(f"The dataset was not checked; this does it: tunewright check {run}")
    if not models:
        return found, None
    judged = {kind: found[kind] for kind in ("adapter", "evaluation") if kind in found}
    judged |= {KINDS[part]: found[KINDS[part]] for part in models}
    against = _against(judged, run)
    if against and not force:
        raise TunewrightError(against)
    return found, Forced([one.message for one in against], reason) if against else None


def _spoken_of(run: Path, certain: Mapping[Kind, Artifact]) -> dict[str, Artifact]:
    """Return what else the cards speak of: what is there, and is of the same run as what is uploaded."""
    found: dict[Kind, Artifact] = dict(certain)
    for kind in ("dataset", "check", "merged"):
        if kind in found or not (run / kind / MANIFEST).is_file():
            continue
        one = load_artifact(run / kind, kind)
        above = all(found[k].digest == d for k, d in one.parents.items() if k in found)
        below = all(other.parents.get(kind, one.digest) == one.digest for other in found.values())
        if above and below:
            found[kind] = one
    return {kind: one for kind, one in found.items() if kind not in certain}


def _against(judged: Mapping[str, Artifact], run: Path) -> list[Problem]:
    """Return what speaks against uploading a model."""
    if "evaluation" not in judged:
        message = "The model was not compared with its base, so nobody knows if it is better."
        place = shlex.quote(str(run))
        fix = f"tunewright compare {place}; or `tunewright push {place} --force --reason TEXT`."
        return [Problem("E_GATE_VERDICT", message, str(run / "evaluation"), fix)]
    found = refusals(judged)
    return [replace(p, fix=p.fix.replace("tunewright publish", "tunewright push")) for p in found]


def _uploaded(config: Config, found: Mapping[str, Artifact]) -> dict[Part, str]:
    """Return the repositories that hold the parts of this run as they are now."""
    known = _receipts(Path(config.run_dir))
    return {
        part: known[part]["repo_id"]
        for part, kind in KINDS.items()
        if part in known and kind in found and known[part]["digest"] == found[kind].digest
    }


def _receipts(run: Path) -> dict[str, dict[str, Any]]:
    """Return what was uploaded before; of a file that is no such list, nothing."""
    try:
        found = json.loads((run / RECEIPT).read_text(encoding="utf-8"))
        return {part: one for part, one in found.items() if {"repo_id", "digest"} <= one.keys()}
    except (OSError, ValueError, AttributeError):
        return {}


def _identity(config: Config, part: Part, repo_id: str) -> dict[str, Any]:
    """Return what an upload is of, and where: as long as it is the same, it need not be made again."""
    run = Path(config.run_dir)
    compared = part != "dataset" and (run / "evaluation" / MANIFEST).is_file()
    return {
        "repo_id": repo_id,
        "endpoint": os.environ.get("HF_ENDPOINT"),
        "revision": config.publish.hub_revision,
        "digest": load_artifact(run / KINDS[part], KINDS[part]).digest,
        "evaluation": load_artifact(run / "evaluation", "evaluation").digest if compared else None,
    }


def _write_down(config: Config, part: Part, repo_id: str, made: Pushed) -> None:
    run = Path(config.run_dir)
    entry = _identity(config, part, repo_id) | {
        "url": made.url,
        "commit": made.commit,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps({**_receipts(run), part: entry}, indent=1, sort_keys=True) + "\n"
    draft = run / f".{RECEIPT}.{os.getpid()}"
    try:
        draft.write_text(text, encoding="utf-8")
        fsync(draft)
        draft.replace(run / RECEIPT)
    except OSError as error:
        draft.unlink(missing_ok=True)
        message = f"It is uploaded, but this cannot be written down: {error.strerror or error}."
        raise failure("E_IO", message, where=run / RECEIPT) from error
