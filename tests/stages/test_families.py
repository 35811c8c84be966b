"""Every family, with tokenizers of both kinds, computes and cuts texts in llama.cpp as in Transformers."""

import json
import shutil
from dataclasses import dataclass, replace

import pytest
from safetensors.torch import load_file, save_file
from small_models import (
    FAMILIES,
    LINEAR_ROPE,
    YARN_ROPE,
    byte_level,
    rewrite_json,
    sentencepiece,
    split_by,
    write_model,
)
from transformers import PreTrainedTokenizerFast

from tunewright.errors import TunewrightError
from tunewright.export import _tensors
from tunewright.export._ends import boundary_faults
from tunewright.export._gguf import write_gguf
from tunewright.export._parity import (
    compare_chats,
    compare_tokens,
    divergence,
    hard_texts,
    places_of,
)
from tunewright.export._vocabulary import as_written, ends_of, gguf_tokenizer
from tunewright.export._writing import _config
from tunewright.export.architecture import shape_of
from tunewright.export.modelfile import GOLDEN_CHATS
from tunewright.export.pretokenizer import LLAMA3, QWEN2
from tunewright.models._llama import endpoint
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.tokens import Encoded

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = "The quick brown fox, 12 of them, jumps over x = [1, 2]; and then it rests for a while. "


@dataclass
class Proof:
    """What the parity functions say of a file."""

    texts: object
    chats: object
    far: object
    faults: list


@pytest.fixture(scope="module")
def kinds():
    return {"byte-level": byte_level(split_by(QWEN2)), "sentencepiece": sentencepiece("legacy")}


@pytest.fixture(scope="module")
def models(tmp_path_factory, kinds):
    """Give the folder of a family's model with a tokenizer of a kind. Shared: read only."""
    made = {}

    def give(family, kind):
        if (family, kind) not in made:
            folder = tmp_path_factory.mktemp("model") / f"{family}-{kind}"
            made[family, kind] = write_model(folder, family, kinds[kind])
        return made[family, kind]

    return give


def tokenizer_of(folder):
    # AutoTokenizer gives every folder of Qwen2 a byte-level tokenizer, whatever its tokenizer.json says.
    plain = PreTrainedTokenizerFast.from_pretrained(folder)
    own = load_tokenizer(folder)
    return own if type(own).__name__ != "Qwen2Tokenizer" else plain


def write(folder, file, type_name, *, change=lambda packed: packed, reshape=lambda shape: shape):
    shape, tokenizer = shape_of(_config(folder)), tokenizer_of(folder)
    packed = gguf_tokenizer(tokenizer, shape.vocabulary, ends_of(folder))
    write_gguf(
        file,
        model=folder,
        shape=reshape(shape),
        tokenizer=change(packed),
        type_name=type_name,
        advanced=lambda done, name: None,
    )
    return as_written(tokenizer, packed)


def proof(folder, file, reference):
    tokenizer = tokenizer_of(folder)
    row = tokenizer(TEXT * 12)["input_ids"][:160]
    encoded = Encoded(row, [1] * len(row))
    positions = places_of(folder, [encoded], count=8, max_prefix=160).positions
    with endpoint(file, ctx=200, exact=True) as url:
        return Proof(
            texts=compare_tokens(url, reference, hard_texts(tokenizer)),
            chats=compare_chats(url, tokenizer, GOLDEN_CHATS),
            far=divergence(url, positions, lambda done: None),
            faults=boundary_faults(url, reference, ends_of(folder)),
        )


def proven(folder, tmp_path, type_name="F32", **changes):
    file = tmp_path / "m.gguf"
    return proof(folder, file, write(folder, file, type_name, **changes))


def require_equal(found, mean_kl):
    assert found.texts.compared > 100
    assert found.texts.differing == []
    assert found.chats.compared == len(GOLDEN_CHATS)
    assert found.chats.differing == []
    assert found.faults == []
    assert found.far.mean_kl < mean_kl
    assert found.far.positions == 8


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_with_a_tokenizer_of_a_kind(models, tmp_path, family, kind):
    folder = models(family, kind)
    require_equal(proven(folder, tmp_path), 1e-9)
    require_equal(proven(folder, tmp_path, "F16"), 1e-4)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"rope_parameters": LINEAR_ROPE}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 24, "tie_word_embeddings": True}),
        ("llama", {"rope_parameters": YARN_ROPE}),
        ("qwen3", {"rope_parameters": YARN_ROPE | {"attention_factor": 1.3, "beta_fast": 16.0}}),
        ("qwen2", {"rope_parameters": YARN_ROPE | {"mscale": 0.7, "mscale_all_dim": 1.0}}),
        ("qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
        ("mistral", {"sliding_window": 256}),
    ],
)
def test_shapes_of_families(tmp_path, kinds, family, options):
    folder = write_model(tmp_path / "model", family, kinds["byte-level"], **options)
    require_equal(proven(folder, tmp_path), 1e-9)


@pytest.mark.parametrize("form", ["always", "first", "never"])
def test_where_a_sentencepiece_tokenizer_puts_a_space(tmp_path, form):
    folder = write_model(tmp_path / "model", "mistral", sentencepiece(form), num_hidden_layers=1)
    found = proven(folder, tmp_path)
    require_equal(found, 1e-9)
    packed = gguf_tokenizer(tokenizer_of(folder), 1088)
    assert packed.adds_space is (form == "always")
    assert len(packed.notes) == (form != "never")


def test_bfloat16_in_shards(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models("llama", "byte-level"), folder)
    tensors = {n: t.bfloat16() for n, t in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({n: tensors[n] for n in part}, folder / f"model-{number}.safetensors")
    weight_map = {n: f"model-{i % 2}.safetensors" for i, n in enumerate(names)}
    index = folder / "model.safetensors.index.json"
    index.write_text("{}")
    rewrite_json(index, lambda value: value.update(metadata={}, weight_map=weight_map))
    rewrite_json(folder / "config.json", lambda value: value.update(dtype="bfloat16"))
    for type_name in ("F32", "BF16"):
        # llama.cpp rounds what it multiplies bfloat16 with.
        require_equal(proven(folder, tmp_path, type_name), 1e-9 if type_name == "F32" else 1e-2)


def changed_weight(folder, tmp_path):
    copied = tmp_path / "changed"
    shutil.copytree(folder, copied)
    tensors = load_file(copied / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] += 0.5
    save_file(tensors, copied / "model.safetensors", {"format": "pt"})
    return copied


@pytest.mark.parametrize("family", FAMILIES)
def test_one_changed_weight_is_noticed(models, tmp_path, family):
    folder = models(family, "byte-level")
    reference = write(changed_weight(folder, tmp_path), tmp_path / "m.gguf", "F32")
    found = proof(folder, tmp_path / "m.gguf", reference)
    assert found.far.mean_kl > 1e-6
    assert found.texts.differing == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_rope_base_is_noticed(models, tmp_path, family):
    found = proven(
        models(family, "byte-level"),
        tmp_path,
        reshape=lambda shape: replace(shape, rope_theta=shape.rope_theta * 1.5),
    )
    assert found.far.mean_kl > 1e-6


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_rows_in_the_wrong_order_are_noticed(models, tmp_path, monkeypatch, family):
    monkeypatch.setattr(_tensors, "_interleaved", lambda rows, head: rows)
    assert proven(models(family, "byte-level"), tmp_path).far.mean_kl > 1e-6


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(QWEN2, "gpt-2"), (QWEN2, "smollm"), (QWEN2, "qwen35"), (LLAMA3, "qwen2")],
)
def test_a_wrong_pretokenizer_is_noticed(tmp_path, right, wrong):
    tokenizer = byte_level(split_by(right))
    folder = write_model(tmp_path / "model", "qwen3", tokenizer, num_hidden_layers=1)
    found = proven(folder, tmp_path, change=lambda packed: replace(packed, pretokenizer=wrong))
    assert found.texts.differing
    assert found.far.mean_kl < 1e-9


def test_wrong_scores_are_noticed(models, tmp_path):
    found = proven(
        models("llama", "sentencepiece"),
        tmp_path,
        change=lambda packed: replace(packed, scores=[-score for score in packed.scores]),
    )
    assert found.texts.differing


def test_a_space_too_few_is_noticed(models, tmp_path):
    found = proven(
        models("llama", "sentencepiece"),
        tmp_path,
        change=lambda packed: replace(packed, adds_space=False),
    )
    assert found.texts.differing
    assert found.chats.differing


def test_a_missing_bos_flag_is_noticed(models, tmp_path):
    found = proven(
        models("llama", "sentencepiece"),
        tmp_path,
        change=lambda packed: replace(packed, adds_bos=False),
    )
    assert found.faults == ["it puts 0 tokens around a text, not 1"]


def adding_eos(folder):
    tokenizer = folder / "tokenizer.json"

    def change(value):
        eos = next(t["id"] for t in value["added_tokens"] if t["content"] == "<|im_end|>")
        value["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {
                "<|im_end|>": {"id": "<|im_end|>", "ids": [eos], "tokens": ["<|im_end|>"]}
            },
        }

    rewrite_json(tokenizer, change)
    return folder


@pytest.mark.parametrize("flag", [True, False])
def test_a_missing_eos_flag_is_noticed(models, tmp_path, flag):
    folder = tmp_path / "model"
    shutil.copytree(models("qwen3", "byte-level"), folder)
    adding_eos(folder)
    found = proven(folder, tmp_path, change=lambda packed: replace(packed, adds_eos=flag))
    assert found.faults == ([] if flag else ["it puts 0 tokens around a text, not 1"])


def test_an_answer_that_does_not_end_is_noticed(models, tmp_path):
    folder = models("llama", "sentencepiece")
    own = tokenizer_of(folder)
    token = own.convert_tokens_to_ids("a")

    def change(packed):
        tokens = list(packed.tokens)
        tokens[packed.special["eos"]] = "[end]"
        return replace(packed, tokens=tokens, special=packed.special | {"eos": token})

    found = proven(folder, tmp_path, change=change)
    assert found.faults == ["an answer does not end at '</s>'"]


def test_further_ends_are_kept(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models("llama", "sentencepiece"), folder)
    ends = [tokenizer_of(folder).convert_tokens_to_ids(text) for text in "ab"]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, *ends]}))
    assert proven(folder, tmp_path).faults == []
    special = {"bos": 1, "eos": 2, "unk": 0, "pad": 2}
    without = proven(folder, tmp_path, change=lambda packed: replace(packed, special=special))
    assert without.faults == ["an answer does not end at 'a'", "an answer does not end at 'b'"]


def test_qwen2_with_pieces_is_refused_as_transformers_loads_it(models):
    folder = models("qwen2", "sentencepiece")
    with pytest.raises(TunewrightError) as caught:
        gguf_tokenizer(load_tokenizer(folder), 1088)
    (problem,) = caught.value.problems
    assert "of the 256 bytes are no tokens" in problem.message
