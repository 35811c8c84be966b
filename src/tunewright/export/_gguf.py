"""A model folder to a GGUF file, a block of rows in memory at a time."""

import math
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFType, GGUFWriter, LlamaFileType, Metadata, RopeScalingType
from gguf import size_label as label_of
from yaml import YAMLError

from tunewright.errors import failure
from tunewright.export._tensors import Tensor, size_bytes, tensors_of, write_values
from tunewright.export._vocabulary import GgufTokenizer, gguf_tokenizer
from tunewright.export.architecture import Shape

__all__ = ["FILE_TYPES", "Card", "gguf_tokenizer", "size_bytes", "write_gguf"]

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q5_1": LlamaFileType.MOSTLY_Q5_1,
    "Q5_0": LlamaFileType.MOSTLY_Q5_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
"""Types that are written without a compiler."""
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Card:
    """What a reader of the file is told of the model.

    Attributes:
        name: Of the model.
        base: Hub name of what it was tuned from; other places are not told.
    """

    name: str
    base: str | None = None


def write_gguf(
    file: Path,
    *,
    model: Path,
    shape: Shape,
    tokenizer: GgufTokenizer,
    type_name: str,
    advanced: Callable[[int, str], None],
    card: Card | None = None,
) -> None:
    """Write the model folder as one GGUF file of a type.

    Args:
        file: The new file.
        model: The folder.
        shape: Of the model.
        tokenizer: Of the model.
        type_name: A key of FILE_TYPES.
        advanced: Is told the bytes that are written, and of which tensor the last are.
        card: What to tell of the model; its README.md's header adds to it.

    Raises:
        TunewrightError: E_MODEL, a tensor is unknown to llama.cpp, or the header of README.md is no YAML.
    """
    tensors = tensors_of(model, shape, type_name)
    with closing(GGUFWriter(file, shape.family)) as writer:
        writer.add_type(GGUFType.MODEL)
        _add_card(writer, model, card or Card(file.stem), tensors)
        _add_shape(writer, shape, type_name)
        _add_tokenizer(writer, tokenizer)
        for tensor in tensors:
            writer.add_tensor_info(
                tensor.name,
                tensor.byte_shape,
                np.dtype(np.uint8),
                tensor.bytes,
                raw_dtype=tensor.type,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(writer, tensors, advanced)


def _write_tensors(
    writer: GGUFWriter, tensors: list[Tensor], advanced: Callable[[int, str], None]
) -> None:
    out: Any = (writer.fout or [])[0]
    writer.write_padding(out, out.tell())
    done = 0
    for tensor in tensors:

        def counted(block_bytes: int, name: str = tensor.name) -> None:
            nonlocal done
            done += block_bytes
            advanced(done, name)

        write_values(out, tensor, counted)
        writer.write_padding(out, tensor.bytes)


def _add_card(writer: GGUFWriter, model: Path, card: Card, tensors: list[Tensor]) -> None:
    """Add what llama.cpp's converter tells of a model: its card's header, its size, how to sample."""
    total = sum(math.prod(tensor.shape) for tensor in tensors)
    try:
        told = Metadata.load(None, model, card.name, total)
    except YAMLError as error:
        raise failure(
            "E_MODEL",
            "The header of README.md is no YAML.",
            where=model / "README.md",
            fix="Correct it, or remove the file.",
        ) from error
    if told.base_models is None and card.base and _REPOSITORY.fullmatch(card.base):
        owner, name = card.base.split("/")
        told.base_models = [
            {
                "name": Metadata.id_to_title(name),
                "organization": Metadata.id_to_title(owner),
                "repo_url": f"https://huggingface.co/{card.base}",
            }
        ]
    told.size_label = told.size_label or label_of(total, 0, 0, 0)
    told.set_gguf_meta_model(writer)


def _add_shape(writer: GGUFWriter, shape: Shape, type_name: str) -> None:
    """Add what llama.cpp's converter adds. Source: conversion/base.py and llama.py, `set_gguf_parameters`."""
    writer.add_file_type(FILE_TYPES[type_name])
    writer.add_quantization_version(2)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    if shape.own_head_dim:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    if shape.family == "llama":
        writer.add_vocab_size(shape.vocabulary)
        writer.add_rope_dimension_count(shape.head_dim)
    if shape.rope_scaling is not None:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_scaling)
    if shape.yarn is not None:
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(shape.yarn.factor)
        writer.add_rope_scaling_orig_ctx_len(shape.yarn.trained)
        if shape.yarn.attention != 1.0:
            # llama.cpp's converter writes another key for it, which llama.cpp does not heed.
            writer.add_rope_scaling_attn_factors(shape.yarn.attention)
        writer.add_rope_scaling_yarn_beta_fast(shape.yarn.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(shape.yarn.beta_slow)


def _add_tokenizer(writer: GGUFWriter, tokenizer: GgufTokenizer) -> None:
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pretokenizer)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    if tokenizer.scores is not None:
        writer.add_token_scores(tokenizer.scores)
    if tokenizer.merges:
        writer.add_token_merges(tokenizer.merges)
    if tokenizer.adds_space is not None:
        writer.add_add_space_prefix(tokenizer.adds_space)
    adders = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "eot": writer.add_eot_token_id,
        "eom": writer.add_eom_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
    }
    for name, index in tokenizer.special.items():
        adders[name](index)
    writer.add_add_bos_token(tokenizer.adds_bos)
    writer.add_add_eos_token(tokenizer.adds_eos)
    writer.add_chat_template(tokenizer.chat_template)
