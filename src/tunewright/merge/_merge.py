"""The merge stage: shard by shard, so that memory is one shard and not the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tunewright.artifacts import Artifact, load_artifact, sha256, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.machine import require_space
from tunewright.merge._proof import Agreement, agreement, tensor_differences
from tunewright.models._load import resolve_model
from tunewright.models._weights import check_adapter, save_tensors, shapes_of
from tunewright.models.lora import Lora, read_lora

CARRIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def merge(config: Config, adapter: Artifact, dataset: Artifact, listener: Listener) -> Artifact:
    """Merge and prove; see the facade."""
    adapter = load_artifact(adapter.path, "adapter", verify=True)
    base = resolve_model(config.model.model_name_or_path, config.model.revision)
    _same_base(base, adapter)
    check_adapter(adapter.path, shapes_of(base))
    shards = sorted(base.glob("*.safetensors"))
    path = Path(config.run_dir) / "merged"
    require_space(path, sum(shard.stat().st_size for shard in shards))
    settings = settings_of(config, "merged")
    parents = {"adapter": adapter, "dataset": dataset}
    with writing(path, "merged", settings=settings, parents=parents) as draft:
        merged = merge_folder(base, adapter.path, draft.path, listener)
        listener.started("merge: proof", None, "rows")
        found = prove(base, adapter.path, draft.path, dataset.path / "eval.jsonl", config)
        draft.facts |= vars(found) | {
            "tensors_merged": merged,
            "gates": _gates(found, merged, config),
        }
    return load_artifact(path, "merged")


def merge_folder(base: Path, adapter: Path, out: Path, listener: Listener) -> int:
    """Write the merged model of two folders into a third; return the number of tensors changed.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, the adapter has weights that fit no tensor of the base.
    """
    lora = read_lora(adapter)
    deltas = load_file(adapter / "adapter_model.safetensors")
    used: set[str] = set()
    shards = sorted(base.glob("*.safetensors"))
    listener.started("merge", len(shards), "shards")
    for done, shard in enumerate(shards, 1):
        save_tensors(out / shard.name, _merge_shard(shard, lora, deltas, used))
        listener.advanced(done, shard.name)
    unused = sorted(set(deltas) - used)
    if unused:
        raise failure(
            "E_ARTIFACT_INVALID",
            f"{len(unused)} adapter weights fit no tensor of the base, the first is '{unused[0]}'.",
            where=adapter / "adapter_model.safetensors",
            fix="Merge into the base that the adapter was trained on.",
        )
    _carry(base, adapter, out)
    return len(used) // 2


def prove(base: Path, adapter: Path, merged: Path, rows: Path, config: Config) -> Agreement:
    """Return how well the merged model agrees with base and adapter.

    Raises:
        TunewrightError: E_GATE_MERGE with every tensor that differs, or the figures.
    """
    wrong = tensor_differences(base, adapter, merged)
    if wrong:
        raise TunewrightError(
            Problem(
                "E_GATE_MERGE",
                f"'{name}' {reason}.",
                str(merged),
                "Merge again; if it fails again, the base or adapter has changed.",
            )
            for name, reason in wrong
        )
    found = agreement(base, adapter, merged, rows, config.train.max_length)
    limits = config.merge
    if not _agrees(found, config):
        raise failure(
            "E_GATE_MERGE",
            f"Mean KL {found.mean_kl:.2e} nats (limit {limits.max_mean_kl:.0e}), top-1 agreement "
            f"{found.top1_agreement:.2%} (limit {limits.min_top1_agreement:.0%}).",
            where=merged,
        )
    return found


def _merge_shard(
    shard: Path, lora: Lora, deltas: dict[str, torch.Tensor], used: set[str]
) -> dict[str, torch.Tensor]:
    merged: dict[str, torch.Tensor] = {}
    with safe_open(shard, framework="pt") as stream:
        for name in stream.keys():  # noqa: SIM118 - not a mapping
            weight = stream.get_tensor(name)
            keys = lora.keys_of(name)
            if keys[0] in deltas and keys[1] in deltas:
                a_RI, b_OR = (deltas[key].float() for key in keys)
                update_OI = lora.scale * (b_OR @ a_RI)
                if update_OI.shape != weight.shape:
                    raise failure(
                        "E_ARTIFACT_INVALID",
                        f"'{name}' is {tuple(weight.shape)} in the base, {tuple(update_OI.shape)} in the adapter.",
                        where=shard,
                    )
                weight = (weight.float() + update_OI).to(weight.dtype)
                used.update(keys)
            merged[name] = weight.contiguous()
    return merged


def _same_base(base: Path, adapter: Artifact) -> None:
    expected: dict[str, str] = adapter.facts["base_files"]
    problems = [
        Problem(
            "E_ARTIFACT_INVALID",
            "The base has changed since the adapter was trained on it.",
            str(base / name),
            "Restore the base, or train again.",
        )
        for name, digest in expected.items()
        if not (base / name).is_file() or sha256(base / name) != digest
    ]
    if problems:
        raise TunewrightError(problems)


def _carry(base: Path, adapter: Path, out: Path) -> None:
    """Copy what makes the weights a model: config from the base, tokenizer and template from the run."""
    index = base / "model.safetensors.index.json"
    for source in [base / "config.json", *([index] if index.is_file() else [])]:
        shutil.copyfile(source, out / source.name)
    for name in CARRIED:
        source = adapter / name if (adapter / name).is_file() else base / name
        if source.is_file():
            shutil.copyfile(source, out / name)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    sizes = _sizes(out)
    config["vocab_size"] = sizes.get("model.embed_tokens.weight", config["vocab_size"])
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _sizes(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, framework="pt") as stream:
            sizes |= {k: stream.get_slice(k).get_shape()[0] for k in stream.keys()}  # noqa: SIM118
    return sizes


def _agrees(found: Agreement, config: Config) -> bool:
    """Tell whether the figures keep to the limits; a figure that is no number does not."""
    limits = config.merge
    return found.mean_kl <= limits.max_mean_kl and found.top1_agreement >= limits.min_top1_agreement


def _gates(found: Agreement, merged: int, config: Config) -> list[dict[str, Any]]:
    return [
        {
            "gate": "every merged tensor is base + scale * B A",
            "value": f"{merged} changed, the rest identical",
            "limit": "one rounding",
            "passed": True,
        },
        {
            "gate": "merged computes what base with adapter computes",
            "value": f"mean KL {found.mean_kl:.1e} nats, top-1 {found.top1_agreement:.1%}",
            "limit": f"{config.merge.max_mean_kl:.0e}, {config.merge.min_top1_agreement:.0%}",
            "passed": _agrees(found, config),
        },
    ]
