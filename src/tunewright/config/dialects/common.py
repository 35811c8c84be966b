"""What the keys of several dialects mean: values that have to be understood before they are ours."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, cast

from tunewright.config.dialects.reading import Handler, Reading
from tunewright.config.names import usable_name
from tunewright.config.text import shown

OPTIMIZERS: Mapping[str, str] = {
    "adamw_8bit": "adamw_bnb_8bit",
    "adamw_hf": "adamw_torch",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
"""Names of optimizers that are another's."""
TRACKERS = ("tensorboard", "trackio", "wandb")
UPLOADS = (
    "training uploads nothing; `tunewright push` does, once the run was compared with its base"
)
_AT_THE_END = "is publish.push_to_hub: `tunewright run` uploads the adapter at its end, once it was compared with its base"


def agrees(*values: object, otherwise: str) -> Handler:
    """Return a handler for a key that says what is done anyway, or says so in a note."""

    def handler(reading: Reading, key: str, value: Any) -> None:
        if value not in values:
            reading.note(otherwise, key)

    return handler


def optimizer(reading: Reading, key: str, value: Any) -> None:
    """Take an optimizer, by any of its names."""
    name = str(value).removeprefix("OptimizerNames.").lower() if isinstance(value, str) else value
    reading.put("train.optim", OPTIMIZERS.get(name, name) if isinstance(name, str) else name, key)


def several(native: str) -> Handler:
    """Return a handler for a list that may be a single text."""

    def handler(reading: Reading, key: str, value: Any) -> None:
        reading.put(native, [value] if isinstance(value, str) else value, key)

    return handler


def target_modules(reading: Reading, key: str, value: Any) -> None:
    """Take the modules that get an adapter."""
    text = isinstance(value, str)
    linear = text and value.replace("_", "-") == "all-linear"
    names = "all-linear" if linear else [value] if text else value
    reading.put("train.lora.target_modules", names, key)


def switch(native: str, on: object) -> Handler:
    """Return a handler that sets an option where the key is true; false leaves it as it is."""

    def handler(reading: Reading, key: str, _: Any) -> None:
        if reading.flag(key):
            reading.put(native, on, key)

    return handler


def bfloat16(reading: Reading, key: str, value: Any) -> None:
    """Take bf16: what was asked for holds on every machine."""
    if value == "auto":
        return
    wanted = reading.flag(key)
    if wanted:
        reading.put("train.dtype", "bfloat16", key)
        reading.note(
            "is train.dtype: bfloat16, also where float32 is faster (train.dtype: auto measures)",
            key,
        )
    elif wanted is False:
        reading.note("the precision is chosen: train.dtype", key)


def dtype(native: str) -> Handler:
    """Return a handler for a precision by its name, such as `torch.bfloat16`."""

    def handler(reading: Reading, key: str, value: Any) -> None:
        name = value.removeprefix("torch.") if isinstance(value, str) else value
        name = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(str(name), name)
        if name == "float16" and native == "train.dtype":
            reading.note("nothing is trained in float16; the precision is chosen: train.dtype", key)
        else:
            reading.put(native, name, key)

    return handler


def repository(reading: Reading, key: str, value: Any) -> None:
    """Take the repository of the adapter; a name without its owner is for the Hub to complete."""
    if isinstance(value, str) and "/" not in value:
        reading.note("a repository is named org/name: publish.hub_model_id", key)
    else:
        reading.put("publish.hub_model_id", value, key)


def uploads(reading: Reading, key: str) -> None:
    """Let a run end with the upload of the adapter that a key asks for, if it is known where to."""
    if reading.tree.get("publish", {}).get("hub_model_id") is None:
        reading.note("no repository org/name is given for it: publish.hub_model_id", key)
    else:
        reading.put("publish.push_to_hub", ["adapter"], key)
        reading.note(_AT_THE_END, key)


def checkpointing(reading: Reading, key: str, value: Any) -> None:
    """Take gradient checkpointing; its variants are the plain one."""
    if isinstance(value, str) and value != "auto":
        reading.note(f"{shown(value)} is not available, activations are recomputed", key)
        value = True
    reading.put("train.gradient_checkpointing", value, key)


def packing(reading: Reading, key: str, _: Any) -> None:
    """Take packing as batches of rows of like length."""
    if reading.flag(key):
        reading.put("train.train_sampling_strategy", "group_by_length", key)
        reading.note(
            "rows of like length share a batch instead, which saves the same padding, and no row can see "
            "another",
            key,
        )


def by_length(reading: Reading, key: str, _: Any) -> None:
    """Take group_by_length."""
    wanted = reading.flag(key)
    if wanted is not None:
        order = "group_by_length" if wanted else "random"
        reading.put("train.train_sampling_strategy", order, key)


def strategy(reading: Reading, key: str, value: Any) -> None:
    """Take an interval's unit: ours are steps."""
    if value != "steps":
        reading.note(
            "evaluations and checkpoints are counted in steps; unset, there are twenty, at least one an "
            "epoch (train.eval_steps, train.save_steps)",
            key,
        )


def interval(native: str) -> Handler:
    """Return a handler for steps between two of something; a share of the run is not taken over."""

    def handler(reading: Reading, key: str, value: Any) -> None:
        if isinstance(value, float) and 0 < value < 1:
            reading.note(f"a share of the run is not taken over: {native} counts steps", key)
        else:
            reading.put(native, value, key)

    return handler


def an_epoch(reading: Reading, key: str, _: Any) -> None:
    """Say how often evaluations and checkpoints come."""
    strategy(reading, key, "epoch")


def max_steps(reading: Reading, key: str, value: Any) -> None:
    """Take the steps of the run; -1 is none."""
    if value not in (-1, 0):
        reading.put("train.max_steps", value, key)


def warmup(reading: Reading, key: str, value: Any) -> None:
    """Take warm-up steps: less than one is a share, 0 beside a share is none."""
    if isinstance(value, float) and 0 < value < 1:
        reading.put("train.warmup_ratio", value, key)
    elif value != 0 or "warmup_ratio" not in reading.keys:
        reading.put("train.warmup_steps", value, key)


def held_out(reading: Reading, key: str, value: Any) -> None:
    """Take the share of the data that is held out."""
    count = isinstance(value, int) and not isinstance(value, bool) and value > 1
    if count or value in (0, "0") or value is False:
        reading.note("rows are always held out, as a share of the data: prepare.eval_split", key)
    elif isinstance(value, str) and not re.fullmatch(r"[\d.eE+-]+", value):
        reading.note("the held-out side is split off the data: prepare.eval_split", key)
    else:
        reading.put("prepare.eval_split", value, key)


def trackers(reading: Reading, key: str, value: Any) -> None:
    """Take where metrics go."""
    given = cast("list[Any]", value) if isinstance(value, list) else [value]
    known = [name for name in given if name in TRACKERS]
    others = [name for name in given if name not in (*TRACKERS, "none")]
    if others:
        names = ", ".join(shown(name) for name in others)
        reading.note(
            f"metrics go to {', '.join(TRACKERS)} and to metrics.jsonl, not to {names}", key
        )
    reading.put("train.report_to", known, key)


def special_tokens(reading: Reading, key: str, value: Any) -> None:
    """Take tokens that are added; the tokenizer's own stay as they are."""
    if not isinstance(value, dict):
        reading.refuse("should be a mapping", "Write special_tokens: {pad_token: ...}.", key)
        return
    for name, token in cast("dict[Any, Any]", value).items():
        if name == "additional_special_tokens":
            reading.put("model.extra_special_tokens", token, key, name)
        elif token is not None:
            reading.note("the tokenizer's own are used", key, str(name))


def chat_template(reading: Reading, key: str, value: Any) -> None:
    """Take a chat template: one of ours, or a file."""
    ours = ("alpaca", "style-prompt", "plain")
    file = isinstance(value, str) and value.endswith((".jinja", ".jinja2", ".j2"))
    if file or value in ours or not isinstance(value, str):
        reading.put("model.chat_template", value, key)
    elif value != "tokenizer_default":
        reading.note(
            "the model's own chat template is used; for another, name a Jinja file in model.chat_template",
            key,
        )


def name_run(reading: Reading, *keys: str) -> None:
    """Name the run as the first of the keys that is given does, else as its folder is."""
    for key in keys:
        given = reading.keys.get(key)
        if given is None:
            continue
        text = str(given)
        name = usable_name(text)
        if name != text:
            reading.put("train.run_name", text, key)
        if name:
            reading.put("name", name, key)
            return
    folder = reading.keys.get("output_dir")
    name = usable_name(PurePath(folder).name) if isinstance(folder, str) else None
    if name:
        reading.put("name", name, "output_dir")


HANDLERS: Mapping[str, Handler] = {
    "lora_modules_to_save": several("train.lora.modules_to_save"),
    "bf16": bfloat16,
    "torch_dtype": dtype("train.dtype"),
    "gradient_checkpointing": checkpointing,
    "max_steps": max_steps,
    "warmup_steps": warmup,
    "eval_steps": interval("train.eval_steps"),
    "save_steps": interval("train.save_steps"),
    "logging_steps": interval("train.logging_steps"),
    "eval_strategy": strategy,
    "evaluation_strategy": strategy,
    "save_strategy": strategy,
    "group_by_length": by_length,
    "load_best_model_at_end": agrees(
        True,
        otherwise="the adapter of the best evaluation is kept; the last one is in its checkpoint",
    ),
    "metric_for_best_model": agrees(
        "eval_loss", "loss", otherwise="the best evaluation is the one with the lowest loss"
    ),
    "greater_is_better": agrees(
        False, otherwise="the best evaluation is the one with the lowest loss"
    ),
    "trust_remote_code": agrees(False, otherwise="code of a model is never run"),
    "save_safetensors": agrees(True, otherwise="weights are safetensors"),
}
"""Keys that all dialects have, with the same meaning."""
