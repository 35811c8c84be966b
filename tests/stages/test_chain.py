"""An adapter, the merged model and its GGUF files, through the stages themselves, with every gate and default limit.

Each planted error of the second half turns the gate red that is there for it, and no gate that is there for another.
"""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from merging import make_adapter, rewrite, tensors_of
from small_models import byte_level, sentencepiece, split_by, write_model
from support import needs_kquants

from tunewright import export, merge
from tunewright.artifacts import load_artifact, sha256, writing
from tunewright.config.schema import Config
from tunewright.errors import TunewrightError
from tunewright.export import _export, _gguf, _proof, _tensors, _vocabulary
from tunewright.export._parity import Position, divergence
from tunewright.export.pretokenizer import QWEN2
from tunewright.merge import _merge
from tunewright.merge._logits import held_out_ids
from tunewright.models import _room
from tunewright.models._llama import endpoint
from tunewright.models._load import load_tuned
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.families import read_shape
from tunewright.train.needs import ram_need

pytestmark = pytest.mark.usefixtures("one_thread")

CHAINS = [
    ("qwen3", "byte-level"),
    ("qwen3", "sentencepiece"),
    ("llama", "byte-level"),
    ("llama", "sentencepiece"),
    ("mistral", "byte-level"),
    ("mistral", "sentencepiece"),
    # Not with SentencePiece: Transformers itself loads another tokenizer there, and the export refuses it
    # (test_qwen2_with_pieces_is_refused_as_transformers_loads_it).
    ("qwen2", "byte-level"),
]
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "initializer_range": 0.04,
}
"""Rows of whole blocks of 256 values, so that K-quants fall back nowhere."""
ROWS = ["It is grey, and 12 cm long.", "Café déjà vu — “naïve”.", "x = [1, 2]\n\treturn x", "Ω ≈ 3"]


@pytest.fixture(autouse=True)
def fewer_positions(monkeypatch):
    monkeypatch.setattr(_proof, "POSITIONS", 16)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "dataset"
    with writing(path, "dataset", settings={}, parents={}) as draft:
        rows = [{"instruction": "Go on.", "input": "", "output": text} for text in ROWS]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (draft.path / "eval.jsonl").write_text(lines, encoding="utf-8")
    return load_artifact(path, "dataset")


def decide(base):
    """Make a random model say something: near ties of its next tokens would be decided by any rounding."""
    embedding = 8 * tensors_of(base)["model.embed_tokens.weight"]
    for name, weight in tensors_of(base).items():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            # Small ones attend to every place alike, so that it would not matter where a place is.
            rewrite(base, name, 8 * weight)
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            rewrite(base, name, embedding.clone())
        elif name == "model.norm.weight":
            rewrite(base, name, weight / 8)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Give config and adapter of a family with a tokenizer of a kind. Shared: read only."""
    kinds = {"byte-level": byte_level(split_by(QWEN2)), "sentencepiece": sentencepiece("legacy")}
    made = {}

    def give(family, kind):
        if (family, kind) not in made:
            run = tmp_path_factory.mktemp(f"{family}-{kind}")
            base = write_model(run / "base", family, kinds[kind], **SIZES)
            decide(base)
            with writing(run / "adapter", "adapter", settings={}, parents={}) as draft:
                make_adapter(draft.path, base, target_modules="all-linear")
                kinds[kind].save_pretrained(draft.path)
                files = {file.name: sha256(file) for file in base.iterdir()}
                draft.facts.update(best_step=1, best_eval_loss=1.0, base_files=files)
            made[family, kind] = base, load_artifact(run / "adapter", "adapter")
        return made[family, kind]

    return give


def config_for(base, folder, *types):
    return Config(
        name="t",
        output_dir=str(folder),
        prepare={"source": "x"},
        model={"model_name_or_path": str(base)},
        export={"quantization": types or ("F16",)},
    )


@pytest.fixture(scope="module")
def merged(tuned, dataset, tmp_path_factory):
    """Give what the merge stage makes of them. Shared: read only."""
    made = {}

    def give(family, kind):
        if (family, kind) not in made:
            base, adapter = tuned(family, kind)
            config = config_for(base, tmp_path_factory.mktemp("merged"))
            made[family, kind] = merge(config, adapter, dataset)
        return made[family, kind]

    return give


def require_green(exported, types):
    assert list(exported.facts["files"]) == list(types)
    assert len(exported.facts["gates"]) == len(types) * len(GATES)
    assert {gate["gate"] for gate in exported.facts["gates"] if not gate["passed"]} == set()
    for file in exported.facts["files"].values():
        assert file["fallback_tensors"] == 0
        assert file["texts"] > 100
        assert file["positions"] >= 16


GATES = (
    "token ids of hard texts",
    "chats as in training",
    "Ollama's template as in training",
    "special tokens",
    "weights",
    "mean KL against the merged model",
    "largest KL of a position",
    "same most likely token",
    "perplexity of held-out tokens",
)


def positions_of_adapter(base, adapter):
    """Return what base and adapter say next after some texts, by PEFT and without a merge."""
    model, tokenizer = load_tuned(base, adapter), load_tokenizer(adapter)
    found = []
    for ids in (tokenizer(text)["input_ids"] for text in ROWS):
        with torch.inference_mode():
            logits_V = model(input_ids=torch.tensor([ids])).logits[0, -1]
        found.append(Position(ids, ids[-1], logits_V.double().log_softmax(-1).numpy()))
    return found


@pytest.mark.parametrize(("family", "kind"), CHAINS)
def test_from_the_adapter_to_gguf_files(tmp_path, tuned, merged, dataset, family, kind):
    (base, adapter), whole = tuned(family, kind), merged(family, kind)
    assert all(gate["passed"] for gate in whole.facts["gates"])
    assert whole.facts["tensors_merged"] == 7
    exported = export(config_for(base, tmp_path, "F16", "Q8_0"), whole, dataset)
    require_green(exported, ("F16", "Q8_0"))
    adapters = (adapter.path, silent(adapter, tmp_path))
    positions = [positions_of_adapter(base, path) for path in adapters]
    with endpoint(exported.path / "t-F16.gguf", ctx=128, exact=True) as url:
        far, plain = (divergence(url, of_one, lambda done: None) for of_one in positions)
    assert far.mean_kl < 1e-5
    # The comparison can fail: without its update the base says something else.
    assert plain.mean_kl > 100 * far.mean_kl


def silent(adapter, folder):
    """Return the folder of a copy of an adapter whose update is nothing."""
    copied = shutil.copytree(adapter.path, folder / "silent")
    for name, weight in tensors_of(copied).items():
        if "lora_B" in name:
            rewrite(copied, name, torch.zeros_like(weight))
    return copied


@needs_kquants
@pytest.mark.parametrize(("family", "kind"), CHAINS)
def test_from_the_adapter_to_a_k_quant(tmp_path, tuned, merged, dataset, family, kind):
    config = config_for(tuned(family, kind)[0], tmp_path, "Q4_K_M")
    require_green(export(config, merged(family, kind), dataset), ("Q4_K_M",))


def failed_gates(config, merged, dataset):
    with pytest.raises(TunewrightError) as caught:
        export(config, merged, dataset)
    assert {problem.code for problem in caught.value.problems} == {"E_GATE_EXPORT"}
    found = {p.message.removeprefix("F16: ").partition(":")[0] for p in caught.value.problems}
    assert found <= set(GATES)
    return found


def one_changed_weight(monkeypatch):
    plain, left = _tensors.encoded_as, [1]

    def changed(rows, type_):
        # A thousandth of what such a weight is: far too little for what the model says.
        if rows.dim() == 2 and rows.shape[1] == SIZES["hidden_size"] and left:
            rows = rows.clone()
            rows[5, 7] += left.pop() * 1e-3 * float(rows.abs().max())
        return plain(rows, type_)

    monkeypatch.setattr(_tensors, "encoded_as", changed)


def a_wrong_rope_base(monkeypatch):
    plain = _gguf.GGUFWriter.add_rope_freq_base
    monkeypatch.setattr(
        _gguf.GGUFWriter, "add_rope_freq_base", lambda self, base: plain(self, base / 2)
    )


def rows_in_the_wrong_order(monkeypatch):
    monkeypatch.setattr(_tensors, "_interleaved", lambda rows, head: rows)


def another_pretokenizer(monkeypatch):
    monkeypatch.setattr(_vocabulary, "pretokenizer_of", lambda definition: "gpt-2")


def no_end(monkeypatch):
    monkeypatch.setattr(_gguf.GGUFWriter, "add_eos_token_id", lambda self, index: None)


def a_space_more(monkeypatch):
    plain = _gguf.GGUFWriter.add_chat_template
    monkeypatch.setattr(
        _gguf.GGUFWriter, "add_chat_template", lambda self, text: plain(self, text + "{{ ' ' }}")
    )


def a_space_more_for_ollama(monkeypatch):
    plain = _export.chat_format

    def spaced(tokenizer):
        found = plain(tokenizer)
        return replace(found, turns=replace(found.turns, question=found.turns.question + " "))

    monkeypatch.setattr(_export, "chat_format", spaced)


DISTRIBUTIONS = set(GATES[5:])
PLANTED = [
    # What is broken, the gate that must be red, and those that may be red beside it.
    (one_changed_weight, "weights", set()),
    (a_wrong_rope_base, "mean KL against the merged model", DISTRIBUTIONS),
    (rows_in_the_wrong_order, "weights", DISTRIBUTIONS),
    (another_pretokenizer, "token ids of hard texts", set(GATES[1:4])),
    (no_end, "special tokens", set()),
    (a_space_more, "chats as in training", set()),
    (a_space_more_for_ollama, "Ollama's template as in training", set()),
]


@pytest.mark.parametrize(
    ("plant", "gate", "beside"), PLANTED, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_planted_error_turns_its_gate_red(
    tmp_path, tuned, merged, dataset, monkeypatch, plant, gate, beside
):
    base, _ = tuned("llama", "byte-level")
    plant(monkeypatch)
    found = failed_gates(config_for(base, tmp_path), merged("llama", "byte-level"), dataset)
    assert gate in found
    assert found - {gate} <= beside
    aside = [file.name for file in (tmp_path / "exported.rejected").iterdir()]
    assert aside == ["t-F16.gguf.rejected"]
    assert not (tmp_path / "exported").exists()


def test_one_weight_that_is_merged_wrongly_turns_the_gate_of_the_merge_red(
    tmp_path, tuned, dataset, monkeypatch
):
    base, adapter = tuned("llama", "byte-level")
    plain, name = _merge.merge_folder, "model.layers.0.mlp.up_proj.weight"

    def changed(base, adapter, out, *given, **options):
        done = plain(base, adapter, out, *given, **options)
        weight = tensors_of(out)[name]
        weight[3, 5] *= 1.01
        rewrite(out, name, weight)
        return done

    monkeypatch.setattr(_merge, "merge_folder", changed)
    with pytest.raises(TunewrightError) as caught:
        merge(config_for(base, tmp_path), adapter, dataset)
    (problem,) = caught.value.problems
    assert problem.code == "E_GATE_MERGE"
    assert f"'{name}' is not what PEFT makes of the base in 1 of" in problem.message
    assert not (tmp_path / "merged").exists()


def test_too_little_memory_for_a_proof_is_told_before_anything_is_written(
    tmp_path, tuned, merged, dataset, monkeypatch
):
    (base, adapter), whole = tuned("llama", "byte-level"), merged("llama", "byte-level")
    config = config_for(base, tmp_path)
    rows = held_out_ids(dataset.path / "eval.jsonl", adapter.path, config.train.max_length)
    planned = ram_need(config, read_shape(base), sum(map(len, rows)))
    monkeypatch.setattr(_room, "container_free", lambda: [planned.merge])
    assert _room.ram_free() == planned.merge
    merge(config, adapter, dataset)
    shutil.rmtree(tmp_path / "merged")
    # A byte less than what `plan` says.
    monkeypatch.setattr(_room, "container_free", lambda: [planned.merge - 1])
    with pytest.raises(TunewrightError) as caught:
        merge(config, adapter, dataset)
    parameters = sum(tensor.numel() for tensor in tensors_of(whole.path).values())
    monkeypatch.setattr(_room, "container_free", lambda: [4 * parameters - 1])
    with pytest.raises(TunewrightError) as other:
        export(config, whole, dataset)
    (one,), (two,) = caught.value.problems, other.value.problems
    assert [one.code, two.code] == ["E_OOM"] * 2
    assert "The proof, which holds the model in 32 bits, takes " in one.message
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []
