"""How a model is loaded on this machine, and a checkpoint's weights on a loaded adapter."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tunewright.config.schema import TrainSection
from tunewright.errors import failure
from tunewright.models._load import fit_rows, in_4_bits, load_model
from tunewright.models._room import device
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models._weights import ADAPTER, SETTINGS


def loading(folder: Path, options: TrainSection) -> dict[str, Any]:
    """Return how a model is loaded: in 4 bits where it was trained so, else in 16 on a GPU, else in 32.

    Where 32 bits would take more than half of the free memory, it is 16 bits on a CPU, too.
    """
    where = device()
    dtype = "float32"
    if where == "cuda":
        dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    elif 2 * weights_bytes(folder) > psutil.virtual_memory().available // 2:
        dtype = "bfloat16"
    how: dict[str, Any] = {"dtype": dtype, "device_map": {"": where}}
    if options.load_in_4bit:
        how["quantization_config"] = in_4_bits(
            options.bnb_4bit_quant_type,
            compute_dtype=dtype,
            double_quantisation=options.bnb_4bit_use_double_quant,
        )
    return how


def load_alone(
    folder: Path, tokenizer: Path, **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return a model without an adapter, and the tokenizer of another folder, for whose rows it has room.

    Raises:
        TunewrightError: E_MODEL, one of them cannot be loaded.
    """
    reads = load_tokenizer(tokenizer)
    model = load_model(folder, **options)
    if (tokenizer / SETTINGS).is_file():
        fit_rows(model, tokenizer)
    return model, reads


def weights_bytes(folder: Path) -> int:
    """Return the size of a model's weights as they are stored."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def put_on(model: PreTrainedModel | PeftModel, checkpoint: Path) -> None:
    """Give a model with an adapter the adapter of a checkpoint of the same training.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, it is not one of this adapter.
    """
    file = checkpoint / ADAPTER
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise failure("E_ARTIFACT_INVALID", f"It cannot be read: {error}.", where=file) from error
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in tensors.items()}:
        message = "The checkpoint's tensors are not those of the adapter."
        fix = "It is of another training; or of one that began with PiSSA or OLoRA, whose checkpoints change the base."
        raise failure("E_ARTIFACT_INVALID", message, where=file, fix=fix)
    set_peft_model_state_dict(model, tensors)


@contextmanager
def adapter_switched(model: PreTrainedModel | PeftModel, *, on: bool) -> Generator[None]:
    """Have a model's adapter on or off in a block; of a model without one it is of no matter."""
    if on or not isinstance(model, PeftModel):
        yield
        return
    with model.disable_adapter():
        yield
