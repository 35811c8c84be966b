"""Which methods go together, and the choices among them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from tunewright.accel import Choice
from tunewright.config.schema import LoraSection, TrainSection
from tunewright.errors import Problem
from tunewright.models.families import LINEARS

CHANGES_BASE = ("pissa", "olora")
"""Beginnings of the initialisations that take their start out of the base's weights."""
STARTS_ABOVE_ZERO = (*CHANGES_BASE, "loftq")
"""Beginnings of the initialisations whose B A is not zero, and is no part of what was learned."""
BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOAT = 4
UNSLOTH = "unsloth"
"""The backend, and the attention that it brings."""
_UNPAGED = {"paged_adamw_8bit": "adamw_bnb_8bit", "paged_adamw_32bit": "adamw_torch"}


@dataclass(frozen=True)
class Method:
    """What of the way of training decides memory.

    Attributes:
        dtype: Precision of weights and activations.
        device: cuda, mps or cpu.
        optimizer: Name as in TrainingArguments.
        attention: eager, sdpa, flash_attention_2, or unsloth for what that backend has.
        r: Rank.
        targets: Linears with an adapter.
        whole: Modules that are trained whole.
        dora: The magnitudes are trained too.
        dropout: There is dropout before the adapter.
        load_in_4bit: The linears of the layers are stored in 4 bits.
        double_quant: The scales of the 4-bit weights are quantised as well.
        added_tokens: Embeddings that are trained by themselves.
        shards: Processes that share the weights, and what belongs to them.
        fused: An adapter reads what its linear reads, and no float32 copy of it is kept.
    """

    dtype: str
    device: str = "cpu"
    optimizer: str = "adamw_torch"
    attention: str = "sdpa"
    r: int = 16
    targets: tuple[str, ...] = LINEARS
    whole: tuple[str, ...] = ()
    dora: bool = False
    dropout: bool = False
    load_in_4bit: bool = False
    double_quant: bool = True
    added_tokens: int = 0
    shards: int = 1
    fused: bool = False

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return BYTES[self.dtype]


def target_names(options: LoraSection) -> tuple[str, ...]:
    """Return the names that an adapter is put on; `all-linear` leaves out what is trained whole."""
    if options.target_modules != "all-linear":
        return options.target_modules
    return tuple(name for name in LINEARS if name not in options.modules_to_save)


def method_of(
    options: TrainSection,
    *,
    dtype: str,
    device: str,
    attention: str = "sdpa",
    added_tokens: int = 0,
    shards: int = 1,
    fused: bool = False,
) -> Method:
    """Return what of the options decides memory."""
    chosen = optimizer(options.optim, device=device, load_in_4bit=options.load_in_4bit)
    return Method(
        dtype=dtype,
        device=device,
        optimizer=chosen.value,
        attention=attention,
        r=options.lora.r,
        targets=target_names(options.lora),
        whole=options.lora.modules_to_save,
        dora=options.lora.use_dora,
        dropout=options.lora.lora_dropout > 0,
        load_in_4bit=options.load_in_4bit,
        double_quant=options.bnb_4bit_use_double_quant,
        added_tokens=added_tokens,
        shards=shards,
        fused=fused,
    )


def begins_with(options: LoraSection, kinds: tuple[str, ...]) -> bool:
    """Return whether A and B begin in one of these ways."""
    start = options.init_lora_weights
    return isinstance(start, str) and start.startswith(kinds)


def conflicts(options: TrainSection, device: str) -> list[Problem]:
    """Return a problem for each pair of settings that do not go together.

    Args:
        options: What is asked for.
        device: Kind of device: cuda, mps or cpu.
    """
    lora, found = options.lora, list[Problem]()
    start = lora.init_lora_weights
    if options.load_in_4bit and device == "mps":
        found.append(
            _problem(
                "load_in_4bit", "bitsandbytes has no 4-bit weights on MPS.", "load_in_4bit=false"
            )
        )
    if options.load_in_4bit and begins_with(lora, CHANGES_BASE):
        found.append(
            _problem(
                "lora.init_lora_weights",
                f"'{start}' changes the base's weights, and 4 bits would round the change away.",
                "lora.init_lora_weights=loftq, or --set train.load_in_4bit=false",
            )
        )
    if begins_with(lora, ("loftq",)) and not options.load_in_4bit:
        found.append(
            _problem(
                "lora.init_lora_weights",
                "'loftq' makes up for what 4 bits lose, and the base is not loaded in 4 bits.",
                "load_in_4bit=true, or --set train.lora.init_lora_weights=true",
            )
        )
    if begins_with(lora, ("loftq",)) and lora.use_dora:
        found.append(
            _problem(
                "lora.init_lora_weights",
                "'loftq' and DoRA both correct the base's weights, and do not go together.",
                "lora.use_dora=false, or --set train.lora.init_lora_weights=true",
            )
        )
    if begins_with(lora, ("orthogonal",)) and lora.r % 2:
        found.append(
            _problem(
                "lora.r",
                f"'orthogonal' shares the rank evenly between A and B, and {lora.r} is odd.",
                f"lora.r={lora.r + 1}",
            )
        )
    packed = sorted({n for n in lora.modules_to_save if n.rpartition(".")[2] in LINEARS})
    if options.load_in_4bit and packed:
        found.append(
            _problem(
                "lora.modules_to_save",
                f"{', '.join(packed)} would be in 4 bits, which cannot be trained.",
                "load_in_4bit=false, or give it an adapter: train.lora.target_modules",
            )
        )
    both = sorted(set(lora.target_modules) & set(lora.modules_to_save))
    if lora.target_modules != "all-linear" and both:
        found.append(
            _problem(
                "lora.modules_to_save",
                f"{', '.join(both)} would get an adapter and be trained whole.",
                "lora.modules_to_save=[], or name it in one of the two lists",
            )
        )
    return found


def _problem(option: str, message: str, setting: str) -> Problem:
    return Problem("E_CONFIG_VALUE", message, f"train.{option}", f"--set train.{setting}")


def attention(wanted: str, *, device: str, dtype: str, installed: bool) -> Choice:
    """Return how attention is computed: as asked for where this machine can, or PyTorch's sdpa.

    Args:
        wanted: train.attn_implementation, or unsloth where that is the backend.
        device: Kind of device.
        dtype: Precision of the base's weights.
        installed: The package flash_attn is there.
    """
    name = "attn_implementation"
    if wanted == "auto":
        return Choice(name, "sdpa", "PyTorch brings it, and picks its fastest kernel")
    if wanted == UNSLOTH:
        return Choice(name, wanted, "accel.backend brings its own")
    if wanted != "flash_attention_2":
        return Choice(name, wanted, "asked for in train.attn_implementation")
    obstacles = {
        f"flash_attention_2 needs CUDA, and this is {device}": device != "cuda",
        "flash_attention_2 needs the package flash-attn, which is not installed": not installed,
        f"flash_attention_2 computes in 16 bits, and the weights are {dtype}": dtype == "float32",
    }
    reason = next((text for text, holds in obstacles.items() if holds), None)
    if reason:
        return Choice(name, "sdpa", reason)
    return Choice(name, wanted, "asked for in train.attn_implementation")


def optimizer(wanted: str, *, device: str, load_in_4bit: bool) -> Choice:
    """Return the optimizer by Transformers' name: as asked for where this machine has it.

    Args:
        wanted: train.optim.
        device: Kind of device.
        load_in_4bit: The base is in 4 bits.
    """
    if wanted in _UNPAGED and device != "cuda":
        value = "adamw_torch" if device == "mps" else _UNPAGED[wanted]
        return Choice("optim", value, f"{wanted} pages between GPU and RAM, and this is {device}")
    if wanted == "adamw_bnb_8bit" and device == "mps":
        return Choice("optim", "adamw_torch", "bitsandbytes has no optimizer for MPS")
    if wanted != "auto":
        return Choice("optim", wanted, "asked for in train.optim")
    if device != "cuda":
        return Choice("optim", "adamw_torch", f"the plain one is exact, and works on {device}")
    if load_in_4bit:
        reason = (
            "a 4-bit base is for short memory: its states take 2 bytes a parameter and can be paged"
        )
        return Choice("optim", "paged_adamw_8bit", reason)
    return Choice("optim", "adamw_torch_fused", "the same steps in one kernel on CUDA")
