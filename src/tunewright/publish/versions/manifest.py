"""What a version's manifest says, how it is written, and why a run is refused."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any, cast

from tunewright.artifacts import Artifact, load_artifact
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError
from tunewright.machine import library_versions
from tunewright.publish.versions.blobs import StoredFile
from tunewright.publish.versions.commit import commit_of

FORMAT = 1
MANIFEST = "manifest.json"
BAD_VERDICTS = ("overfitted", "memorised", "degraded", None)
_SHAPE: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("agent", "adapter", "version", "created"), str),
    **dict.fromkeys(("base", "metrics", "gates", "parents", "libraries", "config", "files"), dict),
    **dict.fromkeys(("verdict", "sentence", "chat_template_sha256", "commit"), (str, NoneType)),
    **dict.fromkeys(("dataset", "forced"), (dict, NoneType)),
}
"""Every key of a manifest besides `format` and `digest`, and what it is."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_METRICS: Mapping[str, tuple[str, ...]] = {
    "adapter": ("best_step", "best_eval_loss", "steps", "seconds", "stopped_early"),
    "evaluation": ("transfer_score", "perplexity", "memorisation"),
    "exported": ("files", "served"),
}


def _quoted(artifact: Artifact) -> str:
    """Return the run of an artifact as a shell takes it."""
    return shlex.quote(str(artifact.path.parent))


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
                f"{advice} Or `tunewright publish {_quoted(evaluation)} --force --reason TEXT`.",
            )
        )
    for name, artifact in artifacts.items():
        problems += [
            Problem(
                "E_GATE_VERDICT",
                f"A gate of '{name}' failed: {gate['gate']}: {gate['value']}, limit {gate['limit']}.",
                str(artifact.path),
                "The same options give the same figures: change the training as the report advises, and run it again. Or "
                f"`tunewright publish {_quoted(artifact)} --force --reason TEXT`.",
            )
            for gate in artifact.facts.get("gates", [])
            if not gate["passed"]
        ]
    return problems


def describe(
    config: Config, artifacts: Mapping[str, Artifact], files: Mapping[str, StoredFile]
) -> dict[str, Any]:
    """Return all that a manifest says but whose it is, when it was made and why it may be there."""
    adapter, evaluation = artifacts["adapter"], artifacts["evaluation"]
    return {
        "base": _base(config, adapter),
        "dataset": _dataset(adapter),
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
        "commit": commit_of(Path.cwd()),
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
    try:
        data = json.loads(raw)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("it is not a manifest")
    manifest = cast("dict[str, Any]", data)
    manifest.pop("digest", None)
    if dump(manifest) != raw:
        raise ValueError("it has changed since it was written")
    if manifest.get("format") != FORMAT or not manifest.keys() >= _SHAPE.keys():
        raise ValueError("it is of another format")
    wrong = [key for key, kind in _SHAPE.items() if not isinstance(manifest[key], kind)]
    wrong += [name for name, entry in manifest["files"].items() if not _is_file(name, entry)]
    if wrong:
        raise ValueError(f"'{wrong[0]}' is not what the format says")
    return manifest


def _is_file(name: str, entry: object) -> bool:
    """Return whether an entry of `files` names a file inside the version, its hash and its size."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        return False
    if str(path) != name or name in (".", MANIFEST) or not isinstance(entry, dict):
        return False
    values = cast("dict[str, object]", entry)
    size, digest = values.get("bytes"), values.get("sha256")
    is_size = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    return is_size and isinstance(digest, str) and bool(_SHA256.fullmatch(digest))


def _dataset(adapter: Artifact) -> dict[str, Any] | None:
    """Return hash and counts of the dataset; no counts where it is not in the run any more."""
    digest = adapter.parents.get("dataset")
    if digest is None:
        return None
    try:
        dataset = load_artifact(adapter.path.parent / "dataset", "dataset")
    except TunewrightError:
        return {"digest": digest, "sides": None}
    if dataset.digest != digest:
        return {"digest": digest, "sides": None}
    sides = {
        side: {unit: dataset.facts.get(f"{side}_{unit}") for unit in ("rows", "words", "tokens")}
        for side in ("train", "eval")
    }
    return {"digest": digest, "sides": sides}


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
        template = json.loads(file.source.read_bytes()).get("chat_template")
        if isinstance(template, str):
            return hashlib.sha256(template.encode()).hexdigest()
    return None
