"""Every kind of adapter that PEFT makes, merged; PEFT's own merge and PEFT's own model are the references."""

import gc
import json
import warnings

import pytest
import torch
from merging import (
    FAMILIES,
    FEATURES,
    UNLIKE_PEFT,
    logits,
    make_adapter,
    make_base,
    merged_by_peft,
    rewrite,
    tensors_of,
)
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tunewright.errors import TunewrightError
from tunewright.events import SILENT
from tunewright.merge import _proof
from tunewright.merge._merge import merge_folder
from tunewright.merge._proof import tensor_differences
from tunewright.models._load import load_tuned

pytestmark = pytest.mark.usefixtures("one_thread")
CASES = [("qwen3", name) for name in FEATURES] + [
    (kind, name)
    for kind in FAMILIES[1:]
    for name in ("lora", "patterns", "dora", "whole", "embedding")
]


def merged(tmp_path, base, adapter=None):
    out = tmp_path / "out"
    out.mkdir()
    merge_folder(base, adapter or tmp_path / "adapter", out, SILENT)
    return out


def reasons_of(action) -> list[str]:
    with pytest.raises(TunewrightError) as caught:
        action()
    assert {problem.code for problem in caught.value.problems} == {"E_ARTIFACT_INVALID"}
    return [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize(("kind", "feature"), CASES)
def test_float32_is_what_peft_merges_bit_for_bit(tmp_path, kind, feature):
    options, of_base = FEATURES[feature]
    base = make_base(tmp_path / "base", kind, **of_base)
    tuned = make_adapter(tmp_path / "adapter", base, **options)
    before = logits(tuned)
    out = merged(tmp_path, base)
    assert len(list(out.glob("*.safetensors"))) == len(list(base.glob("*.safetensors"))) > 1
    assert tensor_differences(base, tmp_path / "adapter", out) == []
    want = merged_by_peft(tuned)
    model = AutoModelForCausalLM.from_pretrained(out)
    got = model.state_dict()
    assert got.keys() == want.keys()
    assert [name for name in want if not torch.equal(got[name], want[name])] == []
    assert torch.allclose(logits(model), before, atol=2e-4)


@pytest.mark.parametrize("feature", UNLIKE_PEFT)
def test_of_tied_embeddings_the_merged_model_computes_what_was_trained(tmp_path, feature):
    """PEFT's own merge adds an update of one to both, or twice: it is no reference here, its model is."""
    options, of_base = UNLIKE_PEFT[feature]
    base = make_base(tmp_path / "base", "qwen3", **of_base)
    tuned = make_adapter(tmp_path / "adapter", base, **options)
    want = logits(tuned)
    out = merged(tmp_path, base)
    assert tensor_differences(base, tmp_path / "adapter", out) == []
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.allclose(logits(model), want, atol=1e-4)
    assert model.config.tie_word_embeddings == ("both" in feature)
    merged_by_peft(tuned)
    assert not torch.allclose(logits(tuned.base_model.model), want, atol=0.1)


@pytest.mark.parametrize(
    "feature", ["lora", "dora", "dora embedding", "embedding", "tokens", "whole"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_rounded_once(tmp_path, dtype, feature):
    """Against PEFT's merge in float64's stead: in float32, over the same 16-bit weights."""
    options, of_base = FEATURES[feature]
    base = make_base(tmp_path / "base", "llama", dtype=dtype, **of_base)
    make_adapter(tmp_path / "adapter", base, **options)
    exact = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    want = merged_by_peft(PeftModel.from_pretrained(exact, tmp_path / "adapter"))
    out = merged(tmp_path, base)
    assert tensor_differences(base, tmp_path / "adapter", out) == []
    got = tensors_of(out)
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == dtype
        noise = 2e-6 * tensor.abs().max()
        inside = ((tensor - noise).to(dtype) <= got[name]) & (
            got[name] <= (tensor + noise).to(dtype)
        )
        assert inside.all(), name


def test_peft_rounds_twice_where_it_merges_safely(tmp_path):
    """In bfloat16 the update is rounded before the sum: of the exact weights, ours are the nearest."""
    base = make_base(tmp_path / "base", "llama", dtype=torch.bfloat16)
    make_adapter(tmp_path / "adapter", base, target_modules="all-linear")
    ours = tensors_of(merged(tmp_path, base))
    models = [AutoModelForCausalLM.from_pretrained(base, dtype=d) for d in (None, torch.float32)]
    safe, exact = (
        PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload(safe_merge=safely)
        for model, safely in zip(models, (True, False), strict=True)
    )
    name = "model.layers.0.mlp.up_proj.weight"
    want = exact.state_dict()[name]
    assert torch.equal(ours[name], want.bfloat16())
    assert not torch.equal(safe.state_dict()[name], want.bfloat16())


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("options", [{"lora_bias": True}, {"bias": "all"}, {"bias": "lora_only"}])
def test_biases_are_merged(tmp_path, kind, options):
    biases = {"attention_bias": True, "mlp_bias": True} if kind == "llama" else {}
    base = make_base(tmp_path / "base", kind, **biases)
    tuned = make_adapter(tmp_path / "adapter", base, target_modules=["q_proj", "k_proj"], **options)
    out = merged(tmp_path, base)
    assert tensor_differences(base, tmp_path / "adapter", out) == []
    want, got = merged_by_peft(tuned), tensors_of(out)
    assert [name for name in want if not torch.equal(got[name], want[name])] == []
    before = tensors_of(base)
    changed = [n for n in got if n.endswith("bias") and not torch.equal(got[n], before[n])]
    assert changed


@pytest.mark.parametrize(
    ("rows", "options", "tied"),
    [
        (131, {"modules_to_save": ["embed_tokens", "lm_head"]}, False),
        (192, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
        (133, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}, False),
    ],
)
def test_an_embedding_with_more_rows_than_the_base(tmp_path, rows, options, tied):
    base = make_base(tmp_path / "base", "qwen3", tie_word_embeddings=tied)
    tuned = make_adapter(tmp_path / "adapter", base, rows=rows, **options)
    want = logits(tuned)
    out = merged(tmp_path, base)
    assert tensor_differences(base, tmp_path / "adapter", out) == []
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.vocab_size == rows == model.get_input_embeddings().weight.shape[0]
    assert torch.allclose(logits(model), want, atol=1e-4)
    assert torch.allclose(logits(load_tuned(base, tmp_path / "adapter")), want, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_added_tokens_whose_embedding_peft_saves_whole(tmp_path, tied):
    base = make_base(tmp_path / "base", "qwen3", tie_word_embeddings=tied)
    ends = {"embed_tokens": [128, 130]} | ({} if tied else {"lm_head": [128, 130]})
    tuned = make_adapter(tmp_path / "adapter", base, rows=131, trainable_token_indices=ends)
    want = logits(tuned)
    out = merged(tmp_path, base)
    assert tensor_differences(base, tmp_path / "adapter", out) == []
    model = AutoModelForCausalLM.from_pretrained(out)
    assert (model.config.vocab_size, model.config.tie_word_embeddings) == (131, tied)
    assert torch.allclose(logits(model), want, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_added_tokens_that_the_base_has_not(tmp_path, tied):
    """Our training gives the embedding rows up to the next 64, each of which begins as the mean."""
    base = make_base(tmp_path / "base", "qwen3", dtype=torch.bfloat16, tie_word_embeddings=tied)
    ends = {"embed_tokens": [128, 130]} | ({} if tied else {"lm_head": [128, 130]})
    make_adapter(tmp_path / "adapter", base, rows=192, trainable_token_indices=ends)
    strip_embeddings(tmp_path / "adapter")
    out = merged(tmp_path, base)
    assert tensor_differences(base, tmp_path / "adapter", out) == []
    want = load_tuned(base, tmp_path / "adapter", "bfloat16").merge_and_unload().state_dict()
    got = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert got["model.embed_tokens.weight"].shape == (192, 64)
    assert [n for n in want if not torch.allclose(got[n], want[n], rtol=2**-7, atol=1e-6)] == []


def strip_embeddings(adapter):
    """Take out the whole embeddings that PEFT saves beside rows when it finds the base's on disk."""
    file = adapter / "adapter_model.safetensors"
    kept = {name: x for name, x in load_file(file).items() if "base_layer" not in name}
    save_file(kept, file, metadata={"format": "pt"})


PLANTED = {
    "one weight by one step": "model.layers.1.mlp.down_proj.weight",
    "an untouched weight": "model.norm.weight",
    "the embedding": "model.embed_tokens.weight",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PLANTED.values(), ids=PLANTED)
def test_a_changed_weight_is_found(tmp_path, name, dtype):
    base = make_base(tmp_path / "base", "llama", dtype=dtype)
    make_adapter(tmp_path / "adapter", base, target_modules="all-linear")
    out = merged(tmp_path, base)
    tensor = tensors_of(out)[name]
    flat = tensor.view(-1)
    at = int(flat.abs().argmax())
    # Two units in the last place of bfloat16, one of which rounding may hide.
    flat[at] = flat[at] * (1 + 2**-6)
    rewrite(out, name, tensor)
    assert [n for n, _ in tensor_differences(base, tmp_path / "adapter", out)] == [name]


def tensor_bytes() -> int:
    """Return the bytes of all tensors that live."""
    alive = (x for x in gc.get_objects() if isinstance(x, torch.Tensor) and not x.is_meta)
    return sum(
        {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in alive}.values()
    )


def test_the_proof_keeps_nothing_of_the_tensors_that_are_done(tmp_path, monkeypatch):
    base = make_base(tmp_path / "base", "llama", num_hidden_layers=6, dtype=torch.bfloat16)
    make_adapter(tmp_path / "adapter", base, target_modules="all-linear")
    out = merged(tmp_path, base)
    gc.collect()
    start, seen, plain = tensor_bytes(), [], _proof._unlike

    def watched(got, exact):
        seen.append(tensor_bytes() - start)
        return plain(got, exact)

    monkeypatch.setattr(_proof, "_unlike", watched)
    monkeypatch.setattr(_proof, "BLOCK", 2**10)
    assert tensor_differences(base, tmp_path / "adapter", out) == []
    assert len(seen) > 100
    # The adapter, and a few stretches; not a stretch of each of the 42 modules.
    assert max(seen) - min(seen) <= 4 * 4 * _proof.BLOCK


def test_missing_extra_and_misshapen_tensors_and_nan_are_found_at_once(tmp_path):
    base = make_base(tmp_path / "base", "llama", dtype=torch.bfloat16)
    make_adapter(tmp_path / "adapter", base)
    out = merged(tmp_path, base)
    found = tensors_of(out)
    rewrite(out, "model.norm.weight", None)
    rewrite(out, "model.extra.weight", torch.zeros(3))
    q, k, v = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv")
    rewrite(out, q, found[q][:-1])
    rewrite(out, k, found[k].float())
    found[v][0, 0] = float("nan")
    rewrite(out, v, found[v])
    assert dict(tensor_differences(base, tmp_path / "adapter", out)) == {
        "model.norm.weight": "is missing",
        "model.extra.weight": "is not in the base",
        q: "is BF16 [63, 64], not BF16 [64, 64]",
        k: "is F32 [32, 64], not BF16 [32, 64]",
        v: "is not what PEFT makes of the base in 1 of 2,048 places",
    }


def test_a_head_that_was_forgotten_is_found(tmp_path):
    """The embedding alone is right, and so is its copy; the model that ties them is not what was trained."""
    base = make_base(tmp_path / "base", "qwen3", tie_word_embeddings=True)
    make_adapter(tmp_path / "adapter", base, modules_to_save=["lm_head"])
    out = merged(tmp_path, base)
    rewrite(out, "lm_head.weight", None)
    settings = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    ((name, reason),) = tensor_differences(base, tmp_path / "adapter", out)
    assert name == "lm_head.weight"
    assert reason.startswith("is the embedding, which is not what PEFT makes")


def edited(adapter, **settings):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_what_merging_does_not_know_is_refused_with_all_reasons(tmp_path):
    base = make_base(tmp_path / "base", "llama")
    make_adapter(tmp_path / "adapter", base)
    given = {"use_qalora": True, "alora_invocation_tokens": [3], "fan_in_fan_out": True}
    edited(tmp_path / "adapter", **given, init_lora_weights="pissa_niter_4")
    found = reasons_of(lambda: merged(tmp_path, base))
    assert [text.split("'")[1] for text in found] == [
        "use_qalora", "alora_invocation_tokens", "fan_in_fan_out", "pissa_niter_4",
    ]  # fmt: skip


def test_settings_that_are_not_those_of_the_weights_are_refused(tmp_path):
    base = make_base(tmp_path / "base", "llama")
    make_adapter(tmp_path / "adapter", base)
    edited(tmp_path / "adapter", rank_pattern={"v_proj": 8}, use_dora=True)
    found = reasons_of(lambda: merged(tmp_path, base))
    assert len(found) == 4
    assert sum("has rank 4" in text for text in found) == 2
    assert sum("has no magnitude" in text for text in found) == 2


def test_an_adapter_of_another_base_is_refused(tmp_path):
    other = make_base(tmp_path / "other", "llama", num_hidden_layers=3, intermediate_size=80)
    make_adapter(tmp_path / "adapter", other, target_modules=["up_proj"])
    base = make_base(tmp_path / "base", "llama")
    found = reasons_of(lambda: merged(tmp_path, base))
    assert len(found) == 3


def test_weights_that_leave_the_range_are_refused(tmp_path):
    base = make_base(tmp_path / "base", "llama", dtype=torch.float16)
    make_adapter(tmp_path / "adapter", base)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({k: 1e4 * v for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    (reason,) = reasons_of(lambda: merged(tmp_path, base))
    assert "NaN or infinity" in reason


def test_a_quantised_base_is_refused(tmp_path):
    base = make_base(tmp_path / "base", "llama")
    make_adapter(tmp_path / "adapter", base)
    file = base / "config.json"
    settings = json.loads(file.read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    file.write_text(json.dumps(settings))
    with pytest.raises(TunewrightError) as caught:
        merged(tmp_path, base)
    assert caught.value.problems[0].code == "E_MODEL"


def test_halves_of_a_tied_tensor_that_differ_are_refused(tmp_path):
    base = make_base(tmp_path / "base", "qwen3", tie_word_embeddings=True)
    options = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    make_adapter(tmp_path / "adapter", base, **options)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.lm_head.weight"] = tensors["base_model.model.lm_head.weight"] + 1
    save_file(tensors, file, metadata={"format": "pt"})
    (reason,) = reasons_of(lambda: merged(tmp_path, base))
    assert "they differ" in reason


def test_weights_under_their_makers_names_are_left_alone(tmp_path):
    """Mistral's folders hold the same weights once more, under other names."""
    base = make_base(tmp_path / "base", "mistral")
    make_adapter(tmp_path / "adapter", base)
    save_file({"layers.0.wq": torch.zeros(2)}, base / "consolidated.safetensors")
    out = merged(tmp_path, base)
    assert not (out / "consolidated.safetensors").exists()
    assert tensor_differences(base, tmp_path / "adapter", out) == []


def test_progress_is_told_in_bytes(tmp_path):
    base = make_base(tmp_path / "base", "llama")
    make_adapter(tmp_path / "adapter", base)
    told = []

    class Listener:
        def started(self, stage, total, unit):
            told.append((total, unit))

        def advanced(self, done, detail):
            told.append(done)

        def said(self, text): ...

    out = tmp_path / "out"
    out.mkdir()
    merge_folder(base, tmp_path / "adapter", out, Listener())
    size = sum(tensor.nbytes for tensor in tensors_of(base).values())
    assert told[0] == (size, "bytes")
    assert told[-1] == size
    assert told[1:] == sorted(told[1:])
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == size
    assert index["weight_map"].keys() == tensors_of(out).keys()


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
