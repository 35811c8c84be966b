"""Rendering of the page."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, FunctionLoader, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunewright.artifacts import Artifact, Kind, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.load import dump_config
from tunewright.config.schema import Config
from tunewright.events import Listener
from tunewright.machine import library_versions
from tunewright.report import _plots, numbers, view
from tunewright.report.course import Course, read_course
from tunewright.report.samples import read_samples

PAGE = "report.html"
PROGRESS = "training/progress.jsonl"


def write_report(
    config: Config, artifacts: Mapping[Kind, Artifact], *, listener: Listener
) -> Artifact:
    """Body of `report`, which says what it does."""
    path = Path(config.run_dir) / "report"
    known: dict[str, Artifact] = {kind: a for kind, a in artifacts.items() if kind != "report"}
    settings = settings_of(config, "report")
    with writing(path, "report", settings=settings, parents=known) as draft:
        page = render(config, artifacts)
        (draft.path / PAGE).write_text(page, encoding="utf-8")
        draft.facts |= {
            "file": PAGE,
            "not_done": [stage.kind for stage in view.stages(artifacts) if not stage.done],
            "gates": [],
        }
    listener.said(f"The report is {path / PAGE}.")
    return load_artifact(path, "report")


def render(config: Config, artifacts: Mapping[Kind, Artifact]) -> str:
    """Return the page's HTML."""
    return _template().render(_context(config, artifacts))


@cache
def _template() -> Template:
    environment = ImmutableSandboxedEnvironment(
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_asset),
    )
    for show in (
        numbers.num,
        numbers.percent,
        numbers.size,
        numbers.clock,
        numbers.ends,
        numbers.above,
    ):
        environment.filters[show.__name__] = show
    return environment.get_template("report.html.jinja")


def _context(config: Config, artifacts: Mapping[Kind, Artifact]) -> dict[str, Any]:
    facts: dict[Kind, Mapping[str, Any]] = {
        kind: artifact.facts for kind, artifact in artifacts.items()
    }
    evaluation: Mapping[str, Any] = facts.get("evaluation", {})
    training: Mapping[str, Any] = facts.get("adapter", {})
    course = read_course(artifacts.get("adapter"), Path(config.run_dir) / PROGRESS)
    css = _asset("report.css")
    return {
        "css": css,
        "css_hash": base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        "config": config,
        "config_yaml": dump_config(config),
        "artifacts": artifacts,
        "facts": facts,
        "evaluation": evaluation,
        "training": training,
        "dataset": facts.get("dataset", {}),
        "stages": view.stages(artifacts),
        "gates": view.gates(artifacts),
        "headline": view.headline(evaluation),
        "tone": view.tone(evaluation.get("verdict")),
        "scale": view.scale(evaluation.get("transfer_score"), config.compare.target_score),
        "markers": view.markers(evaluation.get("markers") or []),
        "samples": read_samples(artifacts.get("evaluation")),
        "course": course,
        "plots": _drawn(facts, course),
        "commands": view.commands(config, artifacts),
        "libraries": library_versions(),
        "summary": _summary(artifacts.get("adapter")),
    }


def _drawn(
    facts: Mapping[Kind, Mapping[str, Any]], course: Course
) -> dict[str, _plots.Plot | None]:
    training: Mapping[str, Any] = facts.get("adapter", {})
    lengths: Any = facts.get("dataset", {}).get("lengths")
    bins: Mapping[str, Any] = lengths if isinstance(lengths, dict) else {}
    best = training.get("best_step")
    return {
        "loss": _plots.loss_curve(
            training.get("train_losses") or [], training.get("eval_losses") or [], best
        ),
        "learning_rate": _plots.small_curve(course.learning_rates, "learning rate", best),
        "speed": _plots.small_curve(course.speeds, "tokens a second"),
        "memory": _plots.small_curve([(step, used / 1e9) for step, used in course.memory], "GB"),
        "checkpoints": _plots.checkpoint_curves(
            facts.get("evaluation", {}).get("checkpoints") or [], best
        ),
        "lengths": _plots.length_histogram(bins.get("edges", ()), bins.get("counts", ())),
    }


def _summary(adapter: Artifact | None) -> dict[str, Any]:
    """Return what training wrote about itself; empty if it wrote nothing."""
    file = adapter.path / "training_summary.json" if adapter else None
    if file is None or not file.is_file():
        return {}
    return json.loads(file.read_text(encoding="utf-8"))


def _asset(name: str) -> str:
    return (resources.files("tunewright.report") / name).read_text(encoding="utf-8")
