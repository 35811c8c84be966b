"""What weights from outside must be before anything loads them: bases and adapters."""

import json
import math
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tunewright.errors import Problem, TunewrightError, failure
from tunewright.models.changes import replaced_by
from tunewright.models.headers import HeaderError, Stored, read_header
from tunewright.models.lora import PREFIX
from tunewright.models.programs import is_pickled, pickled_weights, refuse_programs

ADAPTER = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
_INDEX = "*.safetensors.index.json"
_PLAIN = re.compile(r"[^/\\:\0]+")
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B)"
)
_SMALL = re.compile(r"\.(lora_[AB]\.bias|lora_magnitude_vector(\.weight)?|trainable_tokens_delta)$")
"""Parts that have no shape of their own to hold against the base."""


@contextmanager
def as_os_errors(file: Path) -> Generator[None]:
    """Turn what a library written in Rust says of a refusal by the system into an OSError with the path."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def save_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file.

    Raises:
        OSError: The system refused.
    """
    with as_os_errors(file):
        file.touch()
        mode = file.stat().st_mode
        save_file(tensors, file, metadata={"format": "pt"})
        # It writes a file that only its owner may read; a server may run as another user.
        file.chmod(mode)


def check_base(folder: Path) -> None:
    """Refuse a model whose weights are not whole, or whose index names files outside its folder.

    Reads indexes and headers only.

    Raises:
        TunewrightError: E_UNSAFE_PATH for each name in an index that is not one of a file in the folder.
            E_MODEL for each shard that is missing, damaged or without a tensor that the index promises.
    """
    indexes = {file: _weight_map(file) for file in sorted(folder.glob(_INDEX))}
    unsafe = [
        Problem(
            "E_UNSAFE_PATH",
            f"The index names a file that is not in the folder: {shard!r}.",
            str(file),
            "Do not use this model; fetch it again from where you trust.",
        )
        for file, shards in indexes.items()
        for shard in dict.fromkeys(shards.values())
        if not _PLAIN.fullmatch(shard) or shard in (".", "..")
    ]
    if unsafe:
        raise TunewrightError(unsafe)
    files = sorted(folder.glob("*.safetensors"))
    headers = {file.name: _header(file) for file in files}
    problems = [
        _damaged(folder / name, reason)
        for name, header in headers.items()
        if isinstance(header, list)
        for reason in header
    ]
    for file, shards in indexes.items():
        problems += _unkept(file, shards, headers)
    if problems:
        raise TunewrightError(problems)


def check_adapter(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an adapter that is damaged, holds what is no number, or does not fit the base.

    Args:
        folder: The adapter's.
        shapes: Shape of every weight of the base, by its name.

    Raises:
        TunewrightError: E_UNSAFE_FORMAT, it is pickled or asks to run code. E_ARTIFACT_INVALID for each
            tensor, with the rule that it breaks.
    """
    file = folder / ADAPTER
    _require_safe_format(folder)
    settings = _settings(folder / SETTINGS)
    try:
        header = read_header(file)
    except HeaderError as error:
        raise TunewrightError(
            _invalid(file, f"The file is damaged: {r}.") for r in error.reasons
        ) from error
    except OSError as error:
        raise failure("E_ARTIFACT_INVALID", "The adapter has no weights.", where=file) from error
    reasons = [*_misfits(header, shapes, settings), *_not_finite(file)]
    if reasons:
        raise TunewrightError(_invalid(file, f"{reason}.") for reason in reasons)


def shapes_of(base: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight in a model's folder; a head that is not there is the embedding.

    Raises:
        HeaderError: A file is damaged; `check_base` tells it better.
    """
    found = {
        name: stored.shape
        for file in sorted(base.glob("*.safetensors"))
        for name, stored in read_header(file).items()
    }
    embedding = found.get("model.embed_tokens.weight")
    return ({"lm_head.weight": embedding} if embedding else {}) | found


def shapes_in(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a model; of one in 4 bits that of its layer."""
    found = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
    linears = ((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear))
    return found | {f"{n}.weight": (m.out_features, m.in_features) for n, m in linears}


def _invalid(file: Path, message: str) -> Problem:
    fix = "Train again, or use an adapter of this base."
    return Problem("E_ARTIFACT_INVALID", message, str(file), fix)


def _damaged(file: Path, reason: str) -> Problem:
    return Problem(
        "E_MODEL", f"The file is damaged: {reason}.", str(file), "Fetch the model again."
    )


def _header(file: Path) -> dict[str, Stored] | list[str]:
    try:
        return read_header(file)
    except HeaderError as error:
        return error.reasons


def _weight_map(file: Path) -> dict[str, str]:
    """Return the file of each tensor, as an index says.

    Raises:
        TunewrightError: E_MODEL, it is no index.
    """
    try:
        shards = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(shard, str) for shard in shards.values()):
            raise TypeError("a shard has no name")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise failure(
            "E_MODEL", "The index cannot be read.", where=file, fix="Fetch the model again."
        ) from error
    return shards


def _unkept(
    file: Path, shards: Mapping[str, str], headers: Mapping[str, dict[str, Stored] | list[str]]
) -> Iterator[Problem]:
    """Give a problem for each shard that an index names and that does not hold what it should."""
    for shard in dict.fromkeys(shards.values()):
        header = headers.get(shard)
        if header is None:
            yield _damaged(file.parent / shard, "it is missing, and the index names it")
        elif isinstance(header, dict):
            lost = [n for n, place in shards.items() if place == shard and n not in header]
            if lost:
                reason = f"it lacks {len(lost)} tensors of the index, the first is '{lost[0]}'"
                yield _damaged(file.parent / shard, reason)


def _require_safe_format(folder: Path) -> None:
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    pickled = [name for name in names if name.startswith("adapter_model") and is_pickled(name)]
    if pickled:
        raise pickled_weights(folder / pickled[0])
    refuse_programs(folder)


def _settings(file: Path) -> Mapping[str, Any]:
    """Return what adapter_config.json says.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, it is not LoRA's. E_UNSAFE_FORMAT, it names code.
    """
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        is_lora = settings["peft_type"] == "LORA" and settings["r"] > 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise failure(
            "E_ARTIFACT_INVALID", "adapter_config.json cannot be read.", where=file
        ) from error
    if not is_lora:
        raise failure("E_ARTIFACT_INVALID", "It is not a LoRA adapter.", where=file)
    # PEFT imports the module that stands beside it under `megatron_core`.
    if settings.get("megatron_config"):
        raise failure("E_UNSAFE_FORMAT", "It asks to run code ('megatron_config').", where=file)
    return settings


def _misfits(
    header: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]
) -> Iterator[str]:
    """Give what does not fit: a part without its other, a rank, a shape, a module."""
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, stored in header.items():
        if not name.startswith(PREFIX):
            yield f"'{name}' is no name of an adapter's tensor"
        elif match := _PART.fullmatch(name, len(PREFIX)):
            modules.setdefault(match["module"], {})[match["part"]] = stored.shape
        elif not _SMALL.search(name):
            plain = replaced_by(name)
            yield from _whole(plain, stored.shape, shapes) if plain else ()
    if not modules and not header:
        yield "It has no tensors"
    ranks = None if settings.get("rank_pattern") else settings["r"]
    for module, parts in modules.items():
        yield from _pair(module, parts, shapes.get(f"{module}.weight"), ranks, settings)


def _whole(
    name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """Hold a module that was trained whole against the base's; an embedding may have more rows."""
    base = shapes.get(name)
    if base is None:
        yield f"'{name}' fits no tensor of the base"
    elif len(shape) != len(base) or not _fits(shape, base, grows=len(base) == 2):
        yield f"'{name}' is {list(shape)} in the adapter and {list(base)} in the base"


def _pair(
    module: str,
    parts: Mapping[str, tuple[int, ...]],
    base: tuple[int, ...] | None,
    rank: int | None,
    settings: Mapping[str, Any],
) -> Iterator[str]:
    """Hold A and B of a module against each other, the rank and the base's weight."""
    # Fused experts keep their LoRA under the block's name, in a shape of PEFT's own.
    if settings.get("target_parameters"):
        return
    embeds = any("embedding" in part for part in parts)
    names = (
        ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A.weight", "lora_B.weight")
    )
    if parts.keys() != set(names):
        yield f"'{module}' has {' and '.join(sorted(parts))}, and not just A and B"
        return
    a, b = (parts[name] for name in names)
    if len(a) < 2 or len(b) < 2 or a[0] != b[1]:
        yield f"'{module}' has A {list(a)} and B {list(b)}, which make no product"
        return
    if rank is not None and a[0] != rank:
        yield f"'{module}' has rank {a[0]}, and {SETTINGS} says {rank}"
    if base is None:
        yield f"'{module}' fits no tensor of the base"
        return
    update = (a[1], b[0]) if embeds or settings.get("fan_in_fan_out") else (b[0], a[1])
    # A convolution's A and B have its kernel's sizes too, which PEFT itself checks.
    grows = embeds or module.endswith("lm_head")
    if len(a) == len(b) == len(base) == 2 and not _fits(update, base, grows=grows):
        yield f"'{module}' changes a weight of {list(update)}, and the base's is {list(base)}"


def _fits(shape: tuple[int, ...], base: tuple[int, ...], *, grows: bool) -> bool:
    """Tell whether a shape is the base's; an embedding or head may have got more rows."""
    return shape == base or (grows and shape[0] > base[0] and shape[1:] == base[1:])


def _not_finite(file: Path) -> Iterable[str]:
    """Give each tensor that holds NaN or infinity."""
    with safe_open(file, framework="pt") as stream:
        for name in stream.keys():  # noqa: SIM118 - not a mapping
            tensor = stream.get_tensor(name)
            if not tensor.is_floating_point():
                continue
            wrong = int((~torch.isfinite(tensor.float())).sum())
            if wrong:
                total = math.prod(tensor.shape)
                yield f"'{name}' holds NaN or infinity in {wrong:,} of {total:,} places"
