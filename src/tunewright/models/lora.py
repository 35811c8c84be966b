"""What adapter_config.json says about how a LoRA update is applied. Pure."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import Problem, TunewrightError

PREFIX = "base_model.model."
_UNSUPPORTED = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "trainable_token_indices",
    "lora_bias",
)


@dataclass(frozen=True)
class Lora:
    """A LoRA update: W + scale * B A.

    Attributes:
        scale: lora_alpha / r, or lora_alpha / sqrt(r) for rsLoRA.

    Source: Hu et al. 2021, "LoRA"; Kalajdzievski 2023, "A rank stabilization scaling factor" (rsLoRA).
    """

    scale: float

    def keys_of(self, tensor: str) -> tuple[str, str]:
        """Return the names of A and B that belong to a tensor of the base, as PEFT saves them."""
        stem = PREFIX + tensor.removesuffix(".weight")
        return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def read_lora(adapter: Path) -> Lora:
    """Return the update that an adapter folder describes.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID for each feature of the adapter that merging does not know.
    """
    file = adapter / "adapter_config.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    problems = [
        Problem(
            "E_ARTIFACT_INVALID",
            f"'{key}' is set, and merging does not know it.",
            str(file),
            "Merge with PEFT's merge_and_unload.",
        )
        for key in _UNSUPPORTED
        if data.get(key)
    ]
    if data.get("peft_type") != "LORA":
        problems.append(
            Problem(
                "E_ARTIFACT_INVALID", "It is not a LoRA adapter.", str(file), "Name a LoRA adapter."
            )
        )
    if problems:
        raise TunewrightError(problems)
    root = math.sqrt(data["r"]) if data.get("use_rslora") else data["r"]
    return Lora(data["lora_alpha"] / root)
