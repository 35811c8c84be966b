"""Which parts of the config determine which stage: change one of them and the stage is done again."""

from collections.abc import Mapping
from typing import Any

from tunewright.config.schema import Config

DETERMINED_BY: Mapping[str, tuple[str, ...]] = {
    "dataset": ("seed", "model", "prepare"),
    "check": ("model", "prepare", "check", "train"),
    "plan": ("model", "train", "accel", "export"),
    "adapter": ("seed", "model", "train"),
    "evaluation": ("seed", "model", "train", "compare"),
    "merged": ("model", "merge"),
    "exported": ("name", "model", "train", "export"),
    "published": ("name", "publish"),
    # it shows the config; only where the run lies makes no difference
    "report": tuple(name for name in Config.model_fields if name != "output_dir"),
}


NO_MATTER = (
    "report_to",
    "run_name",
    "project",
    "save_total_limit",
    "dataloader_num_workers",
    "sample_prompts",
)
"""Options of training that change nothing of what is computed."""


def settings_of(config: Config, kind: str) -> dict[str, Any]:
    """Return the part of the config that determines an artifact of this kind, as a JSON value."""
    found = config.model_dump(mode="json", include=set(DETERMINED_BY[kind]))
    if kind == "published":
        # Where on the Hub it is makes no difference to what is in the store.
        found["publish"] = {
            k: v
            for k, v in found["publish"].items()
            if k != "push_to_hub" and not k.startswith("hub_")
        }
    if kind in ("adapter", "evaluation", "exported"):
        found["train"] = {k: v for k, v in found["train"].items() if k not in NO_MATTER}
    return found
