"""How an adapter begins, and what becomes of the beginning when it is saved."""

import json

import pytest
import torch
from adapters import ROWS, logits, make, problems_of, trained
from peft.utils.save_and_load import set_peft_model_state_dict
from support import SAMPLES

from tunewright.models._folders import resolve_model
from tunewright.models._load import load_model, load_tuned
from tunewright.models._tokenizer import load_tokenizer
from tunewright.train import _initial
from tunewright.train._adapter import (
    adapter_state,
    load_adapter_state,
    save_adapter,
)


def test_without_the_conversion_pissa_would_be_wrong(bases, tmp_path):
    """A and B as they stand belong to the base without them: on the original it is another model."""
    model = make(bases["llama"], init_lora_weights="pissa")
    trained(model)
    save_adapter(model, tmp_path, base="x", revision=None)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (8, 16)
    raw = {k: x for k, x in adapter_state(model).items() if not k.endswith(_initial.START)}
    plain = make(bases["llama"])
    set_peft_model_state_dict(plain, raw)
    assert (logits(plain) - logits(model)).abs().max() > 0.1


@pytest.mark.parametrize("start", ["pissa_niter_2", "olora"])
def test_a_state_that_began_elsewhere_brings_its_base_along(bases, start, monkeypatch):
    """On other hardware the decomposition comes out a little different, and so does what is left."""
    model = make(bases["mistral"], init_lora_weights=start, seed=1)
    trained(model)
    state = adapter_state(model)
    svd, qr = torch.svd_lowrank, torch.linalg.qr
    monkeypatch.setattr(
        "peft.tuners.lora.layer.svd_lowrank", lambda w, r, niter: svd(w, r, niter=0)
    )
    monkeypatch.setattr("torch.linalg.qr", lambda w, **k: qr(w + 0.01 * torch.ones_like(w), **k))
    other = make(bases["mistral"], init_lora_weights=start, seed=2)
    monkeypatch.undo()
    assert not all(torch.equal(x, state[name]) for name, x in _initial.start_of(other).items())
    load_adapter_state(other, state)
    assert (logits(other) - logits(model)).abs().max() < 2e-5


def test_loftq_makes_up_for_what_four_bits_lose(bases):
    from peft.utils.integrations import dequantize_module_weight

    base = bases["llama"]
    original = dict(load_model(base).named_parameters())

    @torch.no_grad()
    def loss_of_weights(start) -> float:
        total = 0.0
        for name, layer in _initial.lora_layers(make(base, load_in_4bit=True, **start)):
            have = dequantize_module_weight(layer.get_base_layer()) + layer.get_delta_weight(
                "default"
            )
            wanted = original[name.removeprefix("base_model.model.") + ".weight"]
            total += float((have - wanted).square().sum())
        return total

    plain, made_up = loss_of_weights({}), loss_of_weights({"init_lora_weights": "loftq"})
    assert 0 < made_up < 0.9 * plain


def test_what_loftq_saves_for_the_original_base_leaves_the_correction_out(bases, tmp_path):
    model = make(bases["llama"], load_in_4bit=True, init_lora_weights="loftq")
    save_adapter(model, tmp_path, base="x", revision=None)
    tuned, plain = load_tuned(bases["llama"], tmp_path), load_model(bases["llama"])
    assert (logits(tuned) - logits(plain)).abs().max() < 2e-5


def test_eva_begins_from_the_data(bases):
    def start(rows, **given) -> dict[str, torch.Tensor]:
        model = make(bases["qwen3"], init_lora_weights="eva", rows=rows, **given)
        return {n: x for n, x in adapter_state(model).items() if "lora_A" in n}

    one = start(ROWS)
    other = start([{k: [x + 900 if x >= 0 else x for x in v] for k, v in r.items()} for r in ROWS])
    again = start(ROWS)
    assert all(torch.equal(x, again[name]) for name, x in one.items())
    assert not any(torch.allclose(x, other[name]) for name, x in one.items())
    assert {x.shape[0] for x in one.values()} == {4}
    # The directions are orthonormal, and those of the inputs: q, k and v of a layer see the same.
    for name, x in one.items():
        assert torch.allclose(x @ x.T, torch.eye(4), atol=1e-4), name
    layer = [
        x for n, x in one.items() if "layers.1" in n and n[:-14].endswith(("q_proj", "v_proj"))
    ]
    assert torch.equal(*layer)


def test_evas_directions_hold_nearly_all_that_any_could(bases):
    """Against the eigenvectors of all inputs at once, over real text; random directions hold far less."""
    base = resolve_model("tunewright/tiny")
    text = (SAMPLES / "manuscript").glob("*.txt")
    ids = load_tokenizer(base)("\n".join(p.read_text() for p in sorted(text)[:2]))["input_ids"]
    rows = [{"input_ids": x, "labels": x} for x in (ids[i : i + 64] for i in range(0, 640, 64))]
    model, plain = make(base, init_lora_weights="eva", rows=rows), make(base)
    name = "base_model.model.model.layers.2.mlp.down_proj"
    seen = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    logits(model, torch.tensor([row["input_ids"] for row in rows]))
    hook.remove()
    x = seen[0].flatten(0, 1)

    def held(directions: torch.Tensor) -> float:
        basis = torch.linalg.qr(directions.T).Q
        return float((x @ basis).square().sum())

    best = float(torch.linalg.svdvals(x)[:4].square().sum())
    assert held(adapter_state(model)[f"{name}.lora_A.weight"]) > 0.97 * best
    assert held(adapter_state(plain)[f"{name}.lora_A.weight"]) < 0.2 * best


def test_eva_refuses_data_that_are_too_few(bases, capsys):
    few = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}]
    found = problems_of(lambda: make(bases["qwen3"], init_lora_weights="eva", rows=few))
    assert found == [("E_CONFIG_VALUE", "train.lora.init_lora_weights")]
    assert capsys.readouterr().out == ""
