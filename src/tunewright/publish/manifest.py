"""What a version's manifest says, how it is written, and why a run is refused."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunewright.artifacts import MAKERS, Artifact
from tunewright.config.schema import Config
from tunewright.errors import Problem
from tunewright.machine import library_versions

FORMAT = 1
MANIFEST = "manifest.json"
BAD_VERDICTS = ("overfitted", "memorised", "degraded", None)
_KEYS = {"agent", "adapter", "version", "created", "base", "verdict", "files"}
_METRICS: Mapping[str, tuple[str, ...]] = {
    "adapter": ("best_step", "best_eval_loss", "steps", "seconds", "stopped_early"),
    "evaluation": ("transfer_score", "perplexity", "memorisation"),
    "exported": ("files", "served"),
}


@dataclass(frozen=True)
class StoredFile:
    """A file of a version.

    Attributes:
        source: Where it is in the run.
        sha256: What the run's manifest says of it.
        size_bytes: Its size.
    """

    source: Path
    sha256: str
    size_bytes: int


def refusals(artifacts: Mapping[str, Artifact]) -> list[Problem]:
    """Return a problem for a bad verdict and for every failed gate of these artifacts."""
    evaluation = artifacts["evaluation"]
    problems: list[Problem] = []
    verdict = evaluation.facts.get("verdict")
    if verdict in BAD_VERDICTS:
        reason = evaluation.facts.get("sentence") or "the comparison gives no reason"
        advice = evaluation.facts.get("advice") or "Train again"
        problems.append(
            Problem(
                "E_GATE_VERDICT",
                f"The verdict is {verdict or 'missing'}: {reason}",
                str(evaluation.path),
                f"{advice} Or publish with `--force`.",
            )
        )
    for name, artifact in artifacts.items():
        problems += [
            Problem(
                "E_GATE_VERDICT",
                f"A gate of '{name}' failed: {gate['gate']}: {gate['value']}, limit {gate['limit']}.",
                str(artifact.path),
                f"Make it again: {MAKERS[artifact.kind]} {artifact.path.parent}; or publish with `--force`.",
            )
            for gate in artifact.facts.get("gates", [])
            if not gate["passed"]
        ]
    return problems


def describe(
    config: Config, artifacts: Mapping[str, Artifact], files: Mapping[str, StoredFile]
) -> dict[str, Any]:
    """Return all that a manifest says but who, when and why it may be there."""
    adapter, evaluation = artifacts["adapter"], artifacts["evaluation"]
    return {
        "base": _base(config, adapter),
        "dataset": adapter.parents.get("dataset"),
        "verdict": evaluation.facts.get("verdict"),
        "sentence": evaluation.facts.get("sentence"),
        "metrics": {
            name: {key: artifacts[name].facts[key] for key in keys if key in artifacts[name].facts}
            for name, keys in _METRICS.items()
        },
        "gates": {name: a.facts.get("gates", []) for name, a in artifacts.items()},
        "parents": {name: a.digest for name, a in artifacts.items()},
        "chat_template_sha256": _template_digest(files),
        "libraries": library_versions(),
        "config": config.model_dump(mode="json"),
        "files": {
            name: {"sha256": file.sha256, "bytes": file.size_bytes}
            for name, file in sorted(files.items())
        },
    }


def dump(manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest; its last key is the SHA-256 of the others."""
    body = json.dumps(manifest, indent=1, ensure_ascii=False)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (
        json.dumps({**manifest, "digest": digest}, indent=1, ensure_ascii=False) + "\n"
    ).encode()


def parse(raw: bytes) -> dict[str, Any]:
    """Return the manifest that these bytes are.

    Raises:
        ValueError: They are not exactly what `dump` wrote.
    """
    data = json.loads(raw)
    if not isinstance(data, dict):
        raise ValueError("it is not a manifest")
    manifest = cast("dict[str, Any]", data)
    manifest.pop("digest", None)
    if dump(manifest) != raw:
        raise ValueError("it has changed since it was written")
    if manifest.get("format") != FORMAT or not manifest.keys() >= _KEYS:
        raise ValueError("it is of another format")
    return manifest


def _base(config: Config, adapter: Artifact) -> dict[str, Any]:
    """What training says it used; the config is the fallback."""
    return {
        "name": adapter.facts.get("base", config.model.model_name_or_path),
        "revision": adapter.facts.get("base_revision", config.model.revision),
        "files": adapter.facts.get("base_files"),
    }


def _template_digest(files: Mapping[str, StoredFile]) -> str | None:
    """A template is a file of its own, or in older models a key of tokenizer_config.json."""
    if (file := files.get("adapter/chat_template.jinja")) is not None:
        return file.sha256
    if (file := files.get("adapter/tokenizer_config.json")) is not None:
        template = json.loads(file.source.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(template, str):
            return hashlib.sha256(template.encode()).hexdigest()
    return None
