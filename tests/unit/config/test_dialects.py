"""Configs of other tools: every key is acted on, named, or refused, and nothing is lost on the way to ours."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.config.convert import as_yaml, essentials, write_new
from tunewright.config.dialects.axolotl import AXOLOTL
from tunewright.config.dialects.flat import FLAT
from tunewright.config.dialects.translate import DIALECTS, dialect_of
from tunewright.config.load import load, load_config, preset_names
from tunewright.config.schema import Config
from tunewright.config.wording import meaning
from tunewright.errors import TunewrightError

COMPAT = Path(__file__).parent / "compat"
AXOLOTL_MINIMUM = {"base_model": "b", "datasets": [{"path": "rows.jsonl"}], "adapter": "lora"}
FLAT_MINIMUM = {"model_id": "b", "dataset_id": "rows.jsonl"}


def written(folder: Path, values: dict | str) -> Path:
    file = folder / "c.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return file


@pytest.fixture
def axolotl(tmp_path, monkeypatch):
    """Return a function that loads an Axolotl config with more keys than it needs."""
    monkeypatch.chdir(tmp_path)
    return lambda **keys: load(written(tmp_path, AXOLOTL_MINIMUM | keys))


@pytest.fixture
def flat(tmp_path, monkeypatch):
    """Return a function that loads a script's config with more keys than it needs."""
    monkeypatch.chdir(tmp_path)
    return lambda **keys: load(written(tmp_path, FLAT_MINIMUM | keys))


def refused(call) -> list:
    with pytest.raises(TunewrightError) as caught:
        call()
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def test_the_sample_of_a_script_loads_with_every_value(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = load(COMPAT / "flat_sft.yaml")
    config, train = found.config, found.config.train
    assert config.name == "sft-qwen3-4b-video-prompts"
    assert config.run_dir == "./outputs/qwen3-4b-prompt-lora"
    assert config.model.model_name_or_path == "Qwen/Qwen3-4B-Instruct-2507"
    assert [entry.path for entry in config.prepare.source] == ["data/video_prompts.jsonl"]
    assert config.prepare.eval_split == 0.1
    assert (train.lora.r, train.lora.lora_alpha, train.lora.lora_dropout) == (16, 32, 0.05)
    assert train.lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (train.load_in_4bit, train.bnb_4bit_compute_dtype) == (True, "bfloat16")
    assert (train.bnb_4bit_quant_type, train.optim) == ("nf4", "paged_adamw_8bit")
    assert (train.max_length, train.num_train_epochs, train.learning_rate) == (512, 3, 2e-4)
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == (4, 4)
    assert (train.warmup_ratio, train.lr_scheduler_type, train.dtype) == (
        0.03,
        "cosine",
        "bfloat16",
    )
    assert (train.logging_steps, train.save_steps, train.early_stopping_patience) == (10, 100, 3)
    assert (train.report_to, train.gradient_checkpointing) == (("wandb",), True)
    said = "\n".join(found.notes)
    assert "push_to_hub (line 26): is publish.push_to_hub: `tunewright run` uploads" in said
    assert found.config.publish.push_to_hub == ("adapter",)
    assert found.config.publish.hub_model_id == "example-org/qwen3-4b-prompt-lora"


def test_the_sample_of_axolotl_loads_with_every_value(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = load(COMPAT / "axolotl_qlora.yaml", ["train.lora.r=8"])
    config, train = found.config, found.config.train
    assert (config.name, config.run_dir) == ("author-style", "./checkpoints/author-style")
    assert config.model.model_name_or_path == "meta-llama/Llama-3.1-8B-Instruct"
    assert config.model.chat_template == "alpaca"
    assert [entry.path for entry in config.prepare.source] == [
        "data/processed/author_training.jsonl"
    ]
    assert (train.lora.r, train.lora.lora_alpha, train.lora.target_modules) == (8, 32, "all-linear")
    assert (train.load_in_4bit, train.max_length, train.num_train_epochs) == (True, 4096, 3)
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == (1, 8)
    assert (train.optim, train.attn_implementation) == ("paged_adamw_8bit", "flash_attention_2")
    assert train.train_sampling_strategy == "group_by_length"
    assert (train.report_to, train.project) == (("wandb",), "author-style")
    assert "axolotl" in found.dialect.lower()
    assert "base_model" in found.dialect
    assert any("sample_packing (line 20)" in line for line in found.notes)
    assert any("model.chat_template=null" in line for line in found.notes)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.source)
def test_every_key_leads_to_an_option_that_there_is(dialect):
    for native in dialect.same.values():
        assert meaning(tuple(native.split("."))) != meaning(("nothing",)), native
    groups = [dialect.same, dialect.handlers, dialect.together, dialect.reasons()]
    assert sum(map(len, groups)) == len(dialect.known())
    assert sum(len(keys.split()) for keys in dialect.unused.values()) == len(dialect.reasons())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prepare": {"source": "x"}}, None),
        ({"name": "x", "seed": 1, "output_dir": "o"}, None),
        ({"base_model": "b"}, AXOLOTL),
        ({"model_name_or_path": "b", "learning_rate": 1}, FLAT),
        ({"base_model": "b", "datasets": [], "num_train_epochs": 3}, AXOLOTL),
        ({1: 2}, None),
    ],
)
def test_a_dialect_is_told_by_its_keys(values, expected):
    assert dialect_of(values) is expected


def test_a_section_of_ours_settles_it(tmp_path):
    both = {"prepare": {"source": "x"}, "base_model": "b"}
    (problem,) = refused(lambda: load_config(written(tmp_path, both)))
    assert "'base_model' is not an option" in problem.message


def test_keys_without_a_meaning_are_named_with_their_lines(tmp_path):
    text = (
        "model_id: b\ndataset_id: rows.jsonl\nddp_backend: nccl\nfsdp: full_shard\nmade_up_by_me: 3\n"
        "fp16: false\nlora_r:\nhub_token: hf_abcdefgh\n"
    )
    found = load(written(tmp_path, text))
    said = "\n".join(found.notes)
    assert "ddp_backend (line 3), fsdp (line 4): processes are the launcher's matter" in said
    assert "made_up_by_me (line 5): no key that we know, so it does nothing" in said
    assert "fp16 (line 6): has no counterpart, and is switched off" in said
    assert "lora_r (line 7): given without a value" in said
    assert "hub_token (line 8)" in said
    assert "hf_abcdefgh" not in said
    assert found.config.train.lora.r == Config.model_fields["train"].default_factory().lora.r


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.source)
def test_no_known_key_is_dropped_in_silence(dialect):
    """Each key alone, with values of every kind: it sets an option, is named in a note, or is refused."""
    minimum = AXOLOTL_MINIMUM if dialect is AXOLOTL else FLAT_MINIMUM
    values = [True, False, 7, 0.013, "auto-something", ["q_proj"], {"pad_token": "<p>"}, "chatml"]
    for key in sorted(dialect.known() - minimum.keys()):
        acted = False
        for value in values:
            tree = minimum | {key: value}
            read = dialect.read(tree, {(name,): 1 for name in tree}, "c")
            put = any(given.key == key for given in read.places.values())
            named = any(f"{key} (line 1)" in note for note in read.notes())
            acted = acted or put or named or any(f"'{key}'" in p.message for p in read.problems)
        assert acted, key


def test_typos_and_wrong_values_are_refused_with_the_line_of_the_file(tmp_path):
    typos = "model_id: b\ndataset_id: rows.jsonl\nlearning_rte: 1e-4\nlora_alhpa: 8\n"
    found = refused(lambda: load_config(written(tmp_path, typos)))
    assert [(p.code, p.where[-2:], p.fix) for p in found] == [
        ("E_CONFIG_KEY", ":3", "Did you mean 'learning_rate'?"),
        ("E_CONFIG_KEY", ":4", "Did you mean 'lora_alpha'?"),
    ]
    wrong = "base_model: b\ndatasets:\n  - path: r.jsonl\nadapter: lora\nlora_r: many\nmicro_batch_size: 0\n"
    found = refused(lambda: load_config(written(tmp_path, wrong)))
    assert {(p.code, p.where[-2:]) for p in found} == {
        ("E_CONFIG_VALUE", ":5"),
        ("E_CONFIG_VALUE", ":6"),
    }
    assert any("'lora_r' (train.lora.r): should be a whole number" in p.message for p in found)
    (missing,) = refused(lambda: load_config(written(tmp_path, "base_model: b\nadapter: lora\n")))
    assert "'datasets' (prepare.source) is missing" in missing.message
    both = "base_model: b\ndatasets: x\nlora_r: many\nmicro_batch_sise: 1\n"
    found = refused(lambda: load_config(written(tmp_path, both)))
    assert sorted(p.where[-2:] for p in found) == [":2", ":3", ":4"]
    twice = FLAT_MINIMUM | {"max_length": 100, "max_seq_length": 200}
    (problem,) = refused(lambda: load_config(written(tmp_path, twice)))
    assert "both set train.max_length" in problem.message
    assert load_config(written(tmp_path, FLAT_MINIMUM | {"max_length": 99, "max_seq_length": 99}))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"adapter": "ia3"}, "lora or qlora"),
        ({"rl": "dpo"}, "only supervised fine-tuning"),
        ({"datasets": "rows.jsonl"}, "'datasets' should be a list"),
        ({"datasets": [3]}, "datasets[0]"),
        ({"datasets": [{"type": "alpaca"}]}, "'datasets[0]' should have a path"),
        ({"datasets": [{"path": "r.jsonl", "data_files": [1]}]}, "data_files"),
        ({"datasets": [{"path": "r.jsonl", "type": 5}]}, "a type's name"),
        ({"batch_size": 5, "micro_batch_size": 2}, "a multiple of micro_batch_size"),
        ({"sample_packing": "yes please"}, "'sample_packing' should be true or false"),
        ({"special_tokens": "pad"}, "'special_tokens' should be a mapping"),
        ({"chat_template_jinja": "{{ messages }}"}, "holds a template's text"),
        ({"optimizer": "lion_8bit"}, "'optimizer' (train.optim)"),
        ({"lr_scheduler": "rex"}, "'lr_scheduler' (train.lr_scheduler_type)"),
    ],
)
def test_what_cannot_be_done_is_refused(axolotl, keys, says):
    assert any(says in problem.message for problem in refused(lambda: axolotl(**keys)))


def test_sources_of_axolotl(axolotl, tmp_path):
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "here").mkdir()
    datasets = [
        {"path": "org/name", "split": "train[:10%]", "name": "small", "type": "chat_template"},
        {"path": "me/here", "split": "train", "data_files": ["a.jsonl", "b.jsonl"]},
        {"path": "json", "data_files": "c.jsonl", "type": "completion", "field": "body"},
        {
            "path": "d.jsonl",
            "type": {"field_instruction": "ask", "field_output": "say", "format": "x"},
        },
        {"path": "e.jsonl", "field_messages": "turns", "split": "test", "shards": 3, "odd": 1},
    ]
    found = axolotl(datasets=datasets)
    paths = [entry.path for entry in found.config.prepare.source]
    assert paths == [
        "hub:org/name",
        "me/here/a.jsonl",
        "me/here/b.jsonl",
        "c.jsonl",
        "d.jsonl",
        "e.jsonl",
    ]
    first, _, _, text, custom, turns = found.config.prepare.source
    assert (first.split, first.name) == ("train[:10%]", "small")
    assert (text.columns, turns.columns) == ({"text": "body"}, {"messages": "turns"})
    assert custom.columns == {"instruction": "ask", "output": "say"}
    said = "\n".join(found.notes)
    for name in (
        "datasets[3].type.format",
        "datasets[4].split",
        "datasets[4].shards",
        "datasets[4].odd",
    ):
        assert name in said
    assert found.config.model.chat_template is None


def test_sources_of_a_script(flat):
    assert flat(dataset_id="org/name", dataset_config="c").config.prepare.source[0].name == "c"
    found = flat(dataset_id=["a.jsonl", "sample:manuscript"], dataset_split="train")
    assert [e.path for e in found.config.prepare.source] == ["a.jsonl", "sample:manuscript"]
    assert any("dataset_split" in line for line in found.notes)
    assert flat(dataset_text_field="body").config.prepare.columns == {"text": "body"}
    assert refused(lambda: flat(dataset_id=[]))[0].message.startswith("'dataset_id' should be")


@pytest.mark.parametrize(
    ("keys", "option", "value"),
    [
        ({"max_steps": -1}, "max_steps", None),
        ({"max_steps": 5}, "max_steps", 5),
        ({"warmup_steps": 0, "warmup_ratio": 0.1}, "warmup_steps", None),
        ({"warmup_steps": 0.1}, "warmup_ratio", 0.1),
        ({"warmup_steps": 7}, "warmup_steps", 7),
        ({"eval_steps": 0.2}, "eval_steps", None),
        ({"group_by_length": False}, "train_sampling_strategy", "random"),
        ({"packing": True}, "train_sampling_strategy", "group_by_length"),
        ({"report_to": "none"}, "report_to", ()),
        ({"report_to": ["wandb", "mlflow"]}, "report_to", ("wandb",)),
        ({"torch_dtype": "torch.bfloat16"}, "dtype", "bfloat16"),
        ({"torch_dtype": "float16"}, "dtype", "auto"),
        ({"gradient_checkpointing": "unsloth"}, "gradient_checkpointing", True),
        ({"use_flash_attention_2": False}, "attn_implementation", "auto"),
        ({"optim": "adamw_8bit"}, "optim", "adamw_bnb_8bit"),
        ({"lr": "1e-4"}, "learning_rate", 1e-4),
    ],
)
def test_values_that_are_said_otherwise(flat, keys, option, value):
    assert getattr(flat(**keys).config.train, option) == value


def test_names_of_runs(flat):
    assert flat(output_dir="out/first run!/").config.name == "first-run"
    named = flat(output_dir="out/x", run_name="a b").config
    assert (named.name, named.train.run_name) == ("a-b", "a b")
    assert flat(run_name="???", output_dir="out/x").config.name == "x"
    assert flat(output_dir="/").config.name == "run"


def test_held_out_rows_and_templates(flat, axolotl):
    assert flat(eval_split="validation").config.prepare.eval_split == 0.1
    assert any("val_set_size" in line for line in axolotl(val_set_size=200).notes)
    assert axolotl(val_set_size=0.2).config.prepare.eval_split == 0.2
    assert axolotl(chat_template="alpaca").config.model.chat_template == "alpaca"
    assert any("chat_template" in line for line in axolotl(chat_template="chatml").notes)
    jinja = axolotl(chat_template="jinja", chat_template_jinja="chat.jinja")
    assert jinja.config.model.chat_template == "chat.jinja"
    mixed = [{"path": "a.jsonl", "type": "alpaca"}, {"path": "b.jsonl", "type": "chat_template"}]
    assert any("the types differ" in line for line in axolotl(datasets=mixed).notes)
    tokens = axolotl(special_tokens={"pad_token": "<p>", "additional_special_tokens": ["<a>"]})
    assert tokens.config.model.extra_special_tokens == ("<a>",)
    assert any("special_tokens.pad_token" in line for line in tokens.notes)
    assert axolotl(batch_size=8, micro_batch_size=2).config.train.gradient_accumulation_steps == 4


def test_notes_reach_who_loads(tmp_path):
    file = written(tmp_path, FLAT_MINIMUM | {"tf32": True})
    with pytest.warns(UserWarning, match=r"tf32 \(line 3\)"):
        load_config(file)
    said = []
    load_config(file, note=said.append)
    assert len(said) == 1


VALUES = {
    **{key: st.integers(1, 64) for key in ("lora_r", "lora_alpha", "save_total_limit", "seed")},
    **{
        key: st.floats(1e-6, 0.9)
        for key in ("learning_rate", "weight_decay", "lora_dropout", "adam_beta1")
    },
    "warmup_ratio": st.floats(0, 0.9),
    "output_dir": st.sampled_from(["./a/b", "c", "runs/{name}", "ü/ b"]),
    "bf16": st.sampled_from([True, False, "auto", None]),
    "warmup_steps": st.integers(0, 9),
    "eval_steps": st.one_of(st.integers(1, 9), st.floats(0.01, 0.9)),
    "early_stopping_patience": st.one_of(st.none(), st.integers(1, 9)),
    "gradient_checkpointing": st.sampled_from([True, False, "unsloth"]),
    "group_by_length": st.booleans(),
    "max_steps": st.sampled_from([-1, 5]),
    "load_in_4bit": st.booleans(),
    "lora_target_modules": st.sampled_from(["all-linear", "q_proj", ["q_proj", "v_proj"]]),
    "something_else": st.text(max_size=9),
}
FLAT_VALUES = VALUES | {
    "run_name": st.text(min_size=1, max_size=20),
    "report_to": st.sampled_from(["none", "wandb", ["wandb", "trackio"], "all"]),
    "train_files": st.sampled_from(["org/name", "a.jsonl", ["a.jsonl", "hub:o/n"]]),
    "dataset_text_field": st.sampled_from(["text", "body", "messages"]),
    "bnb_4bit_compute_dtype": st.sampled_from(["float16", "torch.bfloat16"]),
    "eval_split": st.sampled_from([0.1, 0.3, 0, "test"]),
}
AXOLOTL_VALUES = VALUES | {
    "wandb_project": st.text(max_size=9),
    "special_tokens": st.sampled_from(
        [{"additional_special_tokens": ["<a>", "<b>"]}, {"pad_token": "x"}]
    ),
    "chat_template": st.sampled_from(["alpaca", "chatml", "tokenizer_default"]),
    "flash_attention": st.booleans(),
    "val_set_size": st.sampled_from([0, 0.2, 500]),
    "sequence_len": st.integers(16, 9999),
}


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.fixed_dictionaries(
            {k: st.just(v) for k, v in FLAT_MINIMUM.items()}, optional=FLAT_VALUES
        ),
        st.fixed_dictionaries(
            {k: st.just(v) for k, v in AXOLOTL_MINIMUM.items()}, optional=AXOLOTL_VALUES
        ),
    )
)
def test_a_converted_config_loads_to_the_same(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("c")
    found = load(written(folder, values))
    text = as_yaml(found)
    (folder / "new.yaml").write_text(text)
    again = load(folder / "new.yaml")
    assert again.config == found.config
    assert (again.dialect, again.notes) == (None, ())
    assert as_yaml(again) == "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith("#")
    )


@pytest.mark.parametrize("name", preset_names())
def test_our_own_configs_are_written_without_defaults(name, tmp_path):
    found = load(f"preset:{name}")
    assert load(written(tmp_path, as_yaml(found))).config == found.config
    assert "warmup_ratio" not in str(essentials(found.config))


def test_converted_configs_hold_nothing_but_what_differs(tmp_path):
    values = {
        "prepare": {"source": [{"path": "a", "weight": 2.0}, "b"]},
        "train": {"learning_rate": 2e-4, "early_stopping_patience": None},
        "check": {"against": "c"},
        "export": {"max_mean_kl": {"F16": 0.1}},
    }
    found = essentials(load(written(tmp_path, values)).config)
    assert found == {
        "prepare": {"source": [{"path": "a", "weight": 2.0}, "b"]},
        "check": {"against": "c"},
        "train": {"early_stopping_patience": None},
        "export": {"max_mean_kl": {"F16": 0.1}},
    }
    target = tmp_path / "new.yaml"
    write_new(str(target), "x\n")
    with pytest.raises(TunewrightError) as caught:
        write_new(str(target), "y\n")
    assert caught.value.problems[0].code == "E_EXISTS"
    assert target.read_text() == "x\n"
    with pytest.raises(TunewrightError) as caught:
        write_new(str(tmp_path / "no" / "new.yaml"), "y\n")
    assert caught.value.problems[0].code == "E_IO"


def test_where_a_model_goes_on_the_hub_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "max_seq_length: 64\ndataset_id: org/rows\n"
    axolotl = "base_model: org/base\ndatasets: [{path: org/rows, type: alpaca}]\n"
    hub = "hub_model_id: me/voice\nhub_revision: v2\n"
    for text in (rows + hub + "hub_private_repo: false\n", axolotl + hub):
        Path("c.yaml").write_text(text)
        options = load("c.yaml").config.publish
        assert (options.hub_model_id, options.hub_revision) == ("me/voice", "v2")
        assert options.hub_private == ("private" not in text)
    Path("c.yaml").write_text(rows + "hub_model_id: voice\n")
    found = load("c.yaml")
    assert found.config.publish.hub_model_id is None
    assert "hub_model_id (line 3): a repository is named org/name" in "\n".join(found.notes)


ROWS = "max_seq_length: 64\ndataset_id: org/rows\n"
AXOLOTL_ROWS = "base_model: org/base\ndatasets: [{path: org/rows, type: alpaca}]\n"


@pytest.mark.parametrize(
    ("text", "parts", "said"),
    [
        (ROWS + "push_to_hub: true\nhub_model_id: me/voice\n", ("adapter",), "at its end"),
        (ROWS + "push_to_hub: true\nhub_repo_id: me/voice\n", ("adapter",), "at its end"),
        (ROWS + "push_to_hub: true\npush_to_hub_model_id: me/voice\n", ("adapter",), "at its end"),
        (AXOLOTL_ROWS + "hub_model_id: me/voice\nhub_strategy: end\n", ("adapter",), "at its end"),
        (ROWS + "push_to_hub: false\nhub_model_id: me/voice\n", (), None),
        (ROWS + "hub_model_id: me/voice\nhub_strategy: end\n", (), None),
        (ROWS + "push_to_hub: true\n", (), "push_to_hub (line 3): no repository org/name"),
        (
            ROWS + "push_to_hub: true\nhub_model_id: voice\n",
            (),
            "push_to_hub (line 3): no repository",
        ),
        (AXOLOTL_ROWS + "hub_model_id: voice\n", (), "a repository is named org/name"),
        (
            ROWS + "hub_strategy: every_save\n",
            (),
            "hub_strategy (line 3): training uploads nothing",
        ),
        (
            ROWS + "hub_always_push: true\n",
            (),
            "hub_always_push (line 3): training uploads nothing",
        ),
        (AXOLOTL_ROWS + "push_dataset_to_hub: me/rows\n", (), "training uploads nothing"),
    ],
)
def test_an_upload_that_is_asked_for_ends_the_run(tmp_path, monkeypatch, text, parts, said):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    found = load("c.yaml")
    assert found.config.publish.push_to_hub == parts
    assert found.config.publish.hub_model_id == ("me/voice" if "me/voice" in text else None)
    notes = "\n".join(note for note in found.notes if "hub" in note)
    assert said in notes if said else not notes


def test_an_upload_that_is_neither_wanted_nor_not_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(ROWS + "push_to_hub: later\nhub_model_id: me/voice\n")
    (problem,) = refused(lambda: load("c.yaml"))
    assert (problem.code, problem.where) == ("E_CONFIG_VALUE", "c.yaml:3")
