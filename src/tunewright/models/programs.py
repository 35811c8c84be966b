"""What in a model's folder asks for other people's code to be run: it is refused, since nothing here runs any. Pure.

Source: the keys by which Transformers 5 finds modules (`auto_map`, `custom_pipelines`) and kernels (the names of an
attention or of experts: `org/name` fetches one from the Hub).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from tunewright.errors import Problem, TunewrightError, failure

ASKING = frozenset(
    {"auto_map", "custom_pipelines", "trust_remote_code", "_attn_implementation_internal"}
)
"""Keys that name modules, or say that they may be run."""
KERNELS = frozenset(
    f"{prefix}{part}_implementation" for prefix in ("", "_") for part in ("attn", "experts")
)
"""Keys that name a kernel; a plain word is one that Transformers brings."""
DATA = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Files of words, which have any keys."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Endings of files that run code when they are loaded."""
FIX = "Do not use this model before you know why; Tunewright runs no code that comes with one."


def is_pickled(name: str) -> bool:
    """Return whether a file of this name is one that can run code when it is loaded."""
    return name.lower().endswith(PICKLED)


def pickled_weights(path: Path | str) -> TunewrightError:
    """Return the error for weights that are pickled, with the command that rewrites them."""
    old = Path(path).parent if Path(path).name.startswith("adapter_model") else path
    fix = f"Take the same model as safetensors, or: tunewright convert {old} {old}-safetensors"
    return failure("E_UNSAFE_FORMAT", "The weights are pickled.", where=path, fix=fix)


def refuse_programs(folder: Path) -> None:
    """Refuse a folder with a program in it, or settings that ask for one.

    Raises:
        TunewrightError: E_UNSAFE_FORMAT for each file and each key.
    """
    problems = [
        Problem("E_UNSAFE_FORMAT", f"The folder has a program: {file.name}.", str(file), FIX)
        for file in sorted(folder.glob("*.py"))
    ]
    for file in sorted(folder.glob("*.json")):
        if file.name in DATA or file.name.endswith(".index.json"):
            continue
        problems += [
            Problem("E_UNSAFE_FORMAT", f"The settings ask to run code: '{key}'.", str(file), FIX)
            for key in dict.fromkeys(_asked(_read(file), ""))
        ]
    if problems:
        raise TunewrightError(problems)


def _read(file: Path) -> Any:
    """Return what a file says; one that is not JSON is refused by whoever needs it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def _asked(value: Any, place: str) -> Iterator[str]:
    """Yield the dotted keys that ask for code."""
    inner: Sequence[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inner = list(cast("dict[str, Any]", value).items())
    elif isinstance(value, list):
        inner = [(str(n), item) for n, item in enumerate(cast("list[Any]", value))]
    for key, item in inner:
        where = f"{place}.{key}" if place else key
        named = key in KERNELS and isinstance(item, str) and not item.isidentifier()
        if (key in ASKING and item) or named:
            yield where
        else:
            yield from _asked(item, where)
