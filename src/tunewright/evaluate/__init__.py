"""Base against tuned: style, memorisation, degradation, structure, and a verdict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact, sha256
from tunewright.config.schema import Config
from tunewright.errors import failure
from tunewright.evaluate.sides import Checkpoint, Endpoints, GgufFile, ModelFolder, Other
from tunewright.events import SILENT, Listener

__all__ = [
    "Checkpoint",
    "Endpoints",
    "GgufFile",
    "ModelFolder",
    "Other",
    "compare",
    "compare_agents",
    "cross_settings",
    "prompts_digest",
]


def prompts_digest(config: Config) -> dict[str, str]:
    """Return the SHA-256 of the file of prompts, which determines an evaluation as its options do."""
    file = Path(config.compare.prompts_file) if config.compare.prompts_file else None
    return {"prompts_sha256": sha256(file)} if file and file.is_file() else {}


def compare(
    config: Config,
    dataset: Artifact | None,
    adapter: Artifact | None,
    *,
    other: Other | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    listener: Listener = SILENT,
) -> Artifact:
    """Return the evaluation of an adapter: what it changed, with intervals, and a verdict in plain words.

    The folder holds `samples.jsonl` (every prompt with the answer of base, tuned and author, and what is copied)
    and `markers.json`; the facts hold the verdict and every figure behind it. An overfitted, memorising or
    degraded model is written like any other: its gates say so, and publishing refuses it.

    Args:
        config: Of the run.
        dataset: Held-out rows are asked, and the author's text is compared with; without one only the user's own
            prompts are asked, and there is no score.
        adapter: Of the run; only endpoints do without.
        other: What is compared in place of the adapter; written to `comparisons/`, not to `evaluation/`.
        checkpoints: Of the adapter's training: each is asked the same, for score and copies over the training.
        listener: Told how far it is.

    Raises:
        TunewrightError: E_DATA_EMPTY, the dataset has no training or no held-out rows, or there is nothing to
            ask. E_DATA_ROW, a row cannot be read. E_NOTHING_TO_LEARN, no row has a token to score within
            `train.max_length`. E_MODEL, E_ARTIFACT_INVALID, E_ENDPOINT, a side cannot be used. E_TIME, there was
            no time to answer.
    """
    from tunewright.evaluate._compare import evaluate

    return evaluate(
        config, dataset, adapter, other=other, checkpoints=checkpoints, listener=listener
    )


def cross_settings(configs: Mapping[str, Config]) -> dict[str, Any]:
    """Return what determines a comparison of agents beside their datasets and adapters, as a JSON value."""
    return {
        agent: {
            "model": [config.model.model_name_or_path, config.model.revision],
            "max_length": config.train.max_length,
            "load_in_4bit": config.train.load_in_4bit,
            "bootstrap_samples": config.compare.bootstrap_samples,
            "seed": config.seed,
        }
        for agent, config in configs.items()
    }


def compare_agents(
    configs: Mapping[str, Config],
    datasets: Mapping[str, Artifact],
    adapters: Mapping[str, Artifact],
    path: Path,
    *,
    listener: Listener = SILENT,
) -> Artifact:
    """Return the perplexity of each agent's adapter on what every agent's data holds out.

    Each adapter reads the rows in the template that it was trained with. The base's weights are read once.

    Args:
        configs: Of two agents or more, by their names; all of one base.
        datasets: Of each.
        adapters: Of each.
        path: Folder to write.
        listener: Told how far it is.

    Raises:
        TunewrightError: E_USAGE, there is one agent only. E_DATA_EMPTY, E_DATA_ROW, held-out rows cannot be read.
            E_MODEL, E_ARTIFACT_INVALID, a model cannot be used.
    """
    from tunewright.evaluate._cross import cross

    if len(configs) < 2:
        raise failure("E_USAGE", "One agent cannot be compared with others.", where=path)
    return cross(configs, datasets, adapters, path, cross_settings(configs), listener)
