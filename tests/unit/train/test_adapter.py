"""The model that is trained and its files, on tiny random bases and on the bundled one."""

import hashlib
import json
import shutil

import pytest
import torch
from adapters import IDS, LORA, METHODS, SIZES, logits, make, problems_of, trainable, trained
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from tunewright.config.schema import TrainSection
from tunewright.errors import TunewrightError
from tunewright.models._folders import resolve_model
from tunewright.models._load import load_model, load_tuned
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.lora import read_lora
from tunewright.train import _initial
from tunewright.train._adapter import (
    adapter_state,
    build,
    keeping_float32,
    load_adapter_state,
    pinned,
    save_adapter,
)

CASES = [
    *(("qwen3", method) for method in METHODS),
    ("llama", "dora"),
    ("llama", "whole"),
    ("mistral", "lora"),
    ("mistral", "loftq"),
]


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_a_new_model_with_the_state_of_another_is_the_same(bases, kind, method):
    model = make(bases[kind], **METHODS[method])
    before = logits(model)
    trained(model)
    wanted, state = logits(model), adapter_state(model)
    assert not torch.equal(wanted, before)
    again = make(bases[kind], **METHODS[method])
    assert torch.equal(logits(again), before)
    load_adapter_state(again, state)
    assert torch.equal(logits(again), wanted)
    assert trained(model) == trained(again)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("qwen3", "lora"),
        ("qwen3", "4-bit dora"),
        ("qwen3", "whole"),
        ("llama", "dora"),
        ("llama", "pissa"),
        ("mistral", "lora"),
        ("mistral", "whole"),
    ],
)
def test_what_is_trained(bases, kind, method):
    given = METHODS[method]
    parameters = trainable(make(bases[kind], **given))
    marks = ("lora_A", "lora_B")
    marks += ("lora_magnitude_vector",) if given.get("use_dora") else ()
    marks += ("modules_to_save",) if "modules_to_save" in given else ()
    assert all(any(mark in name for mark in marks) for name in parameters)
    assert {p.dtype for p in parameters.values()} == {torch.float32}
    inputs_outputs = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 96), (64, 96), (96, 64)]
    expected = sum(2 * 4 * (i + o) for i, o in inputs_outputs)
    if given.get("use_dora"):
        expected += sum(2 * o for _, o in inputs_outputs)
    if "modules_to_save" in given:
        expected += 4096 * 64 + 64
    assert sum(p.numel() for p in parameters.values()) == expected


@pytest.mark.parametrize(
    "method",
    ["random", "dora", "pissa", "pissa_niter", "olora", "rslora pissa", "dora olora", "whole"],
)
def test_what_is_saved_computes_the_same_on_the_original_base(bases, tmp_path, method):
    model = make(bases["qwen3"], **METHODS[method])
    trained(model)
    save_adapter(model, tmp_path, base="someone/base", revision="main")
    assert {p.name for p in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "someone/base"
    assert settings["revision"] == "main"
    assert settings["init_lora_weights"] is True
    assert settings["inference_mode"] is True
    assert str(bases["qwen3"]) not in (tmp_path / "adapter_config.json").read_text()
    wanted, plain = logits(model), logits(load_model(bases["qwen3"]))
    assert (wanted - plain).abs().max() > 2e-3
    loaded = load_tuned(bases["qwen3"], tmp_path)
    assert (logits(loaded) - wanted).abs().max() < 2e-5
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), plain)


def test_saving_twice_gives_the_same_bytes(bases, tmp_path):
    model = make(bases["llama"], modules_to_save=["norm", "lm_head"])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_adapter(model, tmp_path / name, base="x", revision=None)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_state_that_does_not_fit_is_refused_by_name(bases):
    model = make(bases["qwen3"])
    before = adapter_state(model)
    names = sorted(before)
    wrong = dict(before)
    del wrong[names[0]]
    wrong[names[1]] = wrong[names[1]][:-1]
    wrong[names[2]] = wrong[names[2]].bfloat16()
    wrong["another.weight"] = torch.zeros(1)
    wrong = {name: x + 1 for name, x in wrong.items()}
    found = problems_of(lambda: load_adapter_state(model, wrong))
    assert found == [
        ("E_ARTIFACT_INVALID", name) for name in sorted(["another.weight", *names[:3]])
    ]
    assert all(torch.equal(x, before[name]) for name, x in adapter_state(model).items())


def test_names_that_match_nothing_are_refused_at_once(bases):
    found = problems_of(
        lambda: make(
            bases["llama"],
            target_modules=["q_proj", "w_proj", "lm_head"],
            modules_to_save=["embeddings", "norm"],
        )
    )
    assert found == [
        ("E_CONFIG_VALUE", "train.lora.target_modules"),
        ("E_CONFIG_VALUE", "train.lora.target_modules"),
        ("E_CONFIG_VALUE", "train.lora.modules_to_save"),
    ]
    with pytest.raises(TunewrightError) as caught:
        make(bases["llama"], target_modules=["w_proj"])
    assert "q_proj" in caught.value.problems[0].fix
    assert "lm_head" not in caught.value.problems[0].fix


@pytest.mark.parametrize("start", ["pissa", "olora", "eva"])
def test_a_rank_above_what_a_module_has_is_refused(bases, start):
    found = problems_of(lambda: make(bases["llama"], init_lora_weights=start, r=40))
    assert found == [("E_CONFIG_VALUE", "train.lora.r")]
    make(bases["llama"], r=40)


def test_targets_by_name_and_all_linear_without_what_is_trained_whole(bases):
    named = trainable(make(bases["llama"], target_modules=["self_attn.q_proj", "down_proj"]))
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in named} == {"q_proj", "down_proj"}
    rest = trainable(make(bases["llama"], modules_to_save=["o_proj", "lm_head"]))
    assert not any("o_proj.lora" in name or "lm_head.lora" in name for name in rest)
    assert sum("o_proj.modules_to_save" in name for name in rest) == 2


@pytest.mark.parametrize(("kind", "ends"), [("qwen3", 1), ("llama", 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_rows_of_added_tokens_are_trained(bases, tmp_path, kind, ends, dtype):
    tokens = ("<|scene|>", "<|shot|>")
    model = make(bases[kind], tokens=tokens, dtype=dtype)
    ids = torch.cat([IDS, torch.tensor([[4096, 4097], [4097, 4096]])], dim=1)
    rows = {n: p for n, p in trainable(model).items() if "trainable_tokens" in n}
    assert [tuple(p.shape) for p in rows.values()] == [(2, 64)] * ends
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    assert model.get_input_embeddings().weight.shape[0] == 4096 + 64
    old = load_model(bases[kind], dtype)
    mean = old.get_input_embeddings().weight.mean(dim=0, dtype=torch.float32)
    first = next(iter(rows.values()))
    assert torch.allclose(first[0], mean, atol=1e-3)
    assert trained(model, ids=ids)[-1] < 8.3
    assert not torch.allclose(first[0], mean, atol=1e-3)
    table = model.get_input_embeddings().weight
    assert torch.equal(table[:4096], old.get_input_embeddings().weight)
    save_adapter(model, tmp_path, base="x", revision=None)
    loaded = load_tuned(bases[kind], tmp_path, dtype)
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded)[..., :4096], logits(old))
    again = make(bases[kind], tokens=tokens, dtype=dtype)
    load_adapter_state(again, adapter_state(model))
    assert torch.equal(logits(again, ids), logits(model, ids))


def test_a_base_with_rows_to_spare_keeps_its_size(bases, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(bases["llama"], base)
    roomy = AutoConfig.for_model("llama", **SIZES | {"vocab_size": 4100}, tie_word_embeddings=False)
    AutoModelForCausalLM.from_config(roomy).save_pretrained(base)
    model = make(base, tokens=("<|scene|>",))
    assert model.get_input_embeddings().weight.shape[0] == 4100
    (first, _) = (p for n, p in trainable(model).items() if "trainable_tokens" in n)
    table = load_model(base).get_input_embeddings().weight
    assert torch.allclose(first[0], table[:4096].mean(dim=0), atol=1e-6)
    assert not torch.allclose(first[0], table[4096], atol=1e-3)


def test_added_tokens_with_an_embedding_that_is_trained_whole(bases, tmp_path):
    tokens = ("<|scene|>",)
    ids = torch.cat([IDS, torch.tensor([[4096], [4096]])], dim=1)
    for kind, kept in (("qwen3", 0), ("llama", 1)):
        model = make(bases[kind], tokens=tokens, modules_to_save=["embed_tokens"])
        assert sum("trainable_tokens" in name for name in trainable(model)) == kept
        trained(model, ids=ids)
        folder = tmp_path / kind
        folder.mkdir()
        save_adapter(model, folder, base="x", revision=None)
        assert torch.equal(logits(load_tuned(bases[kind], folder), ids), logits(model, ids))


@pytest.mark.parametrize("named", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_tied_head_stays_tied(bases, tmp_path, named):
    model = make(bases["qwen3"], modules_to_save=named)
    trained(model)
    save_adapter(model, tmp_path, base="x", revision=None)
    loaded = load_tuned(bases["qwen3"], tmp_path)
    weights = {
        name: x
        for name, x in loaded.state_dict().items()
        if "modules_to_save" in name and name.endswith("weight")
    }
    assert len(weights) == 2
    one, other = weights.values()
    assert torch.equal(one, other)
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("qwen3", {"tokens": ("<|scene|>",)}),
        ("llama", {"tokens": ("<|scene|>",), "dtype": "bfloat16"}),
        ("llama", {"modules_to_save": ["lm_head", "norm"]}),
    ],
)
def test_trls_head_without_logits_trains_the_same(bases, kind, given):
    """It reads the head's weight, past the wrapper that the head is in."""
    gradients = []
    for options in ({}, {"fused_lm_head": True}):
        model = make(bases[kind], **given).train()
        add_fused_lm_head(model.get_base_model())
        model(input_ids=IDS, labels=IDS, **options).loss.backward()
        gradients.append({name: p.grad for name, p in trainable(model).items()})
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        assert (gradient - other).norm() <= 0.02 * gradient.norm() + 1e-6, name


def test_modules_trained_whole_are_float32_over_a_bfloat16_base(bases):
    model = make(
        bases["llama"], dtype="bfloat16", modules_to_save=["embed_tokens", "norm", "lm_head"]
    )
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == {torch.bfloat16}
    losses = trained(model)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert model(input_ids=IDS).logits.dtype == torch.bfloat16
    with model.disable_adapter():
        logits(model)


def test_the_base_in_four_bits_learns_and_stays_as_it_is():
    """On some processors bitsandbytes repacks weights in an evaluation and then gives no gradient."""
    model = make(resolve_model("tunewright/tiny"), load_in_4bit=True)
    ids = IDS * 37 % 4000
    logits(model, ids)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert sum(p.dtype == torch.uint8 for p in frozen.values()) == 5 * 7
    model.train()
    with torch.no_grad():
        evaluated = model(input_ids=ids, labels=ids).loss
    model(input_ids=ids, labels=ids).loss.backward()
    first = [p for n, p in trainable(model).items() if "layers.0" in n and "lora_B" in n]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in first)
    model.zero_grad()
    losses = trained(model, steps=12, ids=ids)
    assert losses[0] == pytest.approx(evaluated.item(), rel=1e-6)
    assert losses[-1] < losses[0] - 1
    assert all(torch.equal(frozen[n], p) for n, p in model.named_parameters() if n in frozen)


def test_the_gradient_of_a_base_in_four_bits_is_that_of_its_weights(bases):
    """Against a plain model with the weights that the 4 bits stand for."""
    from peft.utils.integrations import dequantize_module_weight

    model, plain = make(bases["llama"], load_in_4bit=True), make(bases["llama"])
    with torch.no_grad():
        for (_, four), (_, full) in zip(
            _initial.lora_layers(model), _initial.lora_layers(plain), strict=True
        ):
            full.get_base_layer().weight.copy_(dequantize_module_weight(four.get_base_layer()))
    load_adapter_state(plain, adapter_state(model))
    logits(model)
    for each in (model, plain):
        each.train()
        each(input_ids=IDS, labels=IDS).loss.backward()
    for (name, p), q in zip(trainable(model).items(), trainable(plain).values(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-6), name


def test_building_says_nothing_and_leaves_the_random_numbers_alone(bases, capsys):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one = adapter_state(make(bases["llama"], init_lora_weights="gaussian", seed=1))
    assert torch.equal(torch.rand(3), wanted)
    again = adapter_state(make(bases["llama"], init_lora_weights="gaussian", seed=1))
    other = adapter_state(make(bases["llama"], init_lora_weights="gaussian", seed=2))
    assert all(torch.equal(x, again[name]) for name, x in one.items())
    assert not all(torch.equal(x, other[name]) for name, x in one.items())
    assert capsys.readouterr().out == ""


def test_a_state_is_a_copy(bases):
    model = make(bases["llama"])
    state = adapter_state(model)
    before = {name: x.clone() for name, x in state.items()}
    trained(model)
    assert all(torch.equal(x, before[name]) for name, x in state.items())


def test_keeping_float32_undoes_what_trl_does(bases):
    model = make(bases["llama"], load_in_4bit=True, init_lora_weights="gaussian")
    before = adapter_state(model)
    with keeping_float32(model):
        for parameter in trainable(model).values():
            parameter.data = parameter.data.to(torch.bfloat16)
    assert all(torch.equal(x, before[name]) for name, x in adapter_state(model).items())
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}


def test_names_in_the_state_are_those_of_the_saved_file(bases, tmp_path):
    model = make(bases["llama"], use_dora=True, modules_to_save=["norm"], tokens=("<|scene|>",))
    save_adapter(model, tmp_path, base="x", revision=None)
    saved, state = load_file(tmp_path / "adapter_model.safetensors"), adapter_state(model)
    assert saved.keys() == state.keys()
    assert sum(x.numel() for x in state.values()) == sum(
        p.numel() for p in trainable(model).values()
    )


@pytest.mark.parametrize(
    "given",
    [
        {"use_dora": True},
        {"tokens": ("<|scene|>",), "modules_to_save": ["norm"]},
        {"use_rslora": True, "init_lora_weights": "pissa"},
    ],
)
def test_merging_knows_every_adapter_that_training_makes(bases, tmp_path, given):
    save_adapter(make(bases["llama"], **given), tmp_path, base="x", revision=None)
    lora = read_lora(tmp_path)
    pissa = "init_lora_weights" in given
    assert lora.rank_of("model.layers.0.mlp.up_proj") == (8 if pissa else 4)
    assert lora.scale_of("model.layers.0.mlp.up_proj") == pytest.approx(8 / 4)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["4-bit", "loftq", "dora", "whole"])
def test_on_a_gpu(bases, method):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    lora = {k: v for k, v in METHODS[method].items() if k != "load_in_4bit"}
    four = "load_in_4bit" in METHODS[method]
    model = build(
        bases["llama"],
        load_tokenizer(bases["llama"]),
        TrainSection.model_validate({"load_in_4bit": four, "lora": LORA | lora}),
        dtype="bfloat16",
        device="cuda",
        seed=1,
    )
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    losses = trained(model, steps=8, ids=IDS.cuda())
    assert losses[-1] < losses[0]


def test_a_base_is_pinned_by_its_files(bases, tmp_path):
    found = pinned(bases["llama"])
    assert found.keys() == {"config.json", "tokenizer.json", "model.safetensors"}
    for name, digest in found.items():
        assert digest == hashlib.sha256((bases["llama"] / name).read_bytes()).hexdigest()
    snapshot = tmp_path / "snapshots" / "abc123"
    shutil.copytree(bases["llama"], snapshot)
    assert pinned(snapshot, "main") == found | {"revision": "abc123"}
    (snapshot / "model.safetensors").write_bytes(b"other")
    assert pinned(snapshot)["model.safetensors"] != found["model.safetensors"]
