import time
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from support import ODD_NAMES

from tunewright.config.inputs import DETERMINED_BY, settings_of
from tunewright.config.load import dump_config, load_config, preset_names, read_dotenv
from tunewright.config.schema import Config
from tunewright.config.text import dumped
from tunewright.errors import TunewrightError


def write(folder: Path, text: str) -> Path:
    file = folder / "c.yaml"
    file.write_text(text)
    return file


def problems_of(source, overrides=()):
    with pytest.raises(TunewrightError) as caught:
        load_config(source, overrides)
    return caught.value


def test_minimal_config_gets_every_default(tmp_path):
    config = load_config(write(tmp_path, "prepare:\n  source: a.txt\n"))
    assert config.train.lora.r == 16
    assert config.run_dir == "runs/run"


def test_all_problems_at_once_with_file_line_and_suggestion(tmp_path):
    file = write(
        tmp_path,
        "name: ok\nprepare:\n  source: a.txt\n  evalsplit: 0.1\ntrain:\n  learning_rate: fast\n"
        "  lora:\n    rank: 8\nmodle: {}\n",
    )
    error = problems_of(file)
    found = {(p.code, p.where.rsplit(":", 1)[1], p.fix) for p in error.problems}
    assert error.exit_code == 2
    assert ("E_CONFIG_KEY", "4", "Did you mean 'eval_split'?") in found
    assert ("E_CONFIG_KEY", "9", "Did you mean 'model'?") in found
    assert {(c, line) for c, line, _ in found} >= {("E_CONFIG_VALUE", "6"), ("E_CONFIG_KEY", "8")}
    assert len(error.problems) == 4


def test_missing_required_option_is_named(tmp_path):
    (problem,) = problems_of(write(tmp_path, "prepare: {}\n")).problems
    assert problem.message == "'prepare.source' is missing."


def test_overrides_win_and_are_named_when_wrong(tmp_path):
    file = write(tmp_path, "prepare:\n  source: a.txt\n")
    config = load_config(
        file, ["train.learning_rate=2e-4", "train.lora.r=8", "export.quantization=[F16]"]
    )
    assert (config.train.learning_rate, config.train.lora.r) == (2e-4, 8)
    assert config.export.quantization == ("F16",)
    (problem,) = problems_of(file, ["train.lora.r=many"]).problems
    assert problem.where == "--set train.lora.r=many"
    assert problems_of(file, ["train"]).exit_code == 2
    assert problems_of(file, ["name.deep=1"]).problems[0].code in {"E_USAGE", "E_CONFIG_VALUE"}


def test_numbers_without_a_dot_are_numbers(tmp_path):
    file = write(tmp_path, "prepare:\n  source: a.txt\ntrain:\n  learning_rate: 2e-4\n")
    assert load_config(file).train.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "E_CONFIG_FILE"),
        ("- a\n", "E_CONFIG_FILE"),
        ("a: [1\n", "E_CONFIG_FILE"),
        ("a: &x 1\nb: *x\n", "E_CONFIG_FILE"),
        ("a: !!python/object:os.system {}\n", "E_CONFIG_FILE"),
        ("name: a\nname: b\nprepare: {source: x}\n", "E_CONFIG_KEY"),
        ("a: " + "[" * 5000, "E_CONFIG_FILE"),
    ],
)
def test_broken_files(tmp_path, text, code):
    error = problems_of(write(tmp_path, text))
    assert error.problems[0].code == code
    assert error.exit_code == 2


def test_other_faults_of_the_file(tmp_path):
    assert problems_of(tmp_path / "none.yaml").problems[0].code == "E_NOT_FOUND"
    assert problems_of("preset:nothing").problems[0].code == "E_NOT_FOUND"
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * 1_000_001)
    assert problems_of(big).problems[0].code == "E_CONFIG_FILE"
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: caf\xe9\n")
    assert problems_of(latin).problems[0].code == "E_CONFIG_FILE"


@pytest.mark.parametrize("option", ["name", "publish.agent", "publish.adapter", "publish.version"])
@pytest.mark.parametrize("name", [*ODD_NAMES, "a/b", "a" * 101, "é"])
def test_dangerous_names_are_refused(tmp_path, option, name):
    """RELIABILITY.md S6."""
    config = {"prepare": {"source": "x"}}
    section, _, key = option.rpartition(".")
    (config.setdefault(section, {}) if section else config)[key] = name
    (problem,) = problems_of(write(tmp_path, yaml.safe_dump(config))).problems
    assert problem.code == "E_CONFIG_VALUE"
    assert f"'{option}'" in problem.message
    assert "starting with a letter or digit" in problem.message + problem.fix


@given(st.text(max_size=200))
def test_no_text_causes_anything_but_our_error(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("c") / "c.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_config(file)
    except TunewrightError as error:
        assert error.exit_code == 2


def test_dump_can_be_loaded_again(tmp_path):
    config = load_config("preset:demo")
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_dotenv_is_read_and_does_not_override(tmp_path, monkeypatch):
    import os

    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TW_TEST_NEW=from_file\nTW_TEST_OLD=from_file\n")
    monkeypatch.setenv("TW_TEST_OLD", "from_shell")
    monkeypatch.setenv("TW_TEST_NEW", "x")
    monkeypatch.delenv("TW_TEST_NEW")
    read_dotenv()
    assert os.environ["TW_TEST_NEW"] == "from_file"
    assert os.environ["TW_TEST_OLD"] == "from_shell"
    monkeypatch.delenv("TW_TEST_NEW")


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid(name):
    assert isinstance(load_config(f"preset:{name}"), Config)


def sections(model: type[BaseModel]):
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation)


def test_every_option_has_a_meaning_and_every_section_is_frozen():
    for section in sections(Config):
        assert section.model_config.get("frozen")
        assert section.model_config.get("extra") == "forbid"
        assert section.__doc__
        for name, field in section.model_fields.items():
            is_section = isinstance(field.annotation, type) and issubclass(
                field.annotation, BaseModel
            )
            assert field.description or is_section, f"{section.__name__}.{name}"


def test_what_determines_a_stage_are_real_options():
    config = load_config("preset:demo")
    for kind, names in DETERMINED_BY.items():
        assert set(settings_of(config, kind)) == set(names)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@example("\x85")
@example(" \u2028 a\n\u2029")
def test_any_text_comes_back_as_it_was(text):
    assert yaml.safe_load(dumped({"a": [text], text: "b"})) == {"a": [text], text: "b"}


def test_what_blows_up_is_refused_at_once(tmp_path):
    """S8: aliases that multiply, and fifty megabytes: neither takes time or memory."""
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    texts = ("\n".join(laughs), "name: a\n" + "# much\n" * (50 * 2**20 // 7))
    for text in texts:
        (tmp_path / "c.yaml").write_text(text)
        tracemalloc.start()
        begin = time.perf_counter()
        with pytest.raises(TunewrightError) as caught:
            load_config(tmp_path / "c.yaml")
        took, (_, most) = time.perf_counter() - begin, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert caught.value.exit_code == 2
        assert took < 1
        assert most < 200 * 10**6
