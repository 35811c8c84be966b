import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright import merge, plan, prepare, train
from tunewright.errors import TunewrightError
from tunewright.events import SILENT
from tunewright.merge import _merge
from tunewright.merge._logits import held_out_ids
from tunewright.merge._merge import in_words, merge_folder, prove
from tunewright.models._folders import TINY, resolve_model
from tunewright.models._load import in_4_bits, load_model, load_tuned
from tunewright.models._tokenizer import load_tokenizer


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


def test_interrupted_training_leaves_no_adapter(trained, make_config):
    _, dataset, _ = trained

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


def test_a_base_in_4_bits_is_shown_with_how_far_it_is_from_the_merged_model(merged, trained):
    """The figure against distributions computed here; without 4 bits there is none."""
    config, dataset, adapter = trained
    base, rows = resolve_model("tunewright/tiny"), dataset.path / "eval.jsonl"
    assert merged.facts["from_4_bits"] is None
    options = config.train.model_copy(update={"load_in_4bit": True})
    config = config.model_copy(update={"train": options})
    found, moved = prove(base, adapter.path, merged.path, rows, config)
    assert moved.mean_kl > 10 * found.mean_kl
    assert moved.tokens == found.tokens
    assert "mean KL" in in_words(moved)
    stored = in_4_bits("nf4", compute_dtype="float32", double_quantisation=True)
    quantised = load_tuned(base, adapter.path, quantization_config=stored)
    plain = load_model(merged.path)
    total, same, count = 0.0, 0, 0
    for row in held_out_ids(rows, merged.path, config.train.max_length):
        with torch.no_grad():
            p, q = (m(input_ids=torch.tensor([row])).logits[0].double() for m in (quantised, plain))
        p_V, q_V = p.softmax(-1), q.softmax(-1)
        total += float((p_V * (p_V / q_V).log()).sum())
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        count += len(row)
    assert moved.mean_kl == pytest.approx(total / count, rel=1e-3)
    assert moved.top1_agreement == pytest.approx(same / count)


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


def test_a_tokenizer_with_more_ids_than_the_merged_embedding_is_refused(trained, tmp_path):
    _, _, adapter = trained
    copy = tmp_path / "adapter"
    shutil.copytree(adapter.path, copy)
    definition = json.loads((copy / "tokenizer.json").read_text())
    token = definition["added_tokens"][0] | {"id": 4096, "content": "<|new|>"}
    definition["added_tokens"].append(token)
    (copy / "tokenizer.json").write_text(json.dumps(definition))
    (tmp_path / "out").mkdir()
    with pytest.raises(TunewrightError) as caught:
        merge_folder(resolve_model("tunewright/tiny"), copy, tmp_path / "out", SILENT)
    (problem,) = caught.value.problems
    assert problem.code == "E_MODEL"
    assert "4096" in problem.message


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


def test_a_base_of_the_hub_is_known_by_its_files(trained, tmp_path):
    """What is said of it names its commit beside the files."""
    adapter = trained[2]
    base = resolve_model(TINY)
    files = {**adapter.facts["base_files"], "revision": "abc123"}
    _merge._same_base(base, replace(adapter, facts={**adapter.facts, "base_files": files}))
    files["config.json"] = "0" * 64
    changed = replace(adapter, facts={**adapter.facts, "base_files": files})
    with pytest.raises(TunewrightError, match="The base has changed") as caught:
        _merge._same_base(base, changed)
    assert [problem.where for problem in caught.value.problems] == [str(base / "config.json")]


def test_an_answer_ends_where_turns_ended_in_training(tmp_path):
    """The base's settings name another token, and the template ends turns with its own."""
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    out.mkdir()
    tiny = resolve_model(TINY)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tiny / name, out / name)
    (base / "generation_config.json").write_text('{"eos_token_id": 7, "top_k": 5}')
    _merge._carry_generation(base, out)
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings == {"eos_token_id": [7, 4095], "top_k": 5}
