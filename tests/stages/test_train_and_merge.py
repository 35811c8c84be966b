import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright import merge, plan, prepare, train
from tunewright.errors import TunewrightError
from tunewright.events import SILENT
from tunewright.merge._merge import merge_folder, prove
from tunewright.models._load import load_model, load_tokenizer, load_tuned, resolve_model


def codes_of(action) -> list[str]:
    with pytest.raises(TunewrightError) as caught:
        action()
    return [p.code for p in caught.value.problems]


def test_training_lowers_the_held_out_loss_and_keeps_the_best(trained):
    _, _, adapter = trained
    losses = dict(adapter.facts["eval_losses"])
    assert adapter.facts["best_eval_loss"] == min(losses.values()) < losses[0]
    rows = [json.loads(x) for x in (adapter.path / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == list(range(1, adapter.facts["steps"] + 1))
    assert not list(adapter.path.glob("checkpoint*"))
    assert not [f for f in adapter.files if f.endswith((".bin", ".pt", ".pth"))]
    summary = json.loads((adapter.path / "training_summary.json").read_text())
    assert summary["hyperparameters"]["lora"]["r"] == 4


def test_saved_adapter_has_the_loss_of_the_best_evaluation(trained):
    """An independent forward pass over the held-out rows gives the recorded loss."""
    config, dataset, adapter = trained
    from tunewright.train._rows import read_side, token_rows

    base = resolve_model("tunewright/tiny")
    model = load_tuned(base, adapter.path)
    rows = token_rows(read_side(dataset.path / "eval.jsonl"), load_tokenizer(base), config.train)
    losses = []
    with torch.no_grad():
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            logits = model(input_ids=ids).logits[0, :-1]
            losses.append(torch.nn.functional.cross_entropy(logits, labels[1:], reduction="none"))
    # One batch: Trainer's mean is over its tokens.
    assert len(rows) <= config.train.per_device_train_batch_size
    tokens = [loss[loss > 0] for loss in losses]
    assert torch.cat(tokens).mean().item() == pytest.approx(
        adapter.facts["best_eval_loss"], rel=1e-4
    )


def test_divergence_stops_with_the_step(trained, make_config):
    _, dataset, _ = trained
    config = make_config("train.learning_rate=1e9", "train.max_grad_norm=1e9")
    with pytest.raises(TunewrightError) as caught:
        train(config, dataset)
    assert caught.value.exit_code == 10
    assert "step" in caught.value.problems[0].where


def test_interrupted_training_leaves_no_adapter_and_goes_on(trained, make_config):
    _, dataset, adapter = trained

    class Stop:
        def started(self, *_): ...
        def said(self, *_): ...
        def advanced(self, done, _):
            if done >= 1:
                raise KeyboardInterrupt

    config = make_config()
    with pytest.raises(KeyboardInterrupt):
        train(config, dataset, listener=Stop())
    left = [p.name for p in Path(config.run_dir).iterdir() if p.is_dir()]
    assert left == ["training"]
    made = train(config, dataset)
    assert made.files["adapter_model.safetensors"] == adapter.files["adapter_model.safetensors"]


def test_plan_says_what_will_happen(trained):
    config, dataset, adapter = trained
    facts = plan(config, dataset).facts
    assert facts["steps"] == adapter.facts["steps_planned"] == adapter.facts["steps"]
    model = load_tuned(resolve_model("tunewright/tiny"), adapter.path)
    assert facts["trainable_parameters"] == sum(
        p.numel() for n, p in model.named_parameters() if "lora_" in n
    )
    assert facts["choices"] == adapter.facts["choices"] or {
        choice["name"]: choice["value"] for choice in facts["choices"]
    } == {choice["name"]: choice["value"] for choice in adapter.facts["choices"]}


def test_plan_refuses_everything_wrong_at_once(trained, make_config, monkeypatch):
    _, dataset, _ = trained
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    config = make_config("train.max_length=100000", "train.lora.target_modules=[q_proj,w_proj]")
    found = codes_of(lambda: plan(config, dataset))
    assert found == ["E_CONFIG_VALUE", "E_CONFIG_VALUE", "E_DISK_SPACE"]


def test_a_full_disk_is_told_before_the_first_step(trained, make_config, monkeypatch):
    _, dataset, _ = trained
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    config = make_config()
    assert codes_of(lambda: train(config, dataset)) == ["E_DISK_SPACE"]
    assert not (Path(config.run_dir) / "training" / "identity.json").exists()


@pytest.fixture(scope="module")
def merged(trained):
    config, dataset, adapter = trained
    return merge(config, adapter, dataset)


def test_merged_model_is_proven_and_loads(merged, trained):
    assert all(gate["passed"] for gate in merged.facts["gates"])
    assert merged.facts["tensors_merged"] == 35
    model = load_model(merged.path)
    tokenizer = load_tokenizer(merged.path)
    assert model.config.vocab_size >= len(tokenizer)
    assert tokenizer.chat_template == load_tokenizer(trained[2].path).chat_template


def test_one_altered_tensor_fails_the_gate(merged, trained, tmp_path):
    config, dataset, adapter = trained
    broken = tmp_path / "merged"
    shutil.copytree(merged.path, broken)
    tensors = load_file(broken / "model.safetensors")
    for name in ("model.layers.2.mlp.down_proj.weight", "model.norm.weight"):
        changed = {k: v.clone() for k, v in tensors.items()}
        changed[name].view(-1)[7] += 0.05
        save_file(changed, broken / "model.safetensors", metadata={"format": "pt"})
        base = resolve_model("tunewright/tiny")
        with pytest.raises(TunewrightError) as caught:
            prove(base, adapter.path, broken, dataset.path / "eval.jsonl", config)
        assert caught.value.problems[0].code == "E_GATE_MERGE"
        assert name in caught.value.problems[0].message


def test_missing_tensor_and_wrong_dtype_fail_the_gate(merged, trained, tmp_path):
    config, dataset, adapter = trained
    broken = tmp_path / "merged"
    shutil.copytree(merged.path, broken)
    tensors = load_file(broken / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.layers.0.self_attn.q_proj.weight"] = tensors[
        "model.layers.0.self_attn.q_proj.weight"
    ].to(torch.float16)
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    base = resolve_model("tunewright/tiny")
    found = codes_of(lambda: prove(base, adapter.path, broken, dataset.path / "eval.jsonl", config))
    assert found == ["E_GATE_MERGE", "E_GATE_MERGE"]


def test_altered_adapter_is_refused_before_merging(trained, make_config, tmp_path):
    _, dataset, adapter = trained
    copy = tmp_path / "adapter"
    shutil.copytree(adapter.path, copy)
    weights = copy / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    found = codes_of(lambda: merge(make_config(), replace(adapter, path=copy), dataset))
    assert found == ["E_ARTIFACT_INVALID"]


SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral"])
@pytest.mark.parametrize("rslora", [False, True])
def test_equal_to_merge_and_unload_in_float32(tmp_path, kind, rslora):
    """Shard by shard, from several shards, bit for bit what PEFT does in memory."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES))
    base, folder, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    out.mkdir()
    model.save_pretrained(base, max_shard_size="100KB")
    assert len(list(base.glob("*.safetensors"))) > 1
    lora = LoraConfig(
        r=4, lora_alpha=12, target_modules="all-linear", use_rslora=rslora, task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(model, lora)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    tuned.save_pretrained(str(folder))
    merge_folder(base, folder, out, SILENT)
    expected = tuned.merge_and_unload().state_dict()
    got = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor) or math.isclose(
            float((got[name] - tensor).abs().max()), 0, abs_tol=1e-7
        ), name


def test_adapter_of_another_base_is_refused(trained, tmp_path):
    _, _, adapter = trained
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES))
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "out").mkdir()
    assert codes_of(
        lambda: merge_folder(tmp_path / "base", adapter.path, tmp_path / "out", SILENT)
    ) == ["E_ARTIFACT_INVALID"]


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused(make_config, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(resolve_model("tunewright/tiny"), base)
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"vocab_size": 4000}))
    config = make_config(f"model.model_name_or_path={base}")
    dataset = prepare(config)
    for stage in (plan, train):
        with pytest.raises(TunewrightError) as caught:
            stage(config, dataset)
        (problem,) = caught.value.problems
        assert problem.code == "E_MODEL"
        assert "4095" in problem.message
        assert "4000 rows" in problem.message
