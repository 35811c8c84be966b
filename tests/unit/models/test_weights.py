"""Bases and adapters from outside: what is damaged or does not fit is refused before it is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.errors import TunewrightError
from tunewright.models._folders import resolve_model
from tunewright.models._load import load_model, load_tuned
from tunewright.models._weights import check_adapter, check_base, save_tensors, shapes_in, shapes_of

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
}
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def model_of(kind: str = "qwen3", **other):
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SIZES | other)))


def saved(model, folder: Path, **options) -> Path:
    config = LoraConfig(
        **({"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options)
    )
    get_peft_model(model, config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    model_of().save_pretrained(folder, max_shard_size="30KB")
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return saved(model_of(), tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def copy(adapter, tmp_path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


def problems_of(action) -> list[tuple[str, str]]:
    with pytest.raises(TunewrightError) as caught:
        action()
    return [(p.code, p.message) for p in caught.value.problems]


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    file = folder / "adapter_model.safetensors"
    found = load_file(file) | tensors
    save_file({name: x.clone() for name, x in found.items() if x is not None}, file)


def set_option(folder: Path, **options) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | options))


def test_a_whole_base_is_taken(base):
    check_base(base)
    assert len(list(base.glob("*.safetensors"))) > 2
    model = AutoModelForCausalLM.from_pretrained(base)
    assert shapes_in(model) == shapes_of(base)


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "C:x", r"\\srv\x", "sub/x", "..", "a\0b", "", "."]
)
def test_an_index_that_leads_out_of_the_folder(base, tmp_path, name):
    folder = shutil.copytree(base, tmp_path / "base")
    index = folder / "model.safetensors.index.json"
    settings = json.loads(index.read_text())
    settings["weight_map"]["lm_head.weight"] = name
    index.write_text(json.dumps(settings))
    ((code, message),) = problems_of(lambda: check_base(folder))
    assert code == "E_UNSAFE_PATH"
    assert repr(name) in message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {"a": 1}}', "[" * 100_000])
def test_an_index_that_is_none(base, tmp_path, text):
    folder = shutil.copytree(base, tmp_path / "base")
    (folder / "model.safetensors.index.json").write_text(text)
    assert problems_of(lambda: check_base(folder)) == [("E_MODEL", "The index cannot be read.")]


def test_shards_that_are_missing_cut_off_or_others(base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    first, second, third, *_ = sorted(folder.glob("*.safetensors"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-4])
    shutil.copyfile(sorted(base.glob("*.safetensors"))[-1], third)
    found = problems_of(lambda: check_base(folder))
    assert {code for code, _ in found} == {"E_MODEL"}
    texts = " ".join(message for _, message in found)
    for words in ("it is missing", "4 bytes are missing", "of the index, the first is"):
        assert words in texts


def test_a_damaged_base_is_refused_before_it_is_loaded(tmp_path):
    folder = Path(shutil.copytree(resolve_model("tunewright/tiny"), tmp_path / "base"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    ((code, message),) = problems_of(lambda: resolve_model(str(folder)))
    assert code == "E_MODEL"
    assert "is cut off" in message
    resolve_model(str(folder), weights=False)


def test_pickled_weights_are_refused(base, copy, tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"")
    assert problems_of(lambda: resolve_model(str(file)))[0][0] == "E_UNSAFE_FORMAT"
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    assert problems_of(lambda: load_tuned(base, copy))[0][0] == "E_UNSAFE_FORMAT"


KINDS = {
    "plain": {},
    "dora": {"use_dora": True},
    "bias": {"lora_bias": True},
    "whole modules": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 2]}},
    "embedding": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "ranks": {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"k_proj": 2}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_peft_saves_is_taken(tmp_path, kind, tied):
    model = model_of(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path / "base")
    folder = saved(model, tmp_path / "adapter", **KINDS[kind])
    check_adapter(folder, shapes_of(tmp_path / "base"))
    check_adapter(folder, shapes_in(load_model(tmp_path / "base")))


def test_numbers_that_are_none(copy, base):
    bad = load_file(copy / "adapter_model.safetensors")[Q]
    bad[0, 3], bad[1, 1] = torch.nan, -torch.inf
    change(copy, **{Q: bad})
    ((code, message),) = problems_of(lambda: load_tuned(base, copy))
    assert (code, message) == (
        "E_ARTIFACT_INVALID",
        f"'{Q}' holds NaN or infinity in 2 of 128 places.",
    )


MODULE = Q.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
MISFITS = {
    f"'{MODULE}' has lora_B.weight, and not just A and B": {Q: None},
    f"'{MODULE}' has A [3, 32] and B [32, 4], which make no product": {Q: torch.zeros(3, 32)},
    f"'{MODULE}' changes a weight of [32, 30], and the base's is [32, 32]": {Q: torch.zeros(4, 30)},
    "'model.layers.9.q' fits no tensor of the base": {
        f"base_model.model.model.layers.9.q.{part}": torch.zeros(4, 4)
        for part in ("lora_A.weight", "lora_B.weight")
    },
    "'model.norm.weight' is [7] in the adapter and [32] in the base": {
        "base_model.model.model.norm.weight": torch.zeros(7, 1)[:, 0]
    },
    "'model.other.weight' fits no tensor of the base": {
        "base_model.model.model.other.weight": torch.zeros(3)
    },
    "'stranger' is no name of an adapter's tensor": {"stranger": torch.zeros(1)},
}


@pytest.mark.parametrize("message", MISFITS)
def test_a_tensor_that_does_not_fit(copy, base, message):
    change(copy, **MISFITS[message])
    assert problems_of(lambda: check_adapter(copy, shapes_of(base))) == [
        ("E_ARTIFACT_INVALID", f"{message}.")
    ]


def test_the_rank_is_the_config_s(copy, base):
    set_option(copy, r=8)
    found = problems_of(lambda: load_tuned(base, copy))
    assert len(found) == 14
    assert found[0][1].endswith("has rank 4, and adapter_config.json says 8.")


def test_the_adapter_of_another_base(adapter, tmp_path):
    model_of(hidden_size=48, num_hidden_layers=1).save_pretrained(tmp_path)
    texts = [message for _, message in problems_of(lambda: load_tuned(tmp_path, adapter))]
    assert sum("fits no tensor" in text for text in texts) == 7
    assert sum("changes a weight" in text for text in texts) == 7


def test_an_adapter_without_tensors_or_settings(copy, base):
    save_file({}, copy / "adapter_model.safetensors")
    assert problems_of(lambda: load_tuned(base, copy))[0][1] == "It has no tensors."
    (copy / "adapter_model.safetensors").unlink()
    assert problems_of(lambda: load_tuned(base, copy))[0][1] == "The adapter has no weights."
    set_option(copy, megatron_config={"a": 1}, megatron_core="os")
    assert problems_of(lambda: load_tuned(base, copy))[0][0] == "E_UNSAFE_FORMAT"
    set_option(copy, peft_type="IA3")
    assert problems_of(lambda: load_tuned(base, copy))[0][1] == "It is not a LoRA adapter."
    for text in ("", "[]", '{"peft_type": "LORA"}', '{"peft_type": "LORA", "r": "4"}'):
        (copy / "adapter_config.json").write_text(text)
        found = problems_of(lambda: load_tuned(base, copy))
        assert found == [("E_ARTIFACT_INVALID", "adapter_config.json cannot be read.")]


def test_a_damaged_file_is_said_rule_by_rule(copy, base):
    file = copy / "adapter_model.safetensors"
    raw = file.read_bytes()
    file.write_bytes(raw[:-100])
    ((code, message),) = problems_of(lambda: load_tuned(base, copy))
    assert code == "E_ARTIFACT_INVALID"
    assert "100 bytes are missing" in message
    text = raw.replace(b".v_proj.", b".q_proj.", 1)
    file.write_bytes(text)
    ((_, message),) = problems_of(lambda: load_tuned(base, copy))
    assert message.endswith("is there twice.")


def test_what_is_written_may_be_read_as_other_files_may(tmp_path):
    (tmp_path / "other").touch()
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
