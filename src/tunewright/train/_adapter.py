"""The model that is trained: the base, in 4 bits or not, with an adapter on it, and the adapter's files."""

import json
import math
import warnings
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tunewright.accel import _unsloth
from tunewright.artifacts import sha256
from tunewright.config.schema import LoraSection, TrainSection
from tunewright.errors import Problem, TunewrightError
from tunewright.machine import is_sharded
from tunewright.models._load import DTYPES, grow, in_4_bits, load_model, set_to_mean
from tunewright.models._weights import save_tensors
from tunewright.train._initial import (
    NAME,
    START,
    configuration,
    remember_start,
    restart,
    start_from_data,
    start_from_loss,
    start_of,
    without_start,
)
from tunewright.train._state import like, whole
from tunewright.train.methods import (
    CHANGES_BASE,
    STARTS_ABOVE_ZERO,
    UNSLOTH,
    begins_with,
    conflicts,
    target_names,
)


def build(
    base: Path,
    tokenizer: PreTrainedTokenizerFast,
    options: TrainSection,
    *,
    dtype: str,
    device: str,
    seed: int,
    attention: str = "sdpa",
    extra_special_tokens: Sequence[str] = (),
    calibration: Sequence[Mapping[str, Any]] | None = None,
) -> PeftModel:
    """Return the base with a new adapter, ready to be trained; the same arguments give the same model.

    What is trained is float32 over any base, so that small steps are not rounded away. The base is frozen
    and keeps its precision: norms compute in float32 by themselves, and a float32 copy of embedding and
    head, as PEFT's preparation for 4 bits makes, would take more memory than the 4 bits save.

    Args:
        base: Folder of the base.
        tokenizer: Its tokenizer, with the added tokens.
        options: Of training.
        dtype: Precision of the base's weights that are not in 4 bits.
        device: Kind of device; on CUDA the model goes to the current one.
        seed: Of random beginnings; the state of the random number generators is left alone.
        attention: eager, sdpa, flash_attention_2, or unsloth: the whole model by its loader.
        extra_special_tokens: Added tokens, whose rows of embedding and head are trained.
        calibration: Token rows (`input_ids`, `labels`) from which `eva` starts.

    Raises:
        TunewrightError: E_CONFIG_VALUE for everything that does not go together or matches nothing.
            E_MODEL, the base cannot be loaded.
    """
    cards = [torch.cuda.current_device()] if device == "cuda" else []
    with _quiet(), torch.random.fork_rng(cards):
        torch.manual_seed(seed)
        if attention == UNSLOTH:
            linears = target_names(options.lora)
            tuned = _unsloth.load(base, options, linears, dtype=DTYPES[dtype], seed=seed)
            _train_in_float32(tuned, DTYPES[dtype])
            return tuned
        model = _load_base(base, options, dtype, device, attention)
        problems = conflicts(options, device) + _unmatched(model, options.lora)
        if problems:
            raise TunewrightError(problems)
        added = _add_rows(model, base, tokenizer, extra_special_tokens)
        tuned = get_peft_model(model, _configuration(model, options.lora, added))
        if not isinstance(tuned, PeftModel):
            raise TypeError(f"expected an adapter, got {type(tuned).__name__}")
        if options.lora.init_lora_weights == "eva" and calibration is not None:
            start_from_data(
                tuned, calibration, padding=tokenizer.get_vocab()[str(tokenizer.pad_token)]
            )
        if options.lora.init_lora_weights == "loftq":
            start_from_loss(tuned, base)
    head = tuned.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        # TRL asks the head for its bias; PEFT's wrapper has none to show, and neither have these models.
        head.register_parameter("bias", None)
    _train_in_float32(tuned, DTYPES[dtype])
    if begins_with(options.lora, STARTS_ABOVE_ZERO):
        remember_start(tuned)
    return tuned


def flash_installed() -> bool:
    """Return whether the package flash_attn is there."""
    return find_spec("flash_attn") is not None


@contextmanager
def _quiet() -> Generator[None]:
    """Keep libraries from warning: what a user must know, this file says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load_base(
    base: Path, options: TrainSection, dtype: str, device: str, attention: str
) -> PreTrainedModel:
    where = f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device
    if is_sharded():
        # Layer by layer its share goes to the device, which need not hold the whole.
        where = "cpu"
    settings: dict[str, Any] = {"attn_implementation": attention, "device_map": {"": where}}
    if options.load_in_4bit:
        compute = options.bnb_4bit_compute_dtype
        settings["quantization_config"] = in_4_bits(
            options.bnb_4bit_quant_type,
            compute_dtype=dtype if compute == "auto" else compute,
            double_quantisation=options.bnb_4bit_use_double_quant,
        )
    # PEFT takes what these adapters begin with out of the base's weights, in place.
    own = begins_with(options.lora, CHANGES_BASE)
    model = load_model(base, dtype, shared=not own, **settings)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On some processors the first evaluation would repack the weights for a product without gradient.
            module.support_avx512bf16_for_cpu = False
    model.config.use_cache = False
    return model.requires_grad_(False)


def _add_rows(
    model: PreTrainedModel, base: Path, tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]
) -> list[int]:
    """Return the ids of added tokens, after making a row for each that begins as the mean of the others.

    A base can have rows to spare: they were never trained, so that they begin as the mean as well.
    """
    grow(model, 1 + max(tokenizer.get_vocab().values()))
    known = Tokenizer.from_file(str(base / "tokenizer.json")).get_vocab()
    ids = {token: tokenizer.get_vocab()[token] for token in tokens}
    new = [index for token, index in ids.items() if token not in known]
    if new:
        set_to_mean(model, new, 1 + max(known.values()))
    return sorted(set(ids.values()))


def _configuration(model: PreTrainedModel, options: LoraSection, added: list[int]) -> LoraConfig:
    whole = _whole(model, options)
    tied = bool(model.config.tie_word_embeddings)
    ends = {"embed_tokens": added} if tied else {"embed_tokens": added, "lm_head": added}
    tokens = {} if tied and _is_tied(whole) else {k: v for k, v in ends.items() if k not in whole}
    return LoraConfig(
        r=options.r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=_targets(model, options),
        modules_to_save=whole or None,
        use_rslora=options.use_rslora,
        use_dora=options.use_dora,
        # Those two are set afterwards: from the weights as they are in 4 bits, and from the data.
        init_lora_weights=True
        if options.init_lora_weights in ("loftq", "eva")
        else options.init_lora_weights,  # pyright: ignore[reportArgumentType]
        trainable_token_indices=tokens if added and tokens else None,
        ensure_weight_tying=tied and _is_tied(whole),
        task_type="CAUSAL_LM",
    )


def _is_tied(modules: Sequence[str]) -> bool:
    return "embed_tokens" in modules or "lm_head" in modules


def _linears(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def _matches(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _targets(model: PreTrainedModel, options: LoraSection) -> list[str]:
    """Return names of modules; `all-linear` is every linear but the head and those trained whole."""
    if options.target_modules != "all-linear":
        return list(options.target_modules)
    leaves = {path.rpartition(".")[2] for path in _linears(model)}
    return sorted(leaves - set(options.modules_to_save))


def _whole(model: PreTrainedModel, options: LoraSection) -> list[str]:
    """Return names of modules to train whole, as paths where PEFT would take `norm` for `q_norm` as well."""
    paths = [path for path, _ in model.named_modules()]
    found: list[str] = []
    for name in options.modules_to_save:
        meant = [path for path in paths if _matches(path, name)]
        found += [name] if meant == [path for path in paths if path.endswith(name)] else meant
    return found


def _unmatched(model: PreTrainedModel, options: LoraSection) -> list[Problem]:
    """Return a problem for each name that matches no module, and for a rank that a module cannot have."""
    linears = _linears(model)
    others = {
        path: module
        for path, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }
    problems = [
        Problem(
            "E_CONFIG_VALUE",
            f"No {kind} of the model is named '{name}'.",
            f"train.lora.{option}",
            f"Use names from: {', '.join(sorted({path.rpartition('.')[2] for path in there}))}.",
        )
        for option, kind, names, there in (
            ("target_modules", "linear layer", options.target_modules, linears),
            ("modules_to_save", "module", options.modules_to_save, others),
        )
        if names != "all-linear"
        for name in names
        if not any(_matches(path, name) for path in there)
    ]
    chosen = [
        m for p, m in linears.items() if any(_matches(p, n) for n in _targets(model, options))
    ]
    widest = min((min(m.in_features, m.out_features) for m in chosen), default=options.r)
    if begins_with(options, (*STARTS_ABOVE_ZERO, "eva")) and options.r > widest:
        start = options.init_lora_weights
        problems.append(
            Problem(
                "E_CONFIG_VALUE",
                f"'{start}' gives at most {widest} directions for these modules, and the rank is {options.r}.",
                "train.lora.r",
                f"--set train.lora.r={widest}",
            )
        )
    return problems


def _train_in_float32(model: PeftModel, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if dtype == torch.float32:
        return

    def to_own(module: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        own = next(module.parameters()).dtype
        return tuple(x.to(own) if _is_float(x) else x for x in given)

    def to_base(module: torch.nn.Module, given: tuple[Any, ...], result: torch.Tensor) -> Any:
        return result.to(dtype)

    # LoRA layers convert by themselves; modules trained whole stand between others in the base's precision.
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.modules_to_save[NAME].register_forward_pre_hook(to_own)
            module.modules_to_save[NAME].register_forward_hook(to_base)


def _is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


@contextmanager
def keeping_float32(model: PeftModel) -> Generator[None]:
    """Undo, when the block ends, that TRL turns what is trained into bfloat16 where the base is in 4 bits."""
    kept = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = kept[name]


def adapter_state(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return copies of all that is trained, by the names of PEFT's files, and of where it began if that counts.

    With it, a model that `build` made of the same arguments becomes the same, bit for bit. Of a sharded model,
    every process asks at once.
    """
    return {name: whole(x).clone().contiguous() for name, x in _trained(model).items()}


def _trained(model: PeftModel) -> dict[str, torch.Tensor]:
    return get_peft_model_state_dict(model, save_embedding_layers=False) | start_of(model)


def load_adapter_state(model: PeftModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set all that is trained to what `adapter_state` returned; of a sharded model, in every process at once.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID for each tensor that is missing, not expected, or of another
            shape or type.
    """
    own = _trained(model)
    problems = [
        Problem("E_ARTIFACT_INVALID", message, name, "Use an earlier checkpoint.")
        for name in sorted(own.keys() | tensors.keys())
        if (message := _mismatch(own.get(name), tensors.get(name)))
    ]
    if problems:
        raise TunewrightError(problems)
    start = {name: x for name, x in tensors.items() if name.endswith(START)}
    # In the order of the model: all processes hand out the parts of the same tensor at a time.
    shards = {name: like(tensors[name], x) for name, x in own.items() if name not in start}
    set_peft_model_state_dict(model, shards)
    restart(model, start)


def _mismatch(own: torch.Tensor | None, given: torch.Tensor | None) -> str | None:
    if given is None:
        return "The tensor is missing."
    if own is None:
        return "The tensor does not belong to this adapter."
    if (own.shape, own.dtype) != (given.shape, given.dtype):
        forms = [f"{tuple(x.shape)} in {str(x.dtype).removeprefix('torch.')}" for x in (given, own)]
        return f"The tensor is {forms[0]}, not {forms[1]}."
    return None


def save_adapter(
    model: PeftModel,
    folder: Path,
    *,
    base: str,
    revision: str | None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write adapter_model.safetensors and adapter_config.json of a plain adapter for the base as it came.

    Args:
        model: What `build` made.
        folder: Where to.
        base: The base as the user named it; where it lies on this machine is nobody's business.
        revision: Its revision as the user named it.
        state: What `adapter_state` returned at some time; None for what it returns now.
    """
    state = dict(state or adapter_state(model))
    start = {name: state.pop(name) for name in list(state) if name.endswith(START)}
    own = configuration(model)
    settings = own.to_dict() | {
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        # How it began is over: whoever loads it would begin in that way once more, and change the base.
        "init_lora_weights": True,
    }
    if start:
        settings |= _doubled(settings)
        state |= without_start(state, start, factor=math.sqrt(own.r) if own.use_rslora else 1.0)
    save_tensors(folder / "adapter_model.safetensors", state)
    # Sets have no order, and the same adapter is to be the same file.
    text = json.dumps(settings, indent=2, sort_keys=True, default=sorted)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _doubled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of twice the rank at the same scale; that of rsLoRA goes into B."""
    return {
        "r": 2 * settings["r"],
        "lora_alpha": 2 * settings["lora_alpha"],
        "use_rslora": False,
    }


def pinned(base: Path, revision: str | None = None) -> dict[str, str]:
    """Return what a base is: its Hub commit where it has one, and the SHA-256 of each file that decides.

    Args:
        base: Its folder; a Hub snapshot is named by its commit.
        revision: What was asked for, where the folder does not tell.
    """
    names = sorted(p.name for p in base.glob("*.safetensors"))
    files = [name for name in ("config.json", "tokenizer.json") if (base / name).is_file()] + names
    # Hashing lets other threads run, and shards are many and large.
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(files, pool.map(lambda name: sha256(base / name), files), strict=True))
    commit = base.name if base.parent.name == "snapshots" else revision
    return digests | ({"revision": commit} if commit else {})
