"""What a model's card says, taken from a run's artifacts. No network, no file is read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

from tunewright.artifacts import Artifact
from tunewright.config import version
from tunewright.config.schema import Config
from tunewright.machine import library_versions
from tunewright.models.lora import vllm_faults
from tunewright.publish import Forced

ModelKind = Literal["adapter", "merged", "gguf", "version"]
LANGUAGE_SHARE = 0.05
"""Share of the rows from which a card names a language."""
BUNDLED = "tunewright/tiny"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w", re.ASCII)
_SETTINGS = (
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "weight_decay",
    "max_length",
    "load_in_4bit",
)
_LORA = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_dora", "use_rslora")

_STAGES: Mapping[ModelKind, tuple[str, ...]] = {
    "adapter": ("adapter", "evaluation"),
    "merged": ("adapter", "evaluation", "merged"),
    "gguf": ("adapter", "evaluation", "merged", "exported"),
    "version": ("adapter", "evaluation", "merged", "exported"),
}
"""Stages that a card speaks of."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Base:
    """The model that was tuned.

    Attributes:
        name: For people: no folder of a machine.
        hub_id: `org/name`; None for a local folder and for the bundled base.
        revision: Branch, tag or commit that was asked for.
    """

    name: str
    hub_id: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What the card says.

    Attributes:
        kind: An adapter, a merged model, GGUF files, or a version in the store with its folders.
        title: Heading of the card.
        base: What was tuned.
        version: Of Tunewright.
        prompt: A question as the model was trained on.
        repo_id: `org/name`; None off the Hub.
        related: Other repositories of the same run: `adapter`, `merged`, `gguf`, `dataset` to `org/name`.
        dataset: Digest, and by side rows, words and tokens, as far as they are known.
        settings: Option to value, those of the training that matter.
        choices: What was chosen for this machine: name, value, reason.
        train_losses: Step and loss.
        eval_losses: Step and loss on held-out rows.
        best_step: Of the adapter.
        evaluation: Facts of the comparison; None: there was none.
        merged: Facts of the merge; None: not merged.
        ggufs: Type to facts of the file.
        ollama: Ollama can write chats as in the training, and there is a Modelfile.
        gates: Stage and gate.
        forced: That it is passed on in spite of the above.
        license: Licence id of the Hub; None: not chosen.
        languages: ISO 639-1 codes.
        sampling: temperature, top_p, num_ctx, system.
        not_vllm: Why vLLM cannot serve the adapter; nothing: it can.
        added_tokens: Tokens were added to the base's vocabulary.
        libraries: Name to version.
        report: The run's report lies beside the card.
    """

    kind: ModelKind
    title: str
    base: Base
    version: str
    prompt: str = "Hello!"
    repo_id: str | None = None
    related: Mapping[str, str] = field(default_factory=dict[str, str])
    dataset: Mapping[str, Any] = field(default_factory=dict[str, Any])
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    choices: Sequence[Mapping[str, Any]] = ()
    train_losses: Points = ()
    eval_losses: Points = ()
    best_step: int | None = None
    evaluation: Mapping[str, Any] | None = None
    merged: Mapping[str, Any] | None = None
    ggufs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    ollama: bool = False
    gates: Sequence[tuple[str, Mapping[str, Any]]] = ()
    forced: Forced | None = None
    license: str | None = None
    languages: Sequence[str] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any])
    not_vllm: Sequence[str] = ()
    added_tokens: bool = False
    libraries: Mapping[str, str] = field(default_factory=dict[str, str])
    report: bool = False


def base_of(name: str, revision: str | None = None) -> Base:
    """Return a base without the place where it lies on this machine."""
    if name == BUNDLED:
        return Base(name)
    if Path(name).is_dir() or not _HUB_NAME.fullmatch(name):
        folder = PurePath(name.replace("\\", "/")).name
        return Base(" ".join(folder.split()) or "local folder")
    return Base(name, name, revision)


def facts_of(
    artifacts: Mapping[str, Artifact],
    config: Config,
    *,
    kind: ModelKind = "version",
    repo_id: str | None = None,
    related: Mapping[str, str] | None = None,
    types: Sequence[str] | None = None,
    forced: Forced | None = None,
    report: bool = False,
) -> ModelFacts:
    """Return what a card says of a run.

    Args:
        artifacts: By kind; `adapter` has to be there, all others say more.
        config: The run's.
        kind: What the card lies beside.
        repo_id: Repository of the card.
        related: Other repositories of the run.
        types: GGUF types that are passed on; None: all.
        forced: What speaks against it.
        report: The report lies beside the card.
    """
    adapter = artifacts["adapter"].facts
    evaluation, merged, exported = (artifacts.get(k) for k in ("evaluation", "merged", "exported"))
    base = adapter.get("base", config.model.model_name_or_path)
    files = exported.facts.get("files", {}) if exported and kind in ("gguf", "version") else {}
    name = config.publish.adapter or config.name
    speaks_of = _STAGES[kind]
    return ModelFacts(
        kind=kind,
        title=repo_id or f"{config.publish.agent}/{name}",
        base=base_of(base, adapter.get("base_revision", config.model.revision)),
        version=version("tunewright"),
        prompt=_prompt(artifacts.get("dataset"), config),
        repo_id=repo_id,
        related=related or {},
        dataset=_dataset(artifacts),
        settings=_settings(config),
        choices=adapter.get("choices", ()),
        train_losses=_points(adapter.get("train_losses", ())),
        eval_losses=_points(adapter.get("eval_losses", ())),
        best_step=adapter.get("best_step"),
        evaluation=evaluation.facts if evaluation else None,
        merged=merged.facts if merged and "merged" in speaks_of else None,
        ggufs={k: v for k, v in files.items() if types is None or k in types},
        ollama=bool(exported and exported.facts.get("ollama_template")),
        gates=_gates({k: artifacts[k] for k in speaks_of if k in artifacts}, types),
        forced=forced,
        license=config.publish.model_license,
        languages=_languages(artifacts.get("check")),
        sampling=config.export.model_dump(include={"temperature", "top_p", "num_ctx", "system"}),
        not_vllm=vllm_faults(
            config.train.lora.model_dump()
            | {"trainable_token_indices": config.model.extra_special_tokens}
        ),
        added_tokens=bool(config.model.extra_special_tokens),
        libraries=library_versions(),
        report=report,
    )


def _dataset(artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return digest, rows, words and tokens; without the dataset, what the training knows of it."""
    adapter, dataset = artifacts["adapter"], artifacts.get("dataset")
    found: dict[str, Any] = {"digest": adapter.parents.get("dataset"), "rows": {}}
    found["rows"] = adapter.facts.get("rows", {})
    if dataset is not None:
        for unit in ("rows", "words", "tokens"):
            counts = {side: dataset.facts.get(f"{side}_{unit}") for side in ("train", "eval")}
            found[unit] = {side: count for side, count in counts.items() if count is not None}
        found["files"] = len(dataset.facts.get("files", ()))
    return found


def _gates(
    artifacts: Mapping[str, Artifact], types: Sequence[str] | None
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return stage and gate; of GGUF types that are not passed on none."""
    found = [
        (stage, gate) for stage, one in artifacts.items() for gate in one.facts.get("gates", ())
    ]
    exported = artifacts.get("exported")
    if types is None or exported is None:
        return found
    others = tuple(f"{name}: " for name in exported.facts.get("files", ()) if name not in types)
    return [one for one in found if not one[1]["gate"].startswith(others or ("\0",))]


def _prompt(dataset: Artifact | None, config: Config) -> str:
    """Return a question: of manuscripts the one of every row, else any."""
    files = dataset.facts.get("files", ()) if dataset else ()
    manuscript = any(file.get("kind") == "manuscript" for file in files)
    return config.prepare.instruction if manuscript else "Hello!"


def _settings(config: Config) -> dict[str, object]:
    train = config.train.model_dump(mode="json")
    rows = train["per_device_train_batch_size"]
    found: dict[str, object] = {k: train[k] for k in _SETTINGS if train[k] is not None}
    found["per_device_train_batch_size"] = rows
    found["gradient_accumulation_steps"] = train["gradient_accumulation_steps"]
    found |= {f"lora.{name}": train["lora"][name] for name in _LORA}
    template = config.model.chat_template
    found["chat_template"] = "the base's own" if template is None else PurePath(template).name
    return found | {"seed": config.seed}


def _languages(check: Artifact | None) -> list[str]:
    found: Mapping[str, float] = check.facts.get("languages", {}) if check else {}
    return [name for name, share in found.items() if share >= LANGUAGE_SHARE]


def _points(pairs: Sequence[Sequence[float]]) -> Points:
    return [(pair[0], pair[1]) for pair in pairs]
