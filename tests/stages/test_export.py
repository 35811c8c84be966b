import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tunewright.artifacts import load_artifact, writing
from tunewright.config.schema import Config
from tunewright.errors import TunewrightError
from tunewright.export import (
    _export,
    _gguf,
    _ollama,
    _parity,
    _proof,
    _tensors,
    _vocabulary,
    _writing,
    export,
)
from tunewright.export.architecture import shape_of
from tunewright.export.modelfile import turns_of
from tunewright.models._llama import EndpointError
from tunewright.models._tokenizer import load_tokenizer

ROWS = [
    {"instruction": f"Tell me about item {n}.", "input": "", "output": text}
    for n, text in enumerate(
        [
            "It is grey, and 12 cm long.",
            "Café déjà vu — “naïve”.",
            "x = [1, 2]\n\treturn x",
            "Ω ≈ 3",
        ]
    )
]
SIZES = {
    "vocab_size": 4160,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
    "bos_token_id": None,
    "eos_token_id": 4095,
    "pad_token_id": 4093,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
FAMILIES = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 32, "tie_word_embeddings": True}),
    "llama": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA3_ROPE}),
    "mistral": (MistralForCausalLM, MistralConfig, {"head_dim": 32, "sliding_window": None}),
}


def write_model(path, family):
    model_class, config_class, options = FAMILIES[family]
    torch.manual_seed(0)
    model_class(config_class(**SIZES, **options)).to(torch.bfloat16).save_pretrained(path)
    tiny = resources.files("tunewright.models") / "assets" / "tiny"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / name).write_bytes((tiny / name).read_bytes())


def make_merged(path, build):
    with writing(path, "merged", settings={}, parents={}) as draft:
        build(draft.path)
    return load_artifact(path, "merged")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "dataset"
    with writing(path, "dataset", settings={}, parents={}) as draft:
        lines = "".join(json.dumps(row) + "\n" for row in ROWS)
        (draft.path / "eval.jsonl").write_text(lines, encoding="utf-8")
    return load_artifact(path, "dataset")


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        family: make_merged(folder / family, lambda path, family=family: write_model(path, family))
        for family in FAMILIES
    }


def config_for(folder, *types, **export_options):
    # A random model's distributions are flat, so that its most likely token is often a near tie.
    options = {"quantization": types, "min_top1_agreement": 0.7, **export_options}
    return Config(name="t", output_dir=str(folder), prepare={"source": "x"}, export=options)


@pytest.fixture(autouse=True)
def fewer_positions(monkeypatch):
    monkeypatch.setattr(_proof, "POSITIONS", 16)


def refused(folder, config, model, dataset):
    with pytest.raises(TunewrightError) as caught:
        export(config, model, dataset)
    assert not any(Path(folder).glob(".tmp-*"))
    assert not (folder / "exported").exists()
    return caught.value.problems


def failed(problems, gate):
    """Return what is said of a gate that failed; nothing of one that did not."""
    return "".join(p.message for p in problems if p.message.startswith(gate))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_proven_in_every_type(tmp_path, merged, dataset, family):
    exported = export(config_for(tmp_path, "F32", "F16", "BF16", "Q8_0"), merged[family], dataset)
    facts = exported.facts
    assert list(facts["files"]) == ["F32", "F16", "BF16", "Q8_0"]
    assert facts["served"] == "t-Q8_0.gguf"
    for name, file in facts["files"].items():
        assert (exported.path / file["file"]).stat().st_size == file["bytes"]
        assert file["positions"] >= 16
        assert file["texts"] > 100
        assert file["mean_kl"] <= {"F32": 2e-5, "F16": 2e-5, "BF16": 5e-4, "Q8_0": 5e-3}[name]
    assert facts["files"]["Q8_0"]["bytes"] < facts["files"]["F16"]["bytes"]
    assert len(facts["gates"]) == 36
    assert all(gate["passed"] for gate in facts["gates"])
    text = (exported.path / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith('FROM ./t-Q8_0.gguf\nTEMPLATE """{{ $system := ')
    assert 'PARAMETER stop "<|im_end|>"\n' in text
    assert "PARAMETER num_ctx 512\n" in text
    load_artifact(exported.path, "exported", verify=True)


def test_the_bundled_base_passes_the_default_limits(tmp_path, dataset):
    tiny = resources.files("tunewright.models") / "assets" / "tiny"

    def build(path):
        for file in tiny.iterdir():
            (path / file.name).write_bytes(file.read_bytes())

    model = make_merged(tmp_path / "merged", build)
    config = Config(name="t", output_dir=str(tmp_path), prepare={"source": "x"})
    files = export(config, model, dataset).facts["files"]
    assert files["F16"]["mean_kl"] < 1e-4


def with_llama_tokenizer(path, *, whole_words):
    from tunewright.export.pretokenizer import LLAMA3

    write_model(path, "llama")
    file = path / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3
    tokenizer["model"]["ignore_merges"] = whole_words
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


@pytest.mark.parametrize("whole_words", [True, False])
def test_llama_3s_pretokenizer_is_proven(tmp_path, dataset, whole_words):
    model = make_merged(
        tmp_path / "merged", lambda path: with_llama_tokenizer(path, whole_words=whole_words)
    )
    exported = export(config_for(tmp_path, "F16"), model, dataset)
    assert all(gate["passed"] for gate in exported.facts["gates"])


def test_a_bos_that_the_tokenizer_adds(tmp_path, dataset):
    def build(path):
        write_model(path, "llama")
        file = path / "tokenizer.json"
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        name = "<|endoftext|>"
        bos = {"id": name, "ids": [ids[name]], "tokens": [name]}
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<|endoftext|>": bos},
        }
        file.write_text(json.dumps(tokenizer), encoding="utf-8")
        file = path / "tokenizer_config.json"
        options = json.loads(file.read_text(encoding="utf-8")) | {"bos_token": "<|endoftext|>"}
        file.write_text(json.dumps(options), encoding="utf-8")
        file = path / "chat_template.jinja"
        file.write_text("{{- bos_token }}" + file.read_text(encoding="utf-8"), encoding="utf-8")

    model = make_merged(tmp_path / "merged", build)
    exported = export(config_for(tmp_path, "F16"), model, dataset)
    text = (exported.path / "Modelfile").read_text(encoding="utf-8")
    assert "<|endoftext|>" not in text
    gguf = (exported.path / "t-F16.gguf").read_bytes()
    at = gguf.index(b"tokenizer.ggml.add_bos_token") + len(b"tokenizer.ggml.add_bos_token")
    assert gguf[at + 4] == 1


def test_sharded_weights(tmp_path, dataset):
    def build(path):
        write_model(path, "qwen3")
        tensors = load_file(path / "model.safetensors")
        (path / "model.safetensors").unlink()
        names = sorted(tensors)
        index = {}
        for n, part in enumerate((names[::2], names[1::2]), 1):
            file = f"model-0000{n}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, path / file, {"format": "pt"})
            index |= dict.fromkeys(part, file)
        text = json.dumps({"metadata": {"total_size": 0}, "weight_map": index})
        (path / "model.safetensors.index.json").write_text(text)

    model = make_merged(tmp_path / "merged", build)
    assert export(config_for(tmp_path, "F16"), model, dataset).facts["files"]["F16"]["bytes"] > 0


def test_swapped_tokens_fail_the_gate(tmp_path, merged, dataset, monkeypatch):
    plain = _vocabulary.gguf_tokenizer

    def swapped(tokenizer, rows, ends):
        packed = plain(tokenizer, rows, ends)
        one, two = (tokenizer.convert_tokens_to_ids(token) for token in ("ou", "Ġyou"))
        tokens = packed.tokens
        tokens[one], tokens[two] = tokens[two], tokens[one]
        return packed

    monkeypatch.setattr(_writing, "gguf_tokenizer", swapped)
    problems = refused(tmp_path, config_for(tmp_path, "F16"), merged["qwen3"], dataset)
    assert {p.code for p in problems} == {"E_GATE_EXPORT"}
    assert "F16: token ids of hard texts" in problems[0].message


@pytest.mark.parametrize("wrong", ["gpt-2", "llama-bpe"])
def test_another_pretokenizer_fails_the_gate(tmp_path, dataset, monkeypatch, wrong):
    def build(path):
        write_model(path, "qwen3")
        file = path / "tokenizer.json"
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        tokenizer["model"]["vocab"]["12"] = SIZES["vocab_size"] - 1
        tokenizer["model"]["merges"].append(["1", "2"])
        file.write_text(json.dumps(tokenizer), encoding="utf-8")

    model = make_merged(tmp_path / "merged", build)
    monkeypatch.setattr(_vocabulary, "pretokenizer_of", lambda definition: wrong)
    problems = refused(tmp_path, config_for(tmp_path, "F16"), model, dataset)
    assert "F16: token ids of hard texts" in problems[0].message


def test_another_chat_template_fails_the_gate(tmp_path, merged, dataset, monkeypatch):
    monkeypatch.setattr(
        _gguf.GGUFWriter,
        "add_chat_template",
        lambda self, text: self.add_string("tokenizer.chat_template", text + "{{ 'x' }}"),
    )
    problems = refused(tmp_path, config_for(tmp_path, "F16"), merged["qwen3"], dataset)
    assert "F16: chats as in training" in problems[0].message


def test_an_altered_tensor_fails_the_gate(tmp_path, merged, dataset, monkeypatch):
    plain = _tensors.encoded_as

    def altered(rows, type_):
        if rows.shape == (512, 256):
            rows = torch.cat([rows[1:], rows[:1]])
        return plain(rows, type_)

    monkeypatch.setattr(_tensors, "encoded_as", altered)
    problems = refused(tmp_path, config_for(tmp_path, "F32"), merged["qwen3"], dataset)
    assert {p.code for p in problems} == {"E_GATE_EXPORT"}
    assert "differs by" in failed(problems, "F32: weights")
    assert failed(problems, "F32: mean KL")


def test_rows_in_the_wrong_order_fail_the_gate(tmp_path, merged, dataset, monkeypatch):
    monkeypatch.setattr(_tensors, "_interleaved", lambda rows, head: rows)
    problems = refused(tmp_path, config_for(tmp_path, "F32"), merged["llama"], dataset)
    assert "attn_q.weight differs" in failed(problems, "F32: weights")
    assert failed(problems, "F32: mean KL")


def test_a_tight_limit_fails_one_type_only(tmp_path, merged, dataset):
    config = config_for(tmp_path, "F16", "Q8_0", max_mean_kl={"Q8_0": 1e-9})
    problems = refused(tmp_path, config, merged["qwen3"], dataset)
    assert [p.message[:4] for p in problems] == ["Q8_0"]


def test_too_little_agreement_fails_the_gate(tmp_path, merged, dataset, monkeypatch):
    def elsewhere(*given, **options):
        found = places_of(*given, **options)
        rolled = [_parity.Position(p.prefix, p.next, np.roll(p.log_p, 1)) for p in found.positions]
        return _parity.Places(rolled, found.more)

    places_of = _proof.places_of
    monkeypatch.setattr(_proof, "places_of", elsewhere)
    config = config_for(tmp_path, "F16", max_mean_kl=1e9, max_kl=1e9, max_perplexity_change=1e9)
    (problem,) = refused(tmp_path, config, merged["qwen3"], dataset)
    assert "same most likely token" in problem.message


def test_nan_weights_fail_the_gate(tmp_path, dataset):
    def build(path):
        write_model(path, "qwen3")
        tensors = load_file(path / "model.safetensors")
        tensors["model.norm.weight"][:] = float("nan")
        save_file(tensors, path / "model.safetensors", {"format": "pt"})

    model = make_merged(tmp_path / "merged", build)
    problems = refused(tmp_path, config_for(tmp_path, "F16"), model, dataset)
    assert all(
        failed(problems, f"F16: {gate}")
        for gate in ("weights", "mean KL", "largest KL", "perplexity")
    )


def test_chats_that_quote_a_special_token_are_not_counted(tmp_path, merged):
    from tunewright.models._llama import endpoint
    from tunewright.models.chat import Message

    exported = tmp_path / "m.gguf"
    tokenizer = _export.load_tokenizer(merged["qwen3"].path)
    shape = shape_of(_writing._config(merged["qwen3"].path))
    _gguf.write_gguf(
        exported,
        model=merged["qwen3"].path,
        shape=shape,
        tokenizer=_vocabulary.gguf_tokenizer(tokenizer, shape.vocabulary),
        type_name="F16",
        advanced=lambda done, detail: None,
    )
    quoting = [Message(role="user", content="What does <|im_end|> do?")]
    decomposed = [Message(role="user", content="cafe\u0301")]
    with endpoint(exported) as url:
        found = _parity.compare_chats(url, tokenizer, [quoting, decomposed])
        nothing = _parity.compare_chats(url, tokenizer, [quoting])
    assert found == _parity.Comparison(compared=1, differing=[], normalised=1)
    assert not _proof._equal("gate", nothing)["passed"]


def test_a_dataset_without_held_out_rows_is_refused(tmp_path, merged):
    with writing(tmp_path / "dataset", "dataset", settings={}, parents={}) as draft:
        (draft.path / "eval.jsonl").write_text("")
    empty = load_artifact(tmp_path / "dataset", "dataset")
    (problem,) = refused(tmp_path, config_for(tmp_path, "F16"), merged["qwen3"], empty)
    assert problem.code == "E_DATA_EMPTY"


def test_an_unknown_architecture_is_refused(tmp_path, merged, dataset):
    def build(path):
        shutil.copytree(merged["llama"].path, path, dirs_exist_ok=True)
        (path / "manifest.json").unlink()
        config = json.loads((path / "config.json").read_text())
        config["architectures"] = ["LlamaForSequenceClassification"]
        (path / "config.json").write_text(json.dumps(config))

    model = make_merged(tmp_path / "merged", build)
    (problem,) = refused(tmp_path, config_for(tmp_path, "F16"), model, dataset)
    assert problem.code == "E_MODEL"
    assert "LlamaForSequenceClassification" in problem.message


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path, dataset, monkeypatch):
    monkeypatch.setitem(SIZES, "vocab_size", 4000)
    monkeypatch.setitem(SIZES, "eos_token_id", 3999)
    monkeypatch.setitem(SIZES, "pad_token_id", 3998)
    model = make_merged(tmp_path / "merged", lambda path: write_model(path, "qwen3"))
    (problem,) = refused(tmp_path, config_for(tmp_path, "F16"), model, dataset)
    assert problem.code == "E_MODEL"
    assert "the embedding 4000 rows" in problem.message


def test_an_earlier_export_stays_when_a_new_one_fails(tmp_path, merged, dataset):
    first = export(config_for(tmp_path, "F16"), merged["qwen3"], dataset)
    with pytest.raises(TunewrightError, match="E_GATE_EXPORT"):
        export(config_for(tmp_path, "F16", max_mean_kl={"F16": 1e-30}), merged["qwen3"], dataset)
    assert load_artifact(first.path, "exported", verify=True).digest == first.digest


def test_llama_cpp_stays_silent(tmp_path, merged, dataset, capfd):
    export(config_for(tmp_path, "F16"), merged["qwen3"], dataset)
    out, err = capfd.readouterr()
    assert out == ""
    assert "llama" not in err.replace("Loading weights", "")


def test_kl_with_a_rest():
    p = np.array([0.5, 0.25, 0.125, 0.125])
    q = np.array([0.4, 0.4, 0.1, 0.1])
    full = float(np.sum(p * np.log(p / q)))
    ids = np.array([1, 0])
    merged_rest = 0.5 * np.log(0.5 / 0.4) + 0.25 * np.log(0.25 / 0.4) + 0.25 * np.log(0.25 / 0.2)
    summed = _parity.as_distribution(np.log(q) + 1e-3)
    assert _parity.kl(np.log(p), np.arange(4), summed) == pytest.approx(full)
    assert _parity.kl(np.log(p), ids, np.log(q[ids])) == pytest.approx(merged_rest)
    assert merged_rest <= full


@pytest.mark.parametrize("template", ["alpaca", "style-prompt", "plain"])
def test_templates_of_ours_are_the_same_in_llama_cpp(tmp_path, dataset, template):
    def build(path):
        write_model(path, "qwen3")
        load_tokenizer(path, template).save_pretrained(path)

    model = make_merged(tmp_path / "merged", build)
    made = export(config_for(tmp_path, "F16"), model, dataset)
    chats = [gate for gate in made.facts["gates"] if "chats" in gate["gate"]]
    assert [gate["passed"] for gate in chats] == [True]


def with_template(template):
    def build(path):
        write_model(path, "qwen3")
        (path / "chat_template.jinja").write_text(template, encoding="utf-8")

    return build


def test_a_template_that_ollama_cannot_say_leaves_the_modelfile_out(tmp_path, dataset):
    template = "{% for m in messages %}{{ m.role ~ messages | length ~ m.content ~ eos_token }}{% endfor %}"
    model = make_merged(tmp_path / "merged", with_template(template))
    heard = Heard()
    exported = export(config_for(tmp_path, "F16"), model, dataset, listener=heard)
    assert not (exported.path / "Modelfile").exists()
    assert exported.facts["ollama_template"] is False
    assert any("No Modelfile is written" in line and "its place" in line for line in heard.texts)
    assert not any("Ollama" in gate["gate"] for gate in exported.facts["gates"])


def test_a_template_that_opens_with_a_token_the_tokenizer_does_not_add(tmp_path, dataset):
    """Ollama adds no token then, so that it stands in the Modelfile."""
    tiny = resources.files("tunewright.models") / "assets" / "tiny" / "chat_template.jinja"
    model = make_merged(
        tmp_path / "merged", with_template("<|endoftext|>" + tiny.read_text(encoding="utf-8"))
    )
    exported = export(config_for(tmp_path, "F16"), model, dataset)
    assert "{{ else }}<|endoftext|><|im_start|>user" in (exported.path / "Modelfile").read_text()


def test_a_modelfile_with_one_space_more_fails_the_gate(tmp_path, merged, dataset, monkeypatch):
    def changed(render):
        turns = turns_of(render)
        return replace(turns, question=turns.question + " ")

    monkeypatch.setattr(_ollama, "turns_of", changed)
    problems = refused(tmp_path, config_for(tmp_path, "F16"), merged["qwen3"], dataset)
    assert [problem.code for problem in problems] == ["E_GATE_EXPORT"]
    assert "Ollama's template" in problems[0].message


OLLAMA = """#!/bin/sh
echo "$PWD $*" > {log}
echo 'pulling' >&2
echo 'Error: {error}' >&2
exit {code}
"""


@pytest.mark.parametrize(("code", "line"), [(0, "ollama run t"), (1, "could not connect")])
def test_ollama_gets_the_model_where_it_is_installed(tmp_path, monkeypatch, code, line):
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    program.write_text(OLLAMA.format(log=tmp_path / "log", error="could not connect", code=code))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    heard = Heard()
    _ollama.create(tmp_path, "t", heard)
    assert heard.texts == []
    (tmp_path / "Modelfile").write_text("FROM ./t.gguf\n")
    _ollama.create(tmp_path, "t", heard)
    assert (tmp_path / "log").read_text() == f"{tmp_path} create t -f Modelfile\n"
    assert len(heard.texts) == 1
    assert line in heard.texts[0]


def test_without_ollama_nothing_is_said(tmp_path, monkeypatch):
    (tmp_path / "Modelfile").write_text("FROM ./t.gguf\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    heard = Heard()
    _ollama.create(tmp_path, "t", heard)
    assert heard.texts == []


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.starts, self.steps, self.texts = [], [], []

    def started(self, stage, total, unit):
        self.starts.append((stage, total, unit))

    def advanced(self, done, detail):
        self.steps.append((self.starts[-1][0], done, detail))

    def said(self, text):
        self.texts.append(text)


def test_progress_is_told_in_bytes(tmp_path, merged, dataset):
    heard = Heard()
    made = export(config_for(tmp_path, "F16"), merged["qwen3"], dataset, listener=heard)
    (total,) = (t for stage, t, unit in heard.starts if (stage, unit) == ("export F16", "bytes"))
    done = [n for stage, n, _ in heard.steps if stage == "export F16"]
    assert done == sorted(done)
    assert done[-1] == total
    assert total < made.facts["files"]["F16"]["bytes"] < total + 500_000


CONVERTER = """
import argparse, pathlib, shutil
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--outfile")
parser.add_argument("--outtype")
given = parser.parse_args()
shutil.copyfile(pathlib.Path(__file__).parent / "ready.gguf", given.outfile)
"""


@pytest.fixture
def unknown(tmp_path, merged):
    """A model of an architecture that our writer does not know, and a checkout that writes its GGUF."""

    def build(path):
        shutil.copytree(merged["qwen3"].path, path, dirs_exist_ok=True)
        (path / "manifest.json").unlink()
        config = json.loads((path / "config.json").read_text())
        config["architectures"] = ["MyForCausalLM"]
        (path / "config.json").write_text(json.dumps(config))

    checkout = tmp_path / "llama.cpp"
    checkout.mkdir()
    (checkout / "convert_hf_to_gguf.py").write_text(CONVERTER)
    way = _writing.way_of(
        merged["qwen3"].path, load_tokenizer(merged["qwen3"].path), _gguf.Card("m"), None
    )
    _writing.write(way, checkout / "ready.gguf", "F16", lambda done, name: None)
    return make_merged(tmp_path / "merged", build), checkout


def test_another_architecture_is_written_by_llama_cpps_converter(tmp_path, unknown, dataset):
    model, checkout = unknown
    heard = Heard()
    config = config_for(tmp_path, "F16", llama_cpp=str(checkout))
    made = export(config, model, dataset, listener=heard)
    assert all(gate["passed"] for gate in made.facts["gates"])
    assert "MyForCausalLM" in next(t for t in heard.texts if "converter" in t)


def test_what_it_writes_is_proven_too(tmp_path, unknown, merged, dataset):
    model, checkout = unknown
    way = _writing.way_of(
        merged["llama"].path, load_tokenizer(merged["llama"].path), _gguf.Card("m"), None
    )
    _writing.write(way, checkout / "ready.gguf", "F16", lambda done, name: None)
    config = config_for(tmp_path, "F16", llama_cpp=str(checkout))
    problems = refused(tmp_path, config, model, dataset)
    assert {p.code for p in problems} == {"E_GATE_EXPORT"}


def test_without_it_the_way_out_is_told(tmp_path, unknown, dataset):
    model, _ = unknown
    (problem,) = refused(tmp_path, config_for(tmp_path, "F16"), model, dataset)
    assert problem.code == "E_MODEL"
    assert "--set export.llama_cpp=DIR" in problem.fix
    empty = tmp_path / "empty"
    empty.mkdir()
    (problem,) = refused(
        tmp_path, config_for(tmp_path, "F16", llama_cpp=str(empty)), model, dataset
    )
    assert problem.code == "E_NOT_FOUND"


def test_what_the_converter_does_not_write_is_refused_before_any_work(tmp_path, unknown, dataset):
    model, checkout = unknown
    config = config_for(tmp_path, "F16", "Q4_0", llama_cpp=str(checkout))
    heard = Heard()
    with pytest.raises(TunewrightError, match="does not write Q4_0"):
        export(config, model, dataset, listener=heard)
    assert heard.starts == []


def test_a_chat_that_llama_cpp_refuses_fails_the_gate(tmp_path, merged, dataset, monkeypatch):
    plain = _parity.post

    def refusing(url, path, body):
        if path == "/apply-template":
            raise EndpointError("no such filter")
        return plain(url, path, body)

    monkeypatch.setattr(_parity, "post", refusing)
    problems = refused(tmp_path, config_for(tmp_path, "F16"), merged["qwen3"], dataset)
    assert "no such filter" in failed(problems, "F16: chats as in training")


def test_a_file_that_llama_cpp_cannot_load_is_kept_aside(tmp_path, merged, dataset, monkeypatch):
    def broken(*args, **options):
        raise EndpointError("it ended without an answer")

    monkeypatch.setattr(_proof, "endpoint", broken)
    problems = refused(tmp_path, config_for(tmp_path, "F16"), merged["qwen3"], dataset)
    assert "it ended without an answer" in failed(problems, "F16: llama.cpp reads the file")
    assert (tmp_path / "exported.rejected" / "t-F16.gguf.rejected").is_file()


def test_the_token_that_ends_a_turn_is_in_the_file(tmp_path, merged):
    """The template ends turns with an added token that is not EOS."""
    model = tmp_path / "model"
    with_template("{% for m in messages %}{{ m.role + m.content + '<|turn|>' }}{% endfor %}")(model)
    tokenizer = load_tokenizer(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    way = _writing.way_of(model, tokenizer, _gguf.Card("m"), None)
    assert way.ours[1].special["eot"] == tokenizer.convert_tokens_to_ids("<|turn|>")


def test_a_folder_is_no_base_on_the_hub(tmp_path):
    assert _export._hub_name(str(tmp_path)) is None
    assert _export._hub_name("tunewright/tiny") is None
    assert _export._hub_name("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"
