"""What makes a training impossible, all of it at once."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from stat import S_ISREG

from tunewright.config.schema import Config, TrainSection
from tunewright.errors import Problem
from tunewright.machine import disk_space, process_count
from tunewright.models.families import HEAD, LINEARS, Shape, named
from tunewright.train.methods import (
    STARTS_ABOVE_ZERO,
    UNSLOTH,
    begins_with,
    conflicts,
    optimizer,
    target_names,
)
from tunewright.train.needs import Disk
from tunewright.train.trackers import missing_trackers

OPTIMIZERS_OF_SHARES = ("adamw_torch", "adamw_torch_fused", "sgd")
"""Optimizers whose steps torch can take on a share of each tensor."""
WRITTEN = {
    "checkpoints": "training/checkpoints/checkpoint-*[0-9]/**/*",
    "adapter": "adapter/**/*",
    "merged": "merged/**/*",
    "exports": "exported/**/*",
}
"""Files of a run folder by part of `Disk`; a save that was cut off is none of a checkpoint."""


@dataclass(frozen=True)
class Place:
    """Where a training is to run.

    Attributes:
        device: Kind of device: cuda, mps or cpu.
        has_bfloat16: It computes in bfloat16.
        disk_bytes: What run, merged model and exports still take.
    """

    device: str
    has_bfloat16: bool = True
    disk_bytes: int = 0


def problems_of(config: Config, shape: Shape, highest: int, place: Place) -> list[Problem]:
    """Return everything that is wrong with what is asked for, given the base.

    Args:
        config: What is asked for.
        shape: The base.
        highest: Highest id that the base's own tokenizer can give.
        place: Where it is to run.
    """
    return [
        *_of_base(config, shape, highest),
        *_names(config.train, shape),
        *settings_problems(config.train, place),
        *_backend(config, place),
        *sharding_problems(config, shape, place.device, os.environ),
        *_space(config, place),
    ]


def settings_problems(options: TrainSection, place: Place) -> list[Problem]:
    """Return what is wrong with the options whatever the base is."""
    found = [*conflicts(options, place.device), *missing_trackers(options)]
    needs = _needs_bitsandbytes(options, place.device)
    if needs and find_spec("bitsandbytes") is None:
        message = f"'train.{needs}' needs bitsandbytes, which is not installed."
        found.append(_wrong(needs, message, "pip install bitsandbytes"))
    if options.dtype == "bfloat16" and not place.has_bfloat16:
        message = f"This {place.device} device does not compute in bfloat16."
        found.append(_wrong("dtype", message, "--set train.dtype=auto"))
    return found + _deepspeed(options)


def _backend(config: Config, place: Place) -> list[Problem]:
    """Return what stands against Unsloth, if it is asked for."""
    if config.accel.backend != UNSLOTH:
        return []
    options, lora = config.train, config.train.lora
    back = "--set accel.backend=transformers"
    against = {
        f"It needs an NVIDIA, AMD or Intel GPU, and this is {place.device}.": place.device
        != "cuda",
        "It is not installed: pip install unsloth": find_spec("unsloth") is None,
        "It trains in one process.": process_count() > 1 or options.deepspeed is not None,
        "It computes in bfloat16 here, and train.dtype asks for something else.": options.dtype
        not in ("auto", "bfloat16"),
        f"This {place.device} device does not compute in bfloat16.": not place.has_bfloat16,
        "It has its own attention: leave out train.attn_implementation.": options.attn_implementation
        != "auto",
        "It recomputes everything or nothing: train.gradient_checkpointing is selective.": options.gradient_checkpointing
        == "selective",
        "Its 4 bits are nf4, with double quantisation.": options.load_in_4bit
        and (options.bnb_4bit_quant_type != "nf4" or not options.bnb_4bit_use_double_quant),
        "Its adapters are plain LoRA that begins at zero: no DoRA, other initialisation, module trained whole, "
        "or added token.": bool(
            lora.use_dora
            or lora.init_lora_weights is not True
            or lora.modules_to_save
            or config.model.extra_special_tokens
        ),
    }
    return [
        Problem("E_CONFIG_VALUE", f"Unsloth cannot be used here. {text}", "accel.backend", back)
        for text, holds in against.items()
        if holds
    ]


def _of_base(config: Config, shape: Shape, highest: int) -> list[Problem]:
    found: list[Problem] = []
    if highest >= shape.vocabulary:
        found.append(
            Problem(
                "E_MODEL",
                f"The tokenizer has ids up to {highest}, the embedding has {shape.vocabulary} rows.",
                config.model.model_name_or_path,
                "Use the tokenizer that belongs to the base, or resize the embedding first.",
            )
        )
    if config.train.max_length > shape.context:
        message = f"'train.max_length' is {config.train.max_length}, the model reads {shape.context} tokens."
        found.append(_wrong("max_length", message, f"--set train.max_length={shape.context}"))
    return found


def _names(options: TrainSection, shape: Shape) -> list[Problem]:
    """Return a problem for each name that matches no module."""
    lora, found = options.lora, list[Problem]()
    linears = [module for module in shape.modules if module.is_layer_linear]
    unknown = _unknown(target_names(lora), lambda name: any(named(m, (name,)) for m in linears))
    if HEAD in unknown:
        message = "The output head gets no adapter: its weight is multiplied tile by tile."
        fix = f"--set 'train.lora.modules_to_save=[{HEAD}]' trains it whole."
        found.append(_wrong("lora.target_modules", message, fix))
    others = [name for name in unknown if name != HEAD]
    if others:
        message = f"The model has no linear layer named {', '.join(others)}."
        fix = f"Use names from: {', '.join(LINEARS)}."
        found.append(_wrong("lora.target_modules", message, fix))
    unknown = _unknown(lora.modules_to_save, lambda name: bool(shape.saved_whole((name,))))
    if unknown:
        leaves = dict.fromkeys(module.name.rpartition(".")[2] for module in shape.modules)
        message = f"The model has no module named {', '.join(unknown)}."
        fix = f"Use names from: {', '.join(leaves)}."
        found.append(_wrong("lora.modules_to_save", message, fix))
    return found


def _unknown(names: Sequence[str], is_known: Callable[[str], bool]) -> list[str]:
    return [name for name in names if not is_known(name)]


def _needs_bitsandbytes(options: TrainSection, device: str) -> str | None:
    """Return the option that needs bitsandbytes."""
    if options.load_in_4bit:
        return "load_in_4bit"
    chosen = optimizer(options.optim, device=device, load_in_4bit=False).value
    return "optim" if "8bit" in chosen or "paged" in chosen else None


def _deepspeed(options: TrainSection) -> list[Problem]:
    if options.deepspeed is None:
        return []
    found: list[Problem] = []
    if find_spec("deepspeed") is None:
        message = "'train.deepspeed' is set, and DeepSpeed is not installed."
        found.append(_wrong("deepspeed", message, "pip install deepspeed"))
    file = Path(options.deepspeed)
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        message = f"There is no DeepSpeed config {file}."
        found.append(_wrong("deepspeed", message, "Check the path.", "E_NOT_FOUND"))
    except ValueError as error:
        message = f"The DeepSpeed config is not JSON: {error}."
        found.append(_wrong("deepspeed", message, f"Correct {file}."))
    return found + _selective(options, "under DeepSpeed")


def _selective(options: TrainSection, where: str) -> list[Problem]:
    if options.gradient_checkpointing != "selective":
        return []
    message = (
        f"What is cheap cannot be recomputed by itself {where}: weights come and go meanwhile."
    )
    return [_wrong("gradient_checkpointing", message, "--set train.gradient_checkpointing=true")]


def sharding_problems(
    config: Config, shape: Shape, device: str, environment: Mapping[str, str]
) -> list[Problem]:
    """Return what does not go together with FSDP, which a launcher asks for in the environment.

    Args:
        config: What is asked for.
        shape: The base.
        device: Kind of device.
        environment: Of the process.
    """
    settings = {name: text.lower() for name, text in environment.items()}
    if settings.get("ACCELERATE_USE_FSDP") != "true":
        return []
    found: list[Problem] = []
    if settings.get("FSDP_VERSION") != "2":
        message = "FSDP1 flattens trained and frozen weights into one; FSDP2 keeps them apart."
        fix = "accelerate launch --use_fsdp --fsdp_version 2 ..."
        found.append(Problem("E_CONFIG_VALUE", message, "FSDP_VERSION", fix))
    if settings.get("FSDP_ACTIVATION_CHECKPOINTING") == "true":
        message = "Whether activations are recomputed is a setting of training, not of FSDP."
        fix = "Launch without it, and --set train.gradient_checkpointing=true."
        found.append(Problem("E_CONFIG_VALUE", message, "FSDP_ACTIVATION_CHECKPOINTING", fix))
    if config.model.extra_special_tokens:
        message = "Single rows of the embedding cannot be trained under FSDP."
        fix = "Launch without --use_fsdp."
        found.append(Problem("E_CONFIG_VALUE", message, "model.extra_special_tokens", fix))
    found += _selective(config.train, "under FSDP")
    return found + _unshared(config.train, shape, device)


def _unshared(options: TrainSection, shape: Shape, device: str) -> list[Problem]:
    lora, found = options.lora, list[Problem]()
    if options.load_in_4bit:
        message = "Weights in 4 bits cannot be shared out among processes (FSDP)."
        fix = "--set train.load_in_4bit=false, or launch without --use_fsdp."
        found.append(_wrong("load_in_4bit", message, fix))
    chosen = optimizer(options.optim, device=device, load_in_4bit=False).value
    if chosen not in OPTIMIZERS_OF_SHARES:
        message = f"'{chosen}' does not know weights that are shared out among processes (FSDP)."
        found.append(_wrong("optim", message, "--set train.optim=adamw_torch"))
    # The loss reads the head's weight past FSDP, which then leaves its gradient in each process as it is.
    head = ("embed_tokens", HEAD) if shape.tied else (HEAD,)
    whole = [name for name in lora.modules_to_save if name.rpartition(".")[2] in head]
    if whole:
        message = f"The output head ({', '.join(whole)}) cannot be trained whole under FSDP."
        fix = "Launch without --use_fsdp, or leave it out."
        found.append(_wrong("lora.modules_to_save", message, fix))
    if begins_with(lora, STARTS_ABOVE_ZERO):
        # Processes other than the first have no weights yet from which they could begin.
        message = f"'{lora.init_lora_weights}' begins with the base's weights, which are shared out under FSDP."
        found.append(
            _wrong("lora.init_lora_weights", message, "--set train.lora.init_lora_weights=true")
        )
    return found


def still_needed(need: Disk, run: Path) -> Disk:
    """Return what of a run is not written yet, part by part."""
    return Disk(
        **{
            part: max(0, size - _size(run.glob(WRITTEN[part])))
            for part, size in asdict(need).items()
        }
    )


def _size(paths: Iterable[Path]) -> int:
    """Return the bytes of the files among the paths."""
    total = 0
    for path in paths:
        # Another process may be tidying up.
        with suppress(FileNotFoundError):
            facts = path.lstat()
            total += facts.st_size if S_ISREG(facts.st_mode) else 0
    return total


def _space(config: Config, place: Place) -> list[Problem]:
    space = disk_space(Path(config.run_dir))
    if space.free_bytes >= place.disk_bytes:
        return []
    need, free = megabytes(place.disk_bytes, space.free_bytes)
    message = f"{need} MB are needed and {free} MB are free."
    fix = "Free space, or change output_dir."
    return [Problem("E_DISK_SPACE", message, str(space.path), fix)]


def megabytes(one: int, other: int) -> tuple[str, str]:
    """Return two sizes in MB, with as many digits as it takes to tell them apart."""

    def texts(digits: int) -> tuple[str, str]:
        return f"{one / 1e6:,.{digits}f}", f"{other / 1e6:,.{digits}f}"

    return next((found for found in map(texts, range(6)) if found[0] != found[1]), texts(6))


def _wrong(option: str, message: str, fix: str, code: str = "E_CONFIG_VALUE") -> Problem:
    return Problem(code, message, f"train.{option}", fix)
