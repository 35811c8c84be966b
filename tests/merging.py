"""Tiny random bases with adapters of every kind that PEFT makes, for tests of merging."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

FAMILIES = ("qwen3", "llama", "mistral", "qwen2")
SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
IDS = torch.arange(3, 67).view(2, 32)
TIED = {"tie_word_embeddings": True}
ALL = {"target_modules": "all-linear"}
FEATURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": (ALL, {}),
    "rslora": (ALL | {"use_rslora": True}, {}),
    "patterns": (
        ALL
        | {
            "rank_pattern": {"down_proj": 7, r"layers\.1\.self_attn\.q_proj": 2},
            "alpha_pattern": {r"layers\.0\..*k_proj": 3, "up_proj": 40},
        },
        {},
    ),
    "rslora patterns": (ALL | {"rank_pattern": {"o_proj": 9}, "use_rslora": True}, {}),
    "dora": (ALL | {"use_dora": True}, {}),
    "head": ({"target_modules": ["q_proj", "lm_head"]}, {}),
    "dora head": ({"target_modules": ["lm_head"], "use_dora": True}, {}),
    "embedding": ({"target_modules": ["embed_tokens", "v_proj"]}, {}),
    "dora embedding": ({"target_modules": ["embed_tokens", "v_proj"], "use_dora": True}, {}),
    "whole": ({"modules_to_save": ["embed_tokens", "lm_head", "norm"]}, {}),
    "whole layer": ({"target_modules": ["q_proj"], "modules_to_save": ["down_proj"]}, {}),
    "tokens": ({"trainable_token_indices": {"embed_tokens": [3, 90, 5]}}, {}),
    "tokens of both": ({"trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [5]}}, {}),
    "tokens of a tied embedding": ({"trainable_token_indices": [3, 90]}, TIED),
    "tied embedding whole": ({"modules_to_save": ["embed_tokens"]}, TIED),
    "tied embedding whole for both": (
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        TIED,
    ),
    "tied head whole": ({"modules_to_save": ["lm_head"]}, TIED),
    "tied head whole for both": (
        {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
        TIED,
    ),
    "both of a tied pair": ({"modules_to_save": ["lm_head", "embed_tokens"]}, TIED),
    "lora of a tied model": (ALL, TIED),
}
"""Settings of the adapter and of the base, for which PEFT's merge is what its model computes."""
UNLIKE_PEFT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tied embedding": ({"target_modules": ["embed_tokens", "v_proj"]}, TIED),
    "tied embedding for both": (
        {"target_modules": ["embed_tokens", "v_proj"], "ensure_weight_tying": True},
        TIED,
    ),
    "tied head": ({"target_modules": ["lm_head", "v_proj"]}, TIED),
    "tokens of a tied head": ({"trainable_token_indices": {"lm_head": [3, 90]}}, TIED),
}
"""The same, for which PEFT's merge is another model than the one that it trains."""


def make_base(
    folder: Path,
    kind: str,
    *,
    dtype: torch.dtype = torch.float32,
    shards: bool = True,
    **options: Any,
) -> Path:
    """Return the folder of a random base, in several shards by default."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(SIZES | options))
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        # Norms and biases begin as ones and zeros, which hide mistakes.
        for name, value in model.named_parameters():
            if value.dim() == 1:
                value.add_(0.1 * torch.randn_like(value))
            if "embed_tokens" in name or "lm_head" in name:
                value.mul_(10)
    model.save_pretrained(folder, max_shard_size="60KB" if shards else "1GB")
    return folder


def make_adapter(folder: Path, base: Path, *, rows: int | None = None, **options: Any) -> PeftModel:
    """Return a base with an adapter that is far from zero everywhere, after saving the adapter."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base)
        if rows is not None:
            model.resize_token_embeddings(rows)
        settings = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", "target_modules": ["v_proj"]}
        tuned = get_peft_model(model, LoraConfig(**(settings | options)))
        with torch.no_grad():
            for value in tuned.parameters():
                if value.requires_grad:
                    value.add_(0.05 * torch.randn_like(value))
        tuned.save_pretrained(str(folder))
    return tuned.eval()


def merged_by_peft(tuned: PeftModel) -> dict[str, torch.Tensor]:
    """Return the weights that PEFT merges, which ends the model's life as an adapted one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuned.merge_and_unload().state_dict()


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    """Return what a model computes for some tokens."""
    return model.eval()(input_ids=ids).logits.float()


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a model's folder."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def rewrite(folder: Path, name: str, value: torch.Tensor | None) -> None:
    """Put another tensor into the shard that has, or would have, one of this name; None takes it out."""
    files = {file: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    file = next((f for f, tensors in files.items() if name in tensors), min(files))
    tensors = files[file] | {name: value} if value is not None else files[file]
    if value is None:
        del tensors[name]
    save_file({k: v.contiguous() for k, v in tensors.items()}, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        data = json.loads(index.read_text())
        data["weight_map"].pop(name, None)
        data["weight_map"] |= {name: file.name} if value is not None else {}
        index.write_text(json.dumps(data))
