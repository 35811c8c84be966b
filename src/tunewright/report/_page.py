"""Rendering of the page."""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunewright.artifacts import Artifact, Kind, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.load import dump_config
from tunewright.config.schema import Config
from tunewright.events import Listener
from tunewright.machine import library_versions
from tunewright.report import _plots, view

PAGE = "report.html"


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
    environment = ImmutableSandboxedEnvironment(
        autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"num": view.num, "percent": view.percent}
    template = environment.from_string(_asset("report.html.jinja"))
    return template.render(_context(config, artifacts))


def _context(config: Config, artifacts: Mapping[Kind, Artifact]) -> dict[str, Any]:
    facts = {kind: artifact.facts for kind, artifact in artifacts.items()}
    evaluation: Mapping[str, Any] = facts.get("evaluation", {})
    training: Mapping[str, Any] = facts.get("adapter", {})
    css = _asset("report.css")
    lengths: Mapping[str, Any] = facts.get("dataset", {}).get("lengths") or {}
    return {
        "css": css,
        "css_hash": base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        "config": config,
        "config_yaml": dump_config(config),
        "artifacts": artifacts,
        "facts": facts,
        "stages": view.stages(artifacts),
        "gates": view.gates(artifacts),
        "tone": view.tone(evaluation.get("verdict")),
        "scale": view.scale(evaluation.get("transfer_score"), config.compare.target_score),
        "markers": view.markers(evaluation.get("markers") or []),
        "samples": view.read_samples(artifacts.get("evaluation")),
        "loss": _plots.loss_curve(
            training.get("train_losses") or [],
            training.get("eval_losses") or [],
            training.get("best_step"),
        ),
        "lengths": _plots.length_histogram(lengths.get("edges", ()), lengths.get("counts", ())),
        "commands": view.commands(config, artifacts),
        "libraries": library_versions(),
    }


def _asset(name: str) -> str:
    return (resources.files("tunewright.report") / name).read_text(encoding="utf-8")
