"""Loading of bases and adapters. Weights come from safetensors only; no remote code."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from tunewright.errors import failure, first_line
from tunewright.models._shared import sharing, written
from tunewright.models._weights import ADAPTER, check_adapter, shapes_in
from tunewright.models.changes import rows_of
from tunewright.models.headers import read_header
from tunewright.models.lora import lora_of

_KEPT: ContextVar[dict[tuple[Path, str, str], PreTrainedModel] | None] = ContextVar(
    "_KEPT", default=None
)
"""The model whose weights are shared, by how it was loaded; None: each is read anew."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    folder: Path, dtype: str = "float32", *, shared: bool = True, **options: Any
) -> PreTrainedModel:
    """Return the causal language model of a folder in evaluation mode.

    Args:
        folder: The model's.
        dtype: Of its weights.
        shared: Its weights may be those of other models, while they are kept; false for one that writes into them.
        options: As Transformers takes them.

    Raises:
        TunewrightError: E_MODEL, the files are not a model that Transformers knows.
    """
    kept = _KEPT.get()
    if kept is None or not shared or "quantization_config" in options:
        return _loaded(folder, dtype, options)
    key = (folder.resolve(), dtype, repr(options))
    if key not in kept or written(kept[key]):
        kept.clear()
        kept[key] = _loaded(folder, dtype, options)
    return sharing(kept[key])


def _loaded(folder: Path, dtype: str, options: Mapping[str, Any]) -> PreTrainedModel:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[dtype], trust_remote_code=False, use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise failure("E_MODEL", f"The model cannot be loaded: {reason}.", where=folder) from error
    return model.eval()


@contextmanager
def weights_kept() -> Generator[None]:
    """Have models share weights, see `models.weights_kept`."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def in_4_bits(
    quant_type: str, *, compute_dtype: str, double_quantisation: bool
) -> BitsAndBytesConfig:
    """Return how bitsandbytes stores the linears of a model's layers in 4 bits."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=double_quantisation,
        bnb_4bit_compute_dtype=DTYPES[compute_dtype],
    )


def load_tuned(base: Path, adapter: Path, dtype: str = "float32", **options: Any) -> PeftModel:
    """Return the base with the adapter on it; `with model.disable_adapter()` gives the base.

    The embedding grows where the adapter was trained with more tokens than the base has rows for.

    Raises:
        TunewrightError: E_MODEL, see `load_model`. E_ARTIFACT_INVALID or E_UNSAFE_FORMAT, see
            `check_adapter`.
    """
    try:
        model = load_model(base, dtype, **options)
        check_adapter(adapter, shapes_in(model))
        fit_rows(model, adapter)
        return PeftModel.from_pretrained(model, adapter).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        message = f"The adapter cannot be loaded: {first_line(error)}."
        raise failure("E_ARTIFACT_INVALID", message, where=adapter) from error


def fit_rows(model: PreTrainedModel, adapter: Path) -> None:
    """Give embedding and head as many rows as an adapter was trained with, as far as its files tell."""
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    stored = read_header(adapter / ADAPTER)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    _grow_to(model, rows_of(shapes, lora_of(settings), _ends(model)[0].shape[0]))


def grow(model: PreTrainedModel, rows: int) -> None:
    """Give embedding and head at least `rows` rows; a new row is the mean of those there are.

    The number stays a multiple of 64 or 8 where the base's is one, since kernels are faster then. It is
    the same rows each time, so that an adapter finds the embedding that it was trained on.
    """
    have = _ends(model)[0].shape[0]
    multiple = next(m for m in (64, 8, 1) if have % m == 0)
    _grow_to(model, -(-rows // multiple) * multiple)


def _grow_to(model: PreTrainedModel, rows: int) -> None:
    have = _ends(model)[0].shape[0]
    if rows > have:
        model.resize_token_embeddings(rows, mean_resizing=False)
        set_to_mean(model, list(range(have, rows)), have)


@torch.no_grad()
def set_to_mean(model: PreTrainedModel, rows: Sequence[int], known: int) -> None:
    """Set rows of embedding and head to the mean of the first `known` ones."""
    for weight in _ends(model):
        weight[rows] = weight[:known].mean(dim=0, dtype=torch.float32).to(weight.dtype)


def _ends(model: PreTrainedModel) -> Sequence[torch.Tensor]:
    """Return the weights of embedding and head; one where they are tied."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = [layer.get_parameter("weight") for layer in layers if layer is not None]
    return weights[:1] if weights[0] is weights[-1] else weights
