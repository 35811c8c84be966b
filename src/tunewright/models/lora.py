"""What the settings of PEFT's LoRA adapters say. Pure."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tunewright.errors import Problem, TunewrightError

PREFIX = "base_model.model."
_Value = TypeVar("_Value")

_OTHER_FORMULA = (
    "target_parameters",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "fan_in_fan_out",
)
"""Options under which an adapter is more than W + s B A, or belongs to models of another kind."""
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings that take something out of the base: without it, the adapter is half of what was trained."""


@dataclass(frozen=True)
class Lora:
    """What adapter_config.json says about how an update is applied.

    Attributes:
        r: Rank where `rank_pattern` names no other.
        lora_alpha: Alpha where `alpha_pattern` names no other.
        use_rslora: The scale is alpha / sqrt(r) in place of alpha / r.
        rank_pattern: Rank of the modules whose path ends with a match.
        alpha_pattern: Alpha likewise.
        use_dora: Magnitudes are trained beside directions.
        whole: Ends of the paths of modules that are trained whole.
        tokens: Ids of single rows that are trained, by the end of the module's path.
        keeps_tied: What is trained of the embedding is trained of a tied head as well.

    Source: Hu et al. 2021, "LoRA"; Kalajdzievski 2023, "A rank stabilization scaling factor" (rsLoRA); Liu et
    al. 2024, "DoRA". The names are PEFT's.
    """

    r: int
    lora_alpha: float
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict[str, int])
    alpha_pattern: Mapping[str, float] = field(default_factory=dict[str, float])
    use_dora: bool = False
    whole: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    keeps_tied: bool = False

    def rank_of(self, module: str) -> int:
        """Return the rank of a module's update."""
        return _first(self.rank_pattern, module, self.r)

    def scale_of(self, module: str) -> float:
        """Return what B A is multiplied by."""
        rank = self.rank_of(module)
        alpha = _first(self.alpha_pattern, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def is_whole(self, module: str) -> bool:
        """Tell whether a module is a copy that was trained whole."""
        return module.endswith(self.whole) if self.whole else False

    def tokens_of(self, module: str) -> tuple[int, ...]:
        """Return the ids whose rows are trained."""
        names = (n for n in self.tokens if module == n or module.endswith(f".{n}"))
        return self.tokens.get(next(names, ""), ())


def read_lora(adapter: Path) -> Lora:
    """Return what an adapter folder says of itself.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID for each feature of the adapter that merging does not know.
    """
    file = adapter / "adapter_config.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        problems = [invalid(reason, file, fix) for reason, fix in _unknown(data)]
        found = lora_of(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message, fix = (
            "adapter_config.json cannot be read.",
            "Train again, or name another adapter.",
        )
        raise TunewrightError([invalid(message, file, fix)]) from error
    if problems:
        raise TunewrightError(problems)
    return found


def lora_of(data: Mapping[str, Any]) -> Lora:
    """Return what the settings of an adapter say."""
    tokens = data.get("trainable_token_indices") or {}
    by_name = tokens if isinstance(tokens, dict) else {"embed_tokens": tokens}
    return Lora(
        r=data["r"],
        lora_alpha=data["lora_alpha"],
        use_rslora=bool(data.get("use_rslora")),
        rank_pattern=data.get("rank_pattern") or {},
        alpha_pattern=data.get("alpha_pattern") or {},
        use_dora=bool(data.get("use_dora")),
        whole=tuple(data.get("modules_to_save") or ()),
        tokens={name: tuple(rows) for name, rows in by_name.items()},
        keeps_tied=bool(data.get("ensure_weight_tying")),
    )


def _first(patterns: Mapping[str, _Value], module: str, default: _Value) -> _Value:
    """Return the value of the first pattern that matches the end of a path. Source: PEFT's get_pattern_key."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def invalid(reason: str, where: Path, fix: str) -> Problem:
    """Return what is wrong with an adapter."""
    return Problem("E_ARTIFACT_INVALID", reason, str(where), fix)


def _unknown(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give each reason against merging that the settings hold, and what to do."""
    if data["peft_type"] != "LORA":
        yield "It is not a LoRA adapter.", "Name a LoRA adapter."
        return
    for key in _OTHER_FORMULA:
        if data.get(key):
            yield f"'{key}' is set, and merging does not know it.", "Merge with PEFT itself."
    start = data.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        yield (
            f"It began with '{start}', which takes weights out of the base, and these are not in the adapter.",
            "Save it with PEFT's `path_initial_model_for_weight_conversion`, or train with `tunewright train`.",
        )
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in data.get(key) or {}:
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"'{key}' has '{pattern}', which is no pattern: {error}.", "Correct it."


VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` of vLLM can be.

Source: vLLM's documentation of LoRA adapters: https://docs.vllm.ai
"""


def vllm_faults(settings: Mapping[str, Any]) -> list[str]:
    """Return what of an adapter vLLM cannot serve, in words; nothing: it can."""
    found: list[str] = []
    if settings.get("use_dora"):
        found.append("The adapter is DoRA, which vLLM does not compute")
    if settings.get("modules_to_save"):
        names = ", ".join(settings["modules_to_save"])
        found.append(f"The adapter has modules that were trained whole ({names})")
    if settings.get("trainable_token_indices"):
        found.append("The adapter has tokens that were trained")
    if settings.get("bias", "none") != "none" or settings.get("lora_bias"):
        found.append("The adapter has trained biases")
    if _largest(settings) > VLLM_RANKS[-1]:
        found.append(f"The adapter's rank is {_largest(settings)}, over {VLLM_RANKS[-1]}")
    return found


def vllm_rank(settings: Mapping[str, Any]) -> int:
    """Return the `--max-lora-rank` that an adapter needs."""
    return next((rank for rank in VLLM_RANKS if rank >= _largest(settings)), VLLM_RANKS[-1])


def _largest(settings: Mapping[str, Any]) -> int:
    own: Mapping[str, int] = settings.get("rank_pattern") or {}
    return max([int(settings.get("r", VLLM_RANKS[0])), *own.values()])
