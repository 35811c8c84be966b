"""Our files carry the keys, tensors and types that llama.cpp's own converter writes for the same model.

The lists are facts read from llama.cpp of 2026, its conversion/base.py, llama.py and qwen.py
(`set_gguf_parameters`, `prepare_tensors`, `_set_vocab_sentencepiece`, `_set_vocab_gpt2`), and from gguf 0.19
(`Metadata.set_gguf_meta_model`, `SpecialVocab.add_to_gguf`).
"""

import pytest
from gguf import GGUFReader
from small_models import FAMILIES, LINEAR_ROPE, YARN_ROPE, byte_level, sentencepiece, write_model
from transformers import AutoConfig, PreTrainedTokenizerFast

from tunewright.errors import TunewrightError
from tunewright.export._gguf import Card, write_gguf
from tunewright.export._vocabulary import ends_of, gguf_tokenizer
from tunewright.export.architecture import shape_of

pytestmark = pytest.mark.usefixtures("one_thread")

GENERAL = {
    "general.architecture",
    "general.type",
    "general.name",
    "general.size_label",
    "general.file_type",
    "general.quantization_version",
}
CARD = {
    "general.license",
    "general.tags",
    "general.languages",
    "general.base_model.count",
    "general.base_model.0.name",
    "general.base_model.0.organization",
    "general.base_model.0.repo_url",
}
SHAPE = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
}
HEAD = {"attention.key_length", "attention.value_length"}
LLAMA = {"vocab_size", "rope.dimension_count"}
YARN = {
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
TOKENIZER = {
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.chat_template",
}
BYTE_LEVEL = {"tokenizer.ggml.merges"}
PIECES = {
    "tokenizer.ggml.scores",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.add_bos_token",
}
OURS = {
    "byte-level": {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"},
    "sentencepiece": {"tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix"},
}
"""What we write where the converter leaves a default to llama.cpp."""
LAYER = {
    "attn_norm.weight": "F32",
    "attn_q.weight": "file",
    "attn_k.weight": "file",
    "attn_v.weight": "file",
    "attn_output.weight": "file",
    "ffn_norm.weight": "F32",
    "ffn_gate.weight": "file",
    "ffn_up.weight": "file",
    "ffn_down.weight": "file",
}
ENDS = {"token_embd.weight": "file", "output_norm.weight": "F32"}
OF_FAMILY = {
    "llama": ({"rope_freqs.weight": "F32", "output.weight": "file"}, {}),
    "mistral": ({"output.weight": "file"}, {}),
    "qwen2": ({}, dict.fromkeys(("attn_q.bias", "attn_k.bias", "attn_v.bias"), "F32")),
    "qwen3": (
        {"output.weight": "file"},
        dict.fromkeys(("attn_q_norm.weight", "attn_k_norm.weight"), "F32"),
    ),
}
README = """---
license: apache-2.0
tags: [poetry]
language: [en, de]
---
# A model
"""


@pytest.fixture(scope="module")
def tokenizers():
    return {"byte-level": byte_level(), "sentencepiece": sentencepiece("legacy")}


def read(folder, family, tokenizer, type_name="F16", base=None, **options):
    """Write a model of a family as GGUF and open it."""
    write_model(folder, family, tokenizer, **options)
    shape = shape_of(AutoConfig.from_pretrained(folder).to_dict())
    packed = gguf_tokenizer(PreTrainedTokenizerFast.from_pretrained(folder), 1088, ends_of(folder))
    return read_again(folder, shape, packed, type_name, base)


def read_again(folder, shape, packed, type_name="F16", base=None):
    write_gguf(
        folder / "m.gguf",
        model=folder,
        shape=shape,
        tokenizer=packed,
        type_name=type_name,
        advanced=lambda done, name: None,
        card=Card("My-Poet", base),
    )
    return GGUFReader(folder / "m.gguf")


def keys(reader):
    return {name for name in reader.fields if not name.startswith("GGUF.")}


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize("family", FAMILIES)
def test_keys(tmp_path, tokenizers, family, kind):
    reader = read(tmp_path / "model", family, tokenizers[kind])
    arch = {"mistral": "llama"}.get(family, family)
    # The converter writes a head's width where the config as Transformers resolves it has one.
    own = SHAPE | (HEAD if family != "qwen2" else set()) | (LLAMA if arch == "llama" else set())
    wanted = GENERAL | {f"{arch}.{key}" for key in own} | TOKENIZER
    wanted |= BYTE_LEVEL if kind == "byte-level" else PIECES
    assert keys(reader) - wanted == OURS[kind]
    assert wanted <= keys(reader)
    assert reader.fields["general.architecture"].contents() == arch
    assert reader.fields["tokenizer.ggml.model"].contents() == (
        "gpt2" if kind == "byte-level" else "llama"
    )


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_and_their_types(tmp_path, tokenizers, family, type_name):
    reader = read(tmp_path / "model", family, tokenizers["byte-level"], type_name)
    ends, layer = OF_FAMILY[family]
    wanted = ENDS | ends
    wanted |= {f"blk.{n}.{name}": type_ for n in (0, 1) for name, type_ in (LAYER | layer).items()}
    found = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert found == {n: type_name if type_ == "file" else type_ for n, type_ in wanted.items()}
    sizes = {tensor.name: [int(n) for n in tensor.shape] for tensor in reader.tensors}
    assert sizes["token_embd.weight"] == [64, 1088]
    assert sizes["blk.1.ffn_down.weight"] == [96, 64]


def test_values(tmp_path, tokenizers):
    reader = read(tmp_path / "model", "llama", tokenizers["sentencepiece"], "Q8_0")
    value = {name: field.contents() for name, field in reader.fields.items()}
    assert value["general.name"] == "My-Poet"
    assert value["general.type"] == "model"
    assert value["general.file_type"] == 7
    assert value["llama.context_length"] == 512
    assert value["llama.rope.dimension_count"] == value["llama.attention.key_length"] == 16
    assert value["llama.rope.freq_base"] == 500000.0
    assert value["llama.vocab_size"] == len(value["tokenizer.ggml.tokens"]) == 1088
    assert value["tokenizer.ggml.add_bos_token"] is True
    assert value["tokenizer.ggml.add_eos_token"] is False
    assert value["tokenizer.ggml.bos_token_id"] == 1


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"rope_parameters": LINEAR_ROPE}, {"rope.scaling.type", "rope.scaling.factor"}),
        ({"rope_parameters": YARN_ROPE}, YARN),
        (
            {"rope_parameters": YARN_ROPE | {"attention_factor": 1.0}},
            YARN | {"rope.scaling.attn_factor"},
        ),
    ],
)
def test_keys_of_scaling(tmp_path, tokenizers, options, added):
    plain = keys(read(tmp_path / "plain", "qwen3", tokenizers["byte-level"]))
    scaled = keys(read(tmp_path / "scaled", "qwen3", tokenizers["byte-level"], **options))
    assert scaled - plain == {f"qwen3.{key}" for key in added}
    assert plain <= scaled


def test_a_models_card_is_told(tmp_path, tokenizers):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text(README)
    plain = keys(read(tmp_path / "plain", "qwen3", tokenizers["byte-level"]))
    reader = read(folder, "qwen3", tokenizers["byte-level"], base="Qwen/Qwen3-4B")
    assert keys(reader) - plain == CARD
    value = {name: reader.fields[name].contents() for name in CARD}
    assert value["general.license"] == "apache-2.0"
    assert value["general.languages"] == ["en", "de"]
    assert value["general.base_model.0.organization"] == "Qwen"
    assert value["general.base_model.0.repo_url"].endswith("/Qwen/Qwen3-4B")


@pytest.mark.parametrize("base", ["/home/me/models/qwen", "../qwen", "a/b/c", "C:\\models\\qwen"])
def test_a_base_in_a_folder_is_not_told(tmp_path, tokenizers, base):
    reader = read(tmp_path / "model", "qwen3", tokenizers["byte-level"], base=base)
    assert not {name for name in keys(reader) if "base_model" in name}


def test_a_broken_card_is_refused(tmp_path, tokenizers):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(TunewrightError, match=r"README\.md is no YAML"):
        read(folder, "qwen3", tokenizers["byte-level"])
