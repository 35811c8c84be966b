"""Each adapter's losses on what every agent's data holds out, on one base."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError
from tunewright.evaluate._local import Local, labelled, load_pair
from tunewright.evaluate.cross import BASE, Loss, matrix
from tunewright.evaluate.material import Row, rows_of, spread
from tunewright.events import Listener
from tunewright.models import weights_kept
from tunewright.models._folders import resolve_model
from tunewright.models._place import loading
from tunewright.models.sampling import Sampling

MAX_ROWS = 200
"""Of each agent's held-out rows."""


def cross(
    configs: Mapping[str, Config],
    datasets: Mapping[str, Artifact],
    adapters: Mapping[str, Artifact],
    path: Path,
    settings: Mapping[str, Any],
    listener: Listener,
) -> Artifact:
    """Do what `compare_agents` says."""
    parents = {f"{agent}/dataset": one for agent, one in datasets.items()}
    parents |= {f"{agent}/adapter": one for agent, one in adapters.items()}
    with writing(path, "cross", settings=settings, parents=parents) as draft:
        rows = {
            agent: spread(rows_of(one.path / "eval.jsonl"), MAX_ROWS)
            for agent, one in datasets.items()
        }
        losses = _losses(configs, adapters, rows, listener)
        first = next(iter(configs.values()))
        draft.facts |= matrix(losses, samples=first.compare.bootstrap_samples, seed=first.seed)
    return load_artifact(path, "cross")


def _losses(
    configs: Mapping[str, Config],
    adapters: Mapping[str, Artifact],
    rows: Mapping[str, Sequence[Row]],
    listener: Listener,
) -> dict[str, dict[str, list[Loss]]]:
    """Return whose data -> model -> what it loses on each row that all of them read alike to the end."""
    found: dict[str, dict[str, dict[int, Loss]]] = {agent: {} for agent in configs}
    with weights_kept():
        for agent, config in configs.items():
            base = resolve_model(config.model.model_name_or_path, config.model.revision)
            how = loading(base, config.train)
            sampling = Sampling(1, temperature=0.0, top_p=1.0)
            off, on = load_pair(
                base, adapters[agent].path, sampling=sampling, names=(BASE, agent), **how
            )
            for whose, of_data in rows.items():
                limit = configs[whose].train.max_length
                found[whose][agent] = _lost(on, of_data, limit, whose, listener)
            found[agent][BASE] = _lost(off, rows[agent], config.train.max_length, agent, listener)
    common = {whose: _common(models) for whose, models in found.items()}
    problems = [
        Problem(
            "E_NOTHING_TO_LEARN",
            f"None of {len(rows[whose])} held-out rows of '{whose}' has an answer within {limit} tokens.",
            "train.max_length",
            "Raise it, or give shorter rows.",
        )
        for whose, models in common.items()
        if not models[BASE] and (limit := configs[whose].train.max_length)
    ]
    if problems:
        raise TunewrightError(problems)
    return common


def _alike(losses: Sequence[Loss]) -> bool:
    whole = not any(one.cut for one in losses)
    return whole or len({(one.tokens, one.cut) for one in losses}) == 1


def _lost(
    side: Local, rows: Sequence[Row], max_length: int, whose: str, listener: Listener
) -> dict[int, Loss]:
    given = labelled([row.messages for row in rows], side.vocabulary, max_length)
    listener.started("cross", len(given), f"rows of {whose}, {side.name}")
    losses = side.losses(list(given.values()), lambda done: listener.advanced(done, "perplexity"))
    return {
        index: Loss(nats, len(row.labels), row.cut, rows[index].source_id)
        for (index, row), nats in zip(given.items(), losses, strict=True)
    }


def _common(models: Mapping[str, Mapping[int, Loss]]) -> dict[str, list[Loss]]:
    """Return the losses on the rows in which every model has something to lose, and the same.

    With templates or tokenizers of their own, models may be cut off at different places of a row.
    """
    rows = sorted(set.intersection(*(set(losses) for losses in models.values())))
    shared = [index for index in rows if _alike([of[index] for of in models.values()])]
    return {model: [losses[index] for index in shared] for model, losses in models.items()}
