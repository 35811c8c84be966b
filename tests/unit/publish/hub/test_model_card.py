"""The card of a model: metadata that the Hub's own library reads, and a page without surprises."""

import ast
import json
import math
import re
import shlex
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import given
from hypothesis import strategies as st

from tunewright.publish import Forced
from tunewright.publish.hub.markdown import course_plot
from tunewright.publish.hub.model_card import metadata, model_card
from tunewright.publish.hub.model_facts import Base, ModelFacts, base_of
from tunewright.publish.hub.repositories import ollama_files, superseded, without_place

GATE = {"gate": "a | b", "value": "1", "limit": "2", "passed": True}
FACTS = ModelFacts(
    kind="adapter",
    title="me/voice",
    repo_id="me/voice",
    base=Base("Qwen/Qwen3-4B", "Qwen/Qwen3-4B", "abc123"),
    version="0.1.0",
    prompt='Continue "this":\nnow',
    related={"dataset": "me/rows", "gguf": "me/voice-GGUF"},
    dataset={"digest": "ab" * 32, "rows": {"train": 900, "eval": 100}, "words": {"train": 12345}},
    settings={"learning_rate": 2e-4, "lora.r": 64, "lora.target_modules": "all-linear"},
    choices=({"name": "optim", "value": "adamw_torch", "reason": "it is exact"},),
    train_losses=((1, 2.5), (2, 1.5)),
    eval_losses=((0, 2.0), (1, 1.0)),
    best_step=1,
    evaluation={
        "verdict": "improved",
        "sentence": "It has learned.",
        "transfer_score": {"score": 71.4, "low": 64.0, "high": 78.9},
        "memorisation": {"longest_words": 7, "copied_share": 0.012, "heldout_copied_share": 0.01},
        "perplexity": {
            side: {
                "base": {"value": 99.8, "low": 89.0, "high": 111.0},
                "tuned": {"value": 75.7, "low": 69.0, "high": 84.0},
                "ratio": {"value": 0.758, "low": 0.715, "high": 0.801},
            }
            for side in ("heldout", "neutral")
        },
    },
    gates=(("adapter", GATE), ("evaluation", {**GATE, "passed": False})),
    license="apache-2.0",
    languages=("en", "fr"),
    sampling={"temperature": 0.7, "top_p": 0.8},
    libraries={"peft": "0.21.2"},
)


def split_card(text: str) -> tuple[dict, str]:
    front, page = re.match(r"---\n(.*?)\n---\n\n(.*)", text, re.DOTALL).groups()
    return yaml.safe_load(front), page


def test_the_metadata_are_what_the_hubs_library_reads():
    data = ModelCard(model_card(FACTS)).data
    assert (data.license, data.language, data.library_name) == ("apache-2.0", ["en", "fr"], "peft")
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen3-4B", "adapter")
    assert (data.datasets, data.pipeline_tag) == (["me/rows"], "text-generation")
    results = {one.metric_type: one for one in data.eval_results}
    assert results["perplexity"].metric_value == 75.7
    assert results["transfer_score"].metric_value == 71.4
    assert results["perplexity"].dataset_type == "me/rows"
    name, again = model_index_to_eval_results(metadata(FACTS)["model-index"])
    assert (name, len(again)) == ("voice", 2)


@pytest.mark.parametrize(
    ("facts", "library", "base", "relation"),
    [
        (FACTS, "peft", "Qwen/Qwen3-4B", "adapter"),
        (replace(FACTS, kind="version"), "peft", "Qwen/Qwen3-4B", "adapter"),
        (replace(FACTS, kind="merged"), "transformers", "Qwen/Qwen3-4B", "finetune"),
        (replace(FACTS, kind="gguf"), "gguf", "Qwen/Qwen3-4B", "finetune"),
        (
            replace(FACTS, kind="gguf", related={"merged": "me/m"}),
            "gguf",
            "me/m",
            "quantized",
        ),
        (replace(FACTS, base=Base("my-base")), "peft", None, None),
    ],
)
def test_what_it_is_made_of_is_said_as_the_hub_says_it(facts, library, base, relation):
    front = metadata(facts)
    found = (front["library_name"], front.get("base_model"), front.get("base_model_relation"))
    assert found == (library, base, relation)


def test_the_page_tells_everything():
    _, page = split_card(model_card(FACTS))
    for expected in (
        "# me/voice",
        "[Qwen/Qwen3-4B](https://huggingface.co/Qwen/Qwen3-4B) (revision `abc123`)",
        "The dataset: [me/rows](https://huggingface.co/datasets/me/rows)",
        "**improved**. It has learned.",
        "**Transfer score: 71 %** (95 % interval 64 % to 79 %)",
        "| held-out rows | 99.8 (89 to 111) | 75.7 (69 to 84) | 0.758 (0.715 to 0.801) |",
        "longest copy of training text has 7 words",
        "1.2 % are in the training text",
        "| training | 900 | 12,345 |",
        "| `learning_rate` | `0.0002` |",
        "`optim` is `adamw_torch`: it is exact",
        "the adapter is of step 1",
        "The training loss went from 2.500 to 1.500.",
        "| adapter | a \\| b | 1 | 2 | yes |",
        "1 of 2 failed.",
        "peft 0.21.2",
        "`apache-2.0`",
        "--max-lora-rank 64",
    ):
        assert expected in page
    assert "None" not in page
    assert "by force" not in page


def test_the_figures_of_merging_and_of_every_type_are_in_a_table():
    file = {
        "file": "v-Q8_0.gguf",
        "bytes": 5_439_072,
        "mean_kl": 1.7e-4,
        "top1_agreement": 0.984,
        "perplexity": 17.34,
        "merged_perplexity": 17.0,
    }
    merged = {"mean_kl": 4.8e-6, "top1_agreement": 0.998, "tokens": 1057, "step": 1}
    files = {"Q8_0": file, "F16": {"file": "x"}}
    facts = replace(FACTS, kind="gguf", merged=merged, ggufs=files, ollama=True)
    _, page = split_card(model_card(facts))
    assert "| `Q8_0` | `v-Q8_0.gguf` | 5.4 | 1.7e-04 | 98.4 % | +2.00 % |" in page
    assert "| `F16` | `x` |  |  |  |  |" in page
    assert "on 1,057 held-out tokens: mean KL divergence 4.8e-06 nats" in page
    assert "ollama run hf.co/me/voice:F16" in page
    assert "llama-server --jinja -hf me/voice:F16" in page
    assert "which is not the adapter" not in page
    other = replace(facts, merged={**merged, "step": 3})
    assert "merged from the checkpoint of step 3" in model_card(other)


def test_what_ollama_cannot_say_is_not_recommended():
    for kind in ("gguf", "version"):
        files = {"Q8_0": {"file": "v-Q8_0.gguf"}}
        able = replace(FACTS, kind=kind, ggufs=files, ollama=True)
        assert "```shell\nollama" in model_card(able)
        text = model_card(replace(able, ollama=False))
        assert "```shell\nollama" not in text
        assert "Not with Ollama" in text
        assert "v-Q8_0.gguf" in text


def test_the_commands_can_be_copied():
    names = {"adapter": "peft", "merged": "AutoModelForCausalLM"}
    for kind, expected in names.items():
        (code,) = re.findall(r"```python\n(.*?)```", model_card(replace(FACTS, kind=kind)), re.S)
        ast.parse(code)
        assert expected in code
        assert json.dumps(FACTS.prompt) in code
        assert "do_sample=True, temperature=0.7, top_p=0.8" in code
    cold = replace(FACTS, kind="merged", sampling={"temperature": 0.0, "top_p": 0.8})
    assert "do_sample=False" in model_card(cold)
    odd = replace(FACTS, base=Base('it\'s "mine"; rm'), added_tokens=True)
    text = model_card(odd)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    ast.parse(code)
    assert "resize_token_embeddings" in code
    (serve,) = re.findall(r"^vllm serve .*$", text, re.M)
    assert shlex.split(serve)[2] == 'it\'s "mine"; rm'


def test_what_is_forced_stands_at_the_top_and_without_a_reason_that_is_said():
    facts = replace(FACTS, forced=Forced(["The verdict is overfitted: by heart."], "a | demo"))
    _, page = split_card(model_card(facts))
    assert page.index("Passed on by force") < page.index("## ")
    assert "> * The verdict is overfitted: by heart." in page
    assert "> Its owner's reason: a \\| demo." in page
    assert "none was given" in model_card(replace(facts, forced=Forced(["x"])))


def test_what_is_not_known_is_left_out_or_said():
    bare = ModelFacts("adapter", "a/b", Base("tunewright/tiny"), "0.1.0")
    front, page = split_card(model_card(bare))
    assert set(front) == {"library_name", "pipeline_tag", "tags"}
    assert "Not compared with its base" in page
    assert "No licence has been chosen yet" in page
    for missing in ("## Data", "## Training", "## Compared", "## Proven", "## Checks", "None"):
        assert missing not in page
    none = {"verdict": "improved", "transfer_score": {"score": None, "reason": "Too little."}}
    text = model_card(replace(bare, evaluation=none))
    assert "Transfer score: none, because: Too little." in text
    assert "model-index" not in text


def test_numbers_that_are_none_are_not_results():
    odd = {
        "verdict": "degraded",
        "transfer_score": {"score": math.nan},
        "perplexity": {"heldout": {n: {"value": math.inf} for n in ("base", "tuned", "ratio")}},
    }
    text = model_card(replace(FACTS, evaluation=odd, eval_losses=((0, math.nan), (1, math.inf))))
    assert "model-index" not in text
    assert "Loss on held-out" not in text


def test_few_rows_are_said_to_be_few():
    few = replace(FACTS, dataset={"rows": {"train": 40}})
    assert "learned from 40 rows only" in model_card(few)
    assert "rows only" not in model_card(FACTS)


def test_a_base_is_named_without_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "local").mkdir(parents=True)
    assert base_of("tunewright/tiny") == Base("tunewright/tiny")
    assert base_of("Qwen/Qwen3-4B", "v1") == Base("Qwen/Qwen3-4B", "Qwen/Qwen3-4B", "v1")
    assert base_of("org/local") == Base("local")
    for name in ("/home/me/base", "../base", "~/models/base", "C:\\models\\base", "./base"):
        assert base_of(name) == Base("base")


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_breaks_the_card(one, other):
    facts = replace(
        FACTS,
        prompt=one,
        base=Base(other or "x"),
        settings={"chat_template": one},
        evaluation={"verdict": other, "sentence": one},
        gates=(("adapter", {"gate": one, "value": other, "limit": one, "passed": False}),),
        forced=Forced([one], other),
        libraries={"x": one},
    )
    front, page = split_card(model_card(facts))
    assert front["library_name"] == "peft"
    rows = [line for line in page.splitlines() if line.endswith("| **no** |")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 6
    assert len(re.findall(r"^```", page, re.M)) == 6
    headings = re.findall(r"^## .*", page, re.M)
    assert len(headings) == 8


def test_the_plot_goes_from_the_lowest_to_the_highest():
    lines = course_plot([(0, 4.0), (10, 3.0), (2000, 2.0)]).splitlines()
    assert [line.count("#") for line in lines] == [40, 21, 1]
    assert lines[0].startswith("    0 | 4.0000 ")
    many = course_plot([(n, 1 / (n + 1)) for n in range(1000)]).splitlines()
    assert len(many) == 20
    assert many[0].startswith("  0 |")
    assert many[-1].startswith("999 |")
    assert course_plot([(3, 1.0)]).count("#") == 1


# How it lies in a repository


@given(
    st.text(st.characters(blacklist_characters='"', blacklist_categories=["Cs"]), max_size=80),
    st.text(st.characters(blacklist_characters='"', blacklist_categories=["Cs"]), max_size=40),
)
def test_what_ollama_reads_is_what_the_modelfile_says(template, system):
    text = f'FROM ./a.gguf\nTEMPLATE """{template}"""\nSYSTEM """{system}"""\nPARAMETER stop "x"\n'
    found = ollama_files(text, "b-Q8_0.gguf")
    assert found["template"] == template
    assert found["system"] == system
    assert json.loads(found["params"]) == {"stop": ["x"]}
    assert found["Modelfile"] == text.replace("FROM ./a.gguf", "FROM ./b-Q8_0.gguf", 1)


def test_parameters_keep_their_type():
    text = 'FROM ./a\nPARAMETER num_ctx 2048\nPARAMETER top_p 0.8\nPARAMETER stop a\nPARAMETER stop "b"\n'
    found = ollama_files(text, "a")
    assert json.loads(found["params"]) == {"num_ctx": 2048, "top_p": 0.8, "stop": ["a", "b"]}
    assert set(found) == {"Modelfile", "params"}
    assert set(ollama_files("FROM ./a\n", "a")) == {"Modelfile"}


def test_only_what_a_loader_would_take_is_superseded():
    there = ["README.md", "model.safetensors", "model.safetensors.index.json", "my_model.txt"]
    assert superseded("merged", ["model.safetensors"], there, "me/x") == [
        "model.safetensors.index.json"
    ]
    assert superseded("adapter", ["adapter_model.safetensors"], ["adapter_model.bin"], "x") == [
        "adapter_model.bin"
    ]
    assert superseded("gguf", ["a.gguf"], ["b.gguf", "system"], "x") == ["system"]


def test_what_vllm_cannot_serve_is_not_recommended():
    able = model_card(replace(FACTS, kind="adapter", not_vllm=()))
    unable = model_card(replace(FACTS, kind="adapter", not_vllm=("The adapter is DoRA",)))
    assert "--enable-lora" in able
    assert "--enable-lora" not in unable
    assert "Not with vLLM: The adapter is DoRA." in unable


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_folder_of_this_machine_is_named_only(ascii_only):
    place = "/home/josé/models/base"
    text = json.dumps({"base": place}, ensure_ascii=ascii_only)
    assert json.loads(without_place(text, place, "base")) == {"base": "base"}
