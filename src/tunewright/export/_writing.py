"""How a model folder becomes GGUF files: by our writer, or by llama.cpp's converter where that is named."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from transformers import AutoConfig, PreTrainedTokenizerFast

from tunewright.errors import TunewrightError, failure, first_line
from tunewright.export._converter import convert_with, require_converter
from tunewright.export._gguf import Card, write_gguf
from tunewright.export._tensors import size_bytes
from tunewright.export._vocabulary import GgufTokenizer, as_written, ends_of, gguf_tokenizer
from tunewright.export.architecture import Shape, shape_of
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.headers import read_header

UNKNOWN_CONTEXT = 2048
"""Tokens: taken where a config says nothing."""


@dataclass(frozen=True)
class Way:
    """How a model's GGUF files are written.

    Attributes:
        model: The folder.
        card: What the files tell of the model.
        context_length: Tokens.
        ours: Shape and tokenizer for our writer; None: the converter writes.
        reference: Cuts texts as llama.cpp shall.
        checkout: Whose converter writes, or None.
        notes: What the user has to know, in sentences.
    """

    model: Path
    card: Card
    context_length: int
    ours: tuple[Shape, GgufTokenizer] | None
    reference: PreTrainedTokenizerFast
    checkout: Path | None
    notes: tuple[str, ...]


def way_of(
    model: Path, tokenizer: PreTrainedTokenizerFast, card: Card, llama_cpp: Path | None
) -> Way:
    """Return how to write a model folder.

    Args:
        model: The folder.
        tokenizer: Of the model.
        card: What to tell of the model.
        llama_cpp: A llama.cpp checkout for what our writer cannot write, or None.

    Raises:
        TunewrightError: E_MODEL, with every reason why neither can write it. E_NOT_FOUND, the folder is no
            checkout.
    """
    config = _config(model)
    if llama_cpp is not None:
        require_converter(llama_cpp)
    try:
        shape = shape_of(config)
        ends = (*vocabulary_of(tokenizer).ends, *ends_of(model))
        packed = gguf_tokenizer(tokenizer, shape.vocabulary, ends)
    except TunewrightError as error:
        if llama_cpp is None:
            raise
        reasons = " ".join(problem.message for problem in error.problems)
        notes = (f"llama.cpp's converter writes the files: {reasons}",)
        return Way(model, card, _context(config), None, tokenizer, llama_cpp, notes)
    return Way(
        model=model,
        card=card,
        context_length=shape.context_length,
        ours=(shape, packed),
        reference=as_written(tokenizer, packed),
        checkout=None,
        notes=packed.notes,
    )


def bytes_of(way: Way, type_name: str) -> int:
    """Return the bytes that the tensors take as a type; an estimate where the converter writes.

    Raises:
        TunewrightError: E_MODEL, a tensor cannot be written.
    """
    if way.ours is not None:
        return size_bytes(way.model, way.ours[0], type_name)
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    headers = [read_header(file) for file in way.model.glob("*.safetensors")]
    values = sum(math.prod(stored.shape) for header in headers for stored in header.values())
    return values // block * block_bytes


def write(way: Way, file: Path, type_name: str, advanced: Callable[[int, str], None]) -> None:
    """Write a model folder as one GGUF file of a type.

    Raises:
        TunewrightError: E_MODEL, see `write_gguf`. E_CONVERTER or E_CONFIG_VALUE, see `convert_with`.
    """
    if way.checkout is not None:
        convert_with(way.checkout, way.model, file, type_name)
        advanced(file.stat().st_size, file.name)
    elif way.ours is not None:
        shape, tokenizer = way.ours
        write_gguf(
            file,
            model=way.model,
            shape=shape,
            tokenizer=tokenizer,
            type_name=type_name,
            advanced=advanced,
            card=way.card,
        )


def _context(config: Mapping[str, Any]) -> int:
    """Return the tokens of context of an architecture that we do not know."""
    inner = config.get("text_config") or {}
    name = "max_position_embeddings"
    return int(config.get(name) or inner.get(name) or UNKNOWN_CONTEXT)


def _config(model: Path) -> dict[str, Any]:
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=False).to_dict()
    except (OSError, ValueError, KeyError) as error:
        message = f"config.json cannot be used: {first_line(error)}."
        raise failure("E_MODEL", message, where=model) from error
