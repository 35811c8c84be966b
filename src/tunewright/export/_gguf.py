"""A model folder to a GGUF file, one tensor in memory at a time."""

import json
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    TensorNameMap,
    TokenType,
    get_tensor_name_map,
)
from gguf.constants import MODEL_ARCH
from gguf.quants import quant_shape_to_byte_shape, quantize
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast

from tunewright.errors import failure
from tunewright.export.architecture import Shape
from tunewright.export.pretokenizer import pretokenizer_of

_ARCHES = {"qwen3": MODEL_ARCH.QWEN3, "llama": MODEL_ARCH.LLAMA}
_FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q5_1": LlamaFileType.MOSTLY_Q5_1,
    "Q5_0": LlamaFileType.MOSTLY_Q5_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor on its way.

    Attributes:
        name: Its name in the GGUF.
        shape: Rows first, as in the model folder.
        type: How it is stored.
        read: Gives its values as float32.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer as GGUF holds it.

    Attributes:
        tokens: Text of each id, byte-level encoded unless added.
        types: llama.cpp's token type of each id.
        merges: Two tokens with a space between.
        pretokenizer: llama.cpp's name.
        special: "bos", "eos" and "pad" to their ids, where there are such.
        adds_bos: Whether it puts bos before a text by itself.
        adds_eos: Whether it puts eos after it.
        chat_template: Jinja.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pretokenizer: str
    special: Mapping[str, int]
    adds_bos: bool
    adds_eos: bool
    chat_template: str


def write_gguf(
    file: Path,
    *,
    model: Path,
    shape: Shape,
    tokenizer: GgufTokenizer,
    type_name: str,
    advanced: Callable[[int, str], None],
) -> None:
    """Write the model folder as one GGUF file of a type.

    Raises:
        TunewrightError: E_MODEL, a tensor is unknown to llama.cpp.
    """
    with closing(GGUFWriter(file, shape.family)) as writer:
        _add_shape(writer, shape, type_name)
        _add_tokenizer(writer, tokenizer)
        writer.add_name(file.stem)
        with tensors_of(model, shape, GGMLQuantizationType[type_name]) as tensors:
            for tensor in tensors:
                byte_shape = quant_shape_to_byte_shape(tensor.shape, tensor.type)
                writer.add_tensor_info(
                    tensor.name,
                    byte_shape,
                    np.dtype(np.uint8),
                    math.prod(byte_shape),
                    raw_dtype=tensor.type,
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for index, tensor in enumerate(tensors, 1):
                values = quantize(tensor.read(), tensor.type)
                writer.write_tensor_data(np.ascontiguousarray(values).view(_Written))
                advanced(index, tensor.name)


class _Written(np.ndarray):
    """An array that tells when a disk is full: numpy says nothing if its last bytes are not taken."""

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:
        """Write the bytes as they are."""
        fid.write(self.data)


def size_bytes(model: Path, shape: Shape, type_name: str) -> int:
    """Return the bytes that the model's tensors take as a type.

    Raises:
        TunewrightError: E_MODEL, a tensor is unknown to llama.cpp.
    """
    with tensors_of(model, shape, GGMLQuantizationType[type_name]) as tensors:
        return sum(math.prod(quant_shape_to_byte_shape(t.shape, t.type)) for t in tensors)


@contextmanager
def tensors_of(model: Path, shape: Shape, type_: GGMLQuantizationType) -> Generator[list[Tensor]]:
    """Give the tensors of a model folder in the order of its files; readable inside the block.

    Raises:
        TunewrightError: E_MODEL, a tensor is unknown to llama.cpp.
    """
    names = get_tensor_name_map(_ARCHES[shape.family], shape.layers)
    tensors: list[Tensor] = []
    with ExitStack() as stack:
        for path in sorted(model.glob("*.safetensors")):
            opened = stack.enter_context(safe_open(path, framework="pt"))
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                if name == "lm_head.weight" and shape.tied:
                    continue
                tensors.append(_tensor(opened, name, _gguf_name(names, name), shape, type_))
        if shape.rope_factors:
            factors = np.array(shape.rope_factors, np.float32)
            f32 = GGMLQuantizationType.F32
            tensors.append(Tensor("rope_freqs.weight", factors.shape, f32, lambda: factors))
        yield tensors


def gguf_tokenizer(tokenizer: PreTrainedTokenizerFast, rows: int) -> GgufTokenizer:
    """Return the tokenizer's tokens, padded with unused ones to the embedding's rows.

    Raises:
        TunewrightError: E_MODEL, it has more tokens than the embedding has rows, or is not
            byte-level BPE that llama.cpp knows.
    """
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    pretokenizer = pretokenizer_of(definition)
    ids = tokenizer.get_vocab()
    if max(ids.values()) >= rows:
        raise failure(
            "E_MODEL",
            f"The tokenizer has {max(ids.values()) + 1} tokens and the embedding {rows} rows.",
            where="tokenizer.json",
            fix="Resize the base's embedding to the tokenizer before training.",
        )
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    for token, index in ids.items():
        tokens[index], types[index] = token, int(TokenType.NORMAL)
    for index, added in tokenizer.added_tokens_decoder.items():
        types[index] = int(TokenType.CONTROL if added.special else TokenType.USER_DEFINED)
    merges = [m if isinstance(m, str) else " ".join(m) for m in definition["model"]["merges"]]
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    around = tokenizer("a")["input_ids"]
    return GgufTokenizer(
        tokens=tokens,
        types=types,
        merges=merges,
        pretokenizer=pretokenizer,
        special={name: index for name, index in special.items() if index is not None},
        adds_bos=around[0] == special["bos"],
        adds_eos=around[-1] == special["eos"],
        chat_template=_template(tokenizer),
    )


def _template(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the chat template; without a BOS token, llama.cpp would write its token 11 in its place."""
    template = str(tokenizer.chat_template)
    if tokenizer.bos_token is None and "bos_token" in template:
        return "{% set bos_token = '' %}" + template
    return template


def _add_shape(writer: GGUFWriter, shape: Shape, type_name: str) -> None:
    writer.add_file_type(_FILE_TYPES[type_name])
    writer.add_quantization_version(2)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    if shape.rope_scaling is not None:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_scaling)


def _add_tokenizer(writer: GGUFWriter, tokenizer: GgufTokenizer) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pretokenizer)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    adders = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "pad": writer.add_pad_token_id,
    }
    for name, index in tokenizer.special.items():
        adders[name](index)
    writer.add_add_bos_token(tokenizer.adds_bos)
    writer.add_add_eos_token(tokenizer.adds_eos)
    writer.add_chat_template(tokenizer.chat_template)


def _gguf_name(names: TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise failure("E_MODEL", f"llama.cpp knows no tensor '{name}'.", where=name)
    return found


def _tensor(
    opened: Any, name: str, gguf_name: str, shape: Shape, type_: GGMLQuantizationType
) -> Tensor:
    size = tuple(opened.get_slice(name).get_shape())
    if len(size) == 1:
        type_ = GGMLQuantizationType.F32
    elif size[-1] % GGML_QUANT_SIZES[type_][0]:
        type_ = GGMLQuantizationType.F16
    heads = _rotary_heads(name, shape)

    def read() -> np.ndarray:
        values = opened.get_tensor(name).float().numpy()
        return _interleaved(values, heads) if heads else values

    return Tensor(gguf_name, size, type_, read)


def _rotary_heads(name: str, shape: Shape) -> int:
    """Return the heads of a tensor whose rows llama.cpp wants in another order, else 0."""
    if shape.family != "llama":
        return 0
    if ".q_proj." in name:
        return shape.heads
    return shape.kv_heads if ".k_proj." in name else 0


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows with the two halves of each head interleaved.

    Source: llama.cpp, convert_hf_to_gguf.py, `LlamaModel.permute`.
    """
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))
