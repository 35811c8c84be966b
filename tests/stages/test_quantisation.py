"""Types of GGUF files, the gates on weights, and what becomes of a file that fails."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import IQ4_NL
from safetensors.torch import load_file, save_file
from support import needs_kquants
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tunewright.artifacts import load_artifact, writing
from tunewright.config.schema import Config, ExportSection
from tunewright.errors import CODES, TunewrightError
from tunewright.export import (
    _ends,
    _export,
    _gguf,
    _kquants,
    _parity,
    _proof,
    _tensors,
    _weights,
    _writing,
    export,
)
from tunewright.export._perplexity import Token, ask
from tunewright.export._tensors import encoded_as
from tunewright.export._weights import layout_of, prove_weights, stored_facts
from tunewright.export.modelfile import GOLDEN_CHATS
from tunewright.models import gguf_types
from tunewright.models._shards import read_rows
from tunewright.models.gguf_file import read_layout
from tunewright.models.gguf_types import BITS, K_QUANTS, missing_quantizer
from tunewright.models.tokens import Encoded

TINY = resources.files("tunewright.models") / "assets" / "tiny"
BUILT_IN = [name for name in BITS if name not in K_QUANTS]
SIZES = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
    "bos_token_id": None,
    "eos_token_id": 4095,
    "pad_token_id": 4093,
}
POSITIONS = _proof.POSITIONS
ANY = {
    "max_mean_kl": 1e9,
    "max_kl": 1e9,
    "min_top1_agreement": 0.01,
    "max_perplexity_change": 1e9,
}
"""For random models: what they say next is a near tie."""

pytestmark = pytest.mark.usefixtures("one_thread")


class Heard:
    """A listener that keeps what is said."""

    def __init__(self):
        self.lines = []

    def started(self, stage, total, unit):
        self.lines.append(stage)

    def advanced(self, done, detail):
        pass

    def said(self, text):
        self.lines.append(text)


@pytest.fixture(autouse=True)
def fewer_positions(monkeypatch):
    monkeypatch.setattr(_proof, "POSITIONS", 12)


@pytest.fixture
def all_positions(fewer_positions, monkeypatch):
    """As many as a user's files are held against: by a dozen a sound file can miss a limit."""
    monkeypatch.setattr(_proof, "POSITIONS", POSITIONS)


def as_merged(path, build):
    with writing(path, "merged", settings={}, parents={}) as draft:
        build(draft.path)
    return load_artifact(path, "merged")


def copy_tiny(path, *names):
    for file in TINY.iterdir():
        if not names or file.name in names:
            (path / file.name).write_bytes(file.read_bytes())


def write_random(path, model_class=Qwen3ForCausalLM, config_class=Qwen3Config, **options):
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, **options}))
    model.to(torch.bfloat16).save_pretrained(path)
    copy_tiny(path, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "dataset"
    texts = (TINY.parent.parent.parent / "data" / "samples" / "manuscript").glob("*.txt")
    with writing(path, "dataset", settings={}, parents={}) as draft:
        rows = [
            {"instruction": "Go on.", "input": "", "output": file.read_text(encoding="utf-8")[:400]}
            for file in sorted(texts)[:4]
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (draft.path / "eval.jsonl").write_text(lines, encoding="utf-8")
    return load_artifact(path, "dataset")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return as_merged(tmp_path_factory.mktemp("models") / "tiny", copy_tiny)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    def build(path):
        write_random(path, LlamaForCausalLM, LlamaConfig)

    return as_merged(tmp_path_factory.mktemp("models") / "llama", build)


def config_for(folder, *types, **options):
    options = {"quantization": types, **options}
    return Config(name="t", output_dir=str(folder), prepare={"source": "x"}, export=options)


def write(file, merged, type_name):
    """Write a file of a type and return the model's shape."""
    tokenizer = _export.load_tokenizer(merged.path)
    way = _writing.way_of(merged.path, tokenizer, _gguf.Card("m"), None)
    _writing.write(way, file, type_name, lambda done, detail: None)
    return way.ours[0]


@pytest.mark.parametrize(
    "types", [("Q5_0", "Q4_0"), pytest.param(("Q5_1", "Q4_1"), marks=pytest.mark.faults)]
)
def test_built_in_types_pass_the_default_limits(tmp_path, tiny, dataset, all_positions, types):
    made = export(config_for(tmp_path, *types), tiny, dataset)
    files = made.facts["files"]
    for name in types:
        facts = files[name]
        assert facts["tensor_types"] == {name: 36, "F32": 21}
        assert facts["fallback_tensors"] == 0
        assert facts["bits_per_weight"] == pytest.approx(BITS[name], rel=0.01)
    more, fewer = types
    assert files[more]["mean_kl"] < files[fewer]["mean_kl"]
    assert sorted(made.files) == sorted(["Modelfile", *(f"t-{name}.gguf" for name in types)])


def proven_k_quants(folder, tiny, dataset, *types):
    made = export(config_for(folder, *types), tiny, dataset)
    for name in types:
        facts = made.facts["files"][name]
        family = name[:4]
        assert facts["tensor_types"][family] >= 15
        assert facts["fallback_tensors"] == 0
        assert facts["mean_kl"] > 1e-6
    assert sorted(made.files) == sorted(["Modelfile", *(f"t-{name}.gguf" for name in types)])
    return made.facts["files"]


@needs_kquants
def test_k_quants_pass_the_default_limits(tmp_path, tiny, dataset, all_positions):
    files = proven_k_quants(tmp_path, tiny, dataset, "Q4_K_M", "Q2_K")
    kls = [facts["mean_kl"] for facts in files.values()]
    assert kls == sorted(kls)


@needs_kquants
@pytest.mark.faults
def test_every_other_k_quant(tmp_path, tiny, dataset, all_positions):
    others = [name for name in K_QUANTS if name not in ("Q4_K_M", "Q2_K")]
    proven_k_quants(tmp_path, tiny, dataset, *others)


@needs_kquants
def test_k_quants_are_made_of_a_file_that_is_there(tmp_path, tiny, dataset, monkeypatch):
    sources = []
    plain = _export.write_k_quant

    def watched(source, target, type_name):
        sources.append(source.name)
        plain(source, target, type_name)

    monkeypatch.setattr(_export, "write_k_quant", watched)
    made = export(config_for(tmp_path, "Q4_K_M", "F16"), tiny, dataset)
    assert sources == ["t-F16.gguf"]
    assert made.facts["served"] == "t-F16.gguf"
    assert list(made.facts["files"]) == ["Q4_K_M", "F16"]


@needs_kquants
def test_rows_that_are_no_whole_blocks_are_told_before_and_counted(tmp_path, dataset):
    merged = as_merged(
        tmp_path / "merged", lambda path: write_random(path, intermediate_size=320, head_dim=64)
    )
    heard = Heard()
    config = config_for(tmp_path, "Q4_K_M", **ANY)
    made = export(config, merged, dataset, listener=heard)
    assert heard.lines[0].startswith(
        "Q4_K_M: 1 of 9 matrices have rows that are no multiple of 256"
    )
    facts = made.facts["files"]["Q4_K_M"]
    assert facts["fallback_tensors"] == 1
    assert sum(facts["tensor_types"].get(name, 0) for name in ("Q5_0", "Q8_0")) == 1


def test_rows_that_are_no_blocks_of_32(tmp_path, dataset):
    merged = as_merged(
        tmp_path / "merged", lambda path: write_random(path, intermediate_size=72, head_dim=64)
    )
    heard = Heard()
    config = config_for(tmp_path, "Q8_0", "Q5_0", **ANY)
    files = export(config, merged, dataset, listener=heard).facts["files"]
    assert heard.lines[0].startswith("Q8_0: 1 of 9 matrices have rows that are no multiple of 32")
    assert sum("matrices" in line for line in heard.lines) == 1
    assert files["Q8_0"]["fallback_tensors"] == 1
    assert files["Q8_0"]["tensor_types"]["F16"] == 1


def test_a_missing_quantiser_is_told_before_any_work(tmp_path, tiny, dataset, monkeypatch):
    monkeypatch.setattr(gguf_types, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    heard = Heard()
    with pytest.raises(TunewrightError) as caught:
        export(config_for(tmp_path / "run", "F16", "Q4_K_M", "Q6_K"), tiny, dataset, listener=heard)
    (problem,) = caught.value.problems
    assert problem.code == "E_CONFIG_VALUE"
    assert problem.message.startswith("Q4_K_M, Q6_K: neither")
    assert "pip install 'tunewright[kquants]'" in problem.fix
    assert heard.lines == []
    assert not (tmp_path / "run").exists()
    assert missing_quantizer(["F16", "Q8_0"]) == []


def test_the_plan_tells_it_too(make_config, monkeypatch):
    from tunewright import plan, prepare

    monkeypatch.setattr(gguf_types, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    config = make_config("export.quantization=[Q4_K_M]")
    with pytest.raises(TunewrightError, match="neither llama-cpp-python"):
        plan(config, prepare(config))


def program(folder, body):
    """Put a `llama-quantize` into a folder."""
    file = folder / "llama-quantize"
    file.write_text(f"#!{sys.executable}\nimport pathlib, sys\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_a_program_on_the_path_serves_as_well(tmp_path, monkeypatch):
    program(tmp_path, "pathlib.Path(sys.argv[2]).write_text(' '.join(sys.argv[1:]))")
    monkeypatch.setattr(gguf_types, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_kquants, "cpu_count", lambda: 3)
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    _kquants.write_k_quant(source, target, "Q4_K_M")
    assert target.read_text() == f"{source} {target} Q4_K_M 3"


@pytest.mark.parametrize("body", ["sys.exit('no such type')", "print('no such type')"])
def test_a_program_that_fails_is_told_with_its_words(tmp_path, monkeypatch, body):
    program(tmp_path, body)
    monkeypatch.setattr(gguf_types, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TunewrightError, match="no such type") as caught:
        _kquants.write_k_quant(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_K_M")
    assert caught.value.problems[0].code == "E_QUANTIZE"


@needs_kquants
def test_a_broken_source_is_an_error_and_no_crash(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(TunewrightError) as caught:
        _kquants.write_k_quant(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_K_M")
    assert caught.value.problems[0].code == "E_QUANTIZE"


def test_the_source_of_k_quants_rounds_nothing(tmp_path):
    for dtypes, expected in (
        (["bfloat16"], "BF16"),
        (["float16"], "F16"),
        (["float32"], "F32"),
        (["bfloat16", "float16"], "F32"),
    ):
        folder = tmp_path / expected / str(len(dtypes))
        folder.mkdir(parents=True)
        tensors = {d: torch.zeros(2, dtype=getattr(torch, d)) for d in dtypes}
        save_file(tensors, folder / "model.safetensors")
        assert _kquants.source_type(folder) == expected


@pytest.mark.parametrize("name", BUILT_IN)
def test_one_changed_weight_is_seen_in_every_type(tmp_path, llama, name):
    file = tmp_path / "m.gguf"
    shape = write(file, llama, name)
    sound = prove_weights(file, layout_of(file), llama.path, shape)
    assert sound.faults == []
    assert sound.tensors == len(load_file(llama.path / "model.safetensors"))
    with file.open("rb") as stream:
        layout = read_layout(stream)
    (tensor,) = [t for t in layout.tensors if t.name == "blk.0.attn_k.weight"]
    data = bytearray(file.read_bytes())
    at = tensor.start + tensor.bytes // 2 + (0 if name.startswith(("F", "B")) else 1)
    # The upper byte of a value, or of a block's scale.
    at += {"F32": 3, "F16": 1, "BF16": 1}.get(name, 0)
    data[at] ^= 0x40
    file.write_bytes(data)
    (fault,) = prove_weights(file, layout_of(file), llama.path, shape).faults
    assert fault.startswith("blk.0.attn_k.weight differs by")


def test_a_large_tensor_is_compared_in_stretches_and_its_last_weight_too(tmp_path, monkeypatch):
    merged = as_merged(
        tmp_path / "merged", lambda path: write_random(path, vocab_size=2**14, head_dim=64)
    )
    file, read = tmp_path / "m.gguf", []
    shape = write(file, merged, "F16")

    def watched(stream, place, first, end):
        rows = read_rows(stream, place, first, end)
        read.append(rows.numel())
        return rows

    monkeypatch.setattr(_weights, "read_rows", watched)
    layout = layout_of(file)
    tracemalloc.start()
    found = prove_weights(file, layout, merged.path, shape)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (embedding,) = [t for t in layout.tensors if t.name == "token_embd.weight"]
    values = embedding.bytes // 2
    assert values == 4 * _weights.BLOCK_VALUES == 4 * max(read)
    assert found.faults == []
    # Nine copies in float32 of what is compared at once; of the tensor two and a quarter.
    assert peak < 9 * 4 * _weights.BLOCK_VALUES
    data = bytearray(file.read_bytes())
    data[embedding.start + embedding.bytes - 1] ^= 0x40
    file.write_bytes(data)
    (fault,) = prove_weights(file, layout, merged.path, shape).faults
    assert fault.startswith("token_embd.weight differs by")


def as_iq4_nl(rows):
    """Return rows as blocks of 32 with a scale and 16 uneven steps, which older llama.cpp falls back to."""
    blocks = rows.reshape(-1, 32)
    largest = blocks[np.arange(len(blocks)), np.abs(blocks).argmax(-1)][:, None]
    scales = (largest / IQ4_NL.kvalues[0]).astype(np.float16)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.nan_to_num(blocks / scales.astype(np.float32))
    codes = np.abs(steps[..., None] - np.array(IQ4_NL.kvalues)).argmin(-1).astype(np.uint8)
    packed = codes[:, :16] | codes[:, 16:] << 4
    return np.hstack([scales.view(np.uint8), packed]).reshape(len(rows), -1)


def test_a_tensor_of_iq4_nl_is_read_back_and_a_changed_one_is_seen(tmp_path, llama, monkeypatch):
    """Older llama.cpp stores rows that are no multiple of 256 so; the encoder here is ours."""
    name = "blk.0.ffn_down.weight"
    plain, changed = _tensors.tensors_of, []

    def of(model, shape, type_name):
        iq4_nl = GGMLQuantizationType.IQ4_NL
        return [
            replace(tensor, type=iq4_nl) if tensor.name == name else tensor
            for tensor in plain(model, shape, type_name)
        ]

    def encoded(rows, type_):
        if type_ != GGMLQuantizationType.IQ4_NL:
            return encoded_as(rows, type_)
        blocks = as_iq4_nl(rows.float().numpy())
        for at in changed:
            blocks[-1, at] ^= 0x88
        return blocks

    monkeypatch.setattr(_gguf, "tensors_of", of)
    monkeypatch.setattr(_tensors, "encoded_as", encoded)
    file = tmp_path / "m.gguf"
    shape = write(file, llama, "F16")
    sound = prove_weights(file, layout_of(file), llama.path, shape)
    assert stored_facts(layout_of(file), "F16")["tensor_types"]["IQ4_NL"] == 1
    assert sound.faults == []
    assert sound.error > 0.2
    # Two codes of the last block: half the scale away.
    changed.append(-1)
    write(file, llama, "F16")
    (fault,) = prove_weights(file, layout_of(file), llama.path, shape).faults
    assert fault.startswith(f"{name} differs by")


def test_missing_foreign_and_misshapen_tensors_are_seen(tmp_path, llama):
    file = tmp_path / "m.gguf"
    shape = write(file, llama, "F16")
    other = tmp_path / "other"
    shutil.copytree(llama.path, other)
    tensors = load_file(other / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(512, 128)
    tensors["model.layers.0.post_attention_layernorm.bias"] = torch.zeros(256)
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    assert sorted(prove_weights(file, layout_of(file), other, shape).faults) == [
        "blk.0.ffn_norm.bias is missing",
        "blk.0.ffn_up.weight has the shape (256, 512)",
        "output_norm.weight is none of the model's",
    ]


def test_weights_out_of_range_are_seen(tmp_path):
    def build(path):
        write_random(path)
        tensors = load_file(path / "model.safetensors")
        tensors["model.layers.0.mlp.up_proj.weight"][3, 3] = 1e6
        save_file(tensors, path / "model.safetensors", {"format": "pt"})

    merged = as_merged(tmp_path / "merged", build)
    with np.errstate(over="ignore"):
        shape = write(tmp_path / "m.gguf", merged, "F16")
    (fault,) = prove_weights(
        tmp_path / "m.gguf", layout_of(tmp_path / "m.gguf"), merged.path, shape
    ).faults
    assert "blk.0.ffn_up.weight differs" in fault
    shape = write(tmp_path / "m.gguf", merged, "BF16")
    assert (
        prove_weights(
            tmp_path / "m.gguf", layout_of(tmp_path / "m.gguf"), merged.path, shape
        ).faults
        == []
    )


def refused(folder, config, merged, dataset):
    with pytest.raises(TunewrightError) as caught:
        export(config, merged, dataset)
    assert caught.value.exit_code == CODES["E_GATE_EXPORT"].exit_code == 1
    assert not (folder / "exported").exists()
    assert not any(folder.glob(".tmp-*"))
    return caught.value.problems


def test_a_file_that_fails_is_kept_aside_and_replaced(tmp_path, tiny, dataset):
    config = config_for(tmp_path, "F16", "Q8_0", max_mean_kl={"Q8_0": 1e-9})
    (problem,) = refused(tmp_path, config, tiny, dataset)
    aside = tmp_path / "exported.rejected" / "t-Q8_0.gguf.rejected"
    assert problem.where == str(aside)
    assert "mean KL against the merged model" in problem.message
    assert "must be at most 1.0e-09 nats" in problem.message
    assert [file.name for file in aside.parent.iterdir()] == [aside.name]
    with aside.open("rb") as stream:
        assert len(read_layout(stream).tensors) == 57
    config = config_for(tmp_path, "F16", max_perplexity_change={"F16": 1e-12})
    (problem,) = refused(tmp_path, config, tiny, dataset)
    assert "perplexity" in problem.message
    assert [file.name for file in aside.parent.iterdir()] == ["t-F16.gguf.rejected"]
    made = export(config_for(tmp_path, "F16"), tiny, dataset)
    assert not aside.parent.exists()
    assert not any("rejected" in name for name in made.files)


def test_the_largest_kl_is_a_gate_of_its_own(tmp_path, tiny, dataset):
    config = config_for(tmp_path, "Q8_0", max_kl={"Q8_0": 1e-9})
    (problem,) = refused(tmp_path, config, tiny, dataset)
    assert problem.message.startswith("Q8_0: largest KL of a position")


def test_without_an_end_the_gate_is_red(tmp_path, tiny, dataset, monkeypatch):
    monkeypatch.setattr(_gguf.GGUFWriter, "add_eos_token_id", lambda self, index: None)
    problems = refused(tmp_path, config_for(tmp_path, "F16"), tiny, dataset)
    assert "F16: special tokens: eos is token None, not 4095" in problems[0].message


def test_an_end_that_llama_cpp_does_not_know_is_red(tmp_path, tiny):
    file = tmp_path / "m.gguf"
    write(file, tiny, "F16")
    tokenizer = _export.load_tokenizer(tiny.path)
    with file.open("rb") as stream:
        metadata = read_layout(stream).metadata
    from tunewright.models._llama import endpoint

    with endpoint(file, exact=True) as url:
        assert _ends.boundary_faults(url, tokenizer, [4095]) == []
        (fault,) = _ends.boundary_faults(url, tokenizer, [4095, 300])
    assert fault.startswith("an answer does not end at")
    assert _ends.named_otherwise(metadata, tokenizer) == []
    metadata["tokenizer.ggml.eos_token_id"] = 7
    assert len(_ends.named_otherwise(metadata, tokenizer)) == 1


def test_a_wrong_rope_base_is_red(tmp_path, tiny, dataset, monkeypatch):
    plain = _gguf.GGUFWriter.add_rope_freq_base
    monkeypatch.setattr(
        _gguf.GGUFWriter, "add_rope_freq_base", lambda self, base: plain(self, base * 1.5)
    )
    problems = refused(tmp_path, config_for(tmp_path, "F16"), tiny, dataset)
    assert {p.message.partition(":")[0] for p in problems} == {"F16"}
    assert any("mean KL" in p.message for p in problems)


def test_a_template_with_one_space_more_is_red(tmp_path, tiny, dataset, monkeypatch):
    plain = _gguf.GGUFWriter.add_chat_template
    monkeypatch.setattr(
        _gguf.GGUFWriter, "add_chat_template", lambda self, text: plain(self, text + "{{ ' ' }}")
    )
    problems = refused(tmp_path, config_for(tmp_path, "F16"), tiny, dataset)
    assert [p.message.split(":")[1].strip() for p in problems] == ["chats as in training"]


def test_perplexity_is_that_of_the_tokens_that_follow(tmp_path, tiny):
    """Against torch's cross entropy of the same tokens, and against llama.cpp in float32."""
    from transformers import AutoModelForCausalLM

    from tunewright.models._llama import endpoint

    tokenizer = _export.load_tokenizer(tiny.path)
    ids = tokenizer("The sea was grey, and the boat did not come back that night.")["input_ids"]
    row = Encoded(ids, [1] * len(ids))
    places = _parity.places_of(tiny.path, [row], count=len(ids) - 1, max_prefix=64)
    positions = places.positions
    assert [p.next for p in positions] == ids[1:]
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    with torch.inference_mode():
        loss = model(torch.tensor([ids]), labels=torch.tensor([ids])).loss
    write(tmp_path / "m.gguf", tiny, "F32")
    with endpoint(tmp_path / "m.gguf", ctx=64, exact=True) as url:
        far = _parity.divergence(url, positions, lambda done: None)
        tokens = [Token(p.prefix, p.next, float(p.log_p[p.next])) for p in positions]
        alone = ask(url, tokens, lambda done: None)
    assert alone.log_ps == far.perplexity.log_ps
    assert alone.log_qs == pytest.approx(far.perplexity.log_qs, abs=1e-4)
    assert far.perplexity.merged == pytest.approx(float(loss.exp()), rel=1e-4)
    assert far.perplexity.gguf == pytest.approx(far.perplexity.merged, rel=1e-5)
    assert far.mean_kl < 1e-9
    assert far.perplexity.change == pytest.approx(0, abs=1e-5)


def test_a_change_near_its_limit_is_measured_at_more_tokens(tmp_path, tiny, dataset):
    far = export(config_for(tmp_path / "far", "Q5_0", max_perplexity_change=1e9), tiny, dataset)
    facts = far.facts["files"]["Q5_0"]
    assert facts["perplexity_tokens"] == facts["positions"] == 12
    change = abs(facts["perplexity"] / facts["merged_perplexity"] - 1)
    limits = dict.fromkeys(("max_mean_kl", "max_kl"), 1e9)
    near = config_for(tmp_path / "near", "Q5_0", max_perplexity_change=change + 1e-6, **limits)
    try:
        (gate,) = export(near, tiny, dataset).facts["gates"][-1:]
        told = gate["value"]
    except TunewrightError as error:
        told = str(error)
    tokens = re.search(r"95 % interval .* at (\d+) tokens", told)
    assert tokens
    assert int(tokens[1]) in (24, 48, 96)


def test_positions_are_where_answers_are_and_no_prefix_comes_twice(tiny):
    rows = [Encoded([7, 8, 9, 50 + n, 51, 52], [0, 0, 0, 1, 1, 1]) for n in (0, 0, 1)]
    found = _parity.places_of(tiny.path, rows, count=9, max_prefix=64).positions
    assert [(p.prefix, p.next) for p in found] == [
        ([7, 8, 9], 50), ([7, 8, 9, 50], 51), ([7, 8, 9, 50, 51], 52),
        ([7, 8, 9, 51], 51), ([7, 8, 9, 51, 51], 52),
    ]  # fmt: skip
    unanswered = [Encoded([7, 8], [0, 0])]
    assert _parity.places_of(tiny.path, unanswered, count=9, max_prefix=64).positions == []


def test_an_answer_after_a_long_question_is_read_with_its_end(tiny):
    ids = list(range(300, 400))
    row = Encoded(ids, [0] * 90 + [1] * 10)
    found = _parity.places_of(tiny.path, [row], count=4, max_prefix=32).positions
    assert [p.next for p in found] == [390, 391, 393, 394]
    assert [p.prefix for p in found] == [ids[62:end] for end in (90, 91, 93, 94)]


@pytest.mark.parametrize(
    ("words", "held_out", "rows", "positions"),
    [(30, 100, 8, 64), (1, 100, 32, 64), (1, 10, 10, 20)],
)
def test_short_answers_are_taken_from_more_rows(
    tmp_path, tiny, all_positions, words, held_out, rows, positions
):
    lines = [
        {"prompt": f"Question {n}?", "completion": " ".join([f"No{n}"] * words)}
        for n in range(held_out)
    ]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = _export.load_tokenizer(tiny.path)
    way = _writing.way_of(tiny.path, tokenizer, _writing.Card("m"), None)
    found = _proof.gather_evidence(way, tokenizer, tmp_path / "e.jsonl", turns=None)
    assert len(found.chats) - len(GOLDEN_CHATS) == rows
    assert len(found.places.positions) >= positions


def test_a_token_that_is_not_shown_counts_as_the_rest():
    log_p = np.log(np.array([0.5, 0.25, 0.125, 0.125]))
    position = _parity.Position([1], 3, log_p)
    ids, log_q = np.array([1, 0]), np.log(np.array([0.2, 0.6]))
    one, other = _parity.of_next(position, ids, log_q)
    assert (np.exp(one), np.exp(other)) == (pytest.approx(0.25), pytest.approx(0.2))
    shown = _parity.Position([1], 1, log_p)
    one, other = _parity.of_next(shown, ids, log_q)
    assert (np.exp(one), np.exp(other)) == (pytest.approx(0.25), pytest.approx(0.2))


def test_limits_can_be_given_for_some_types_or_for_all():
    default = ExportSection()
    some = ExportSection(max_kl={"Q8_0": 0.5}, min_top1_agreement=0.5)
    assert some.max_kl == {**default.max_kl, "Q8_0": 0.5}
    assert set(some.min_top1_agreement.values()) == {0.5}
    for section in (default, some):
        for limits in (section.max_mean_kl, section.max_kl, section.max_perplexity_change):
            assert set(limits) == set(BITS)
    for wrong in ({"max_kl": {"Q8_0": 0}}, {"min_top1_agreement": 1.5}, {"max_kl": True}):
        with pytest.raises(ValueError, match="validation error"):
            ExportSection(**wrong)
    assert (
        Config(name="t", prepare={"source": "x"}, export=json.loads(some.model_dump_json())).export
        == some
    )


def test_the_child_needs_nothing_of_torch():
    """The process that quantises starts at once and has the memory for itself."""
    code = "import sys, tunewright.export._kquants; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "False"
    assert (Path(_kquants.__file__).parent / "_kquants_child.py").is_file()
