import copy
import json
from importlib import resources

import pytest
from small_models import byte_level, split_by, write_model
from tokenizers import Regex, pre_tokenizers
from transformers import AutoConfig

from tunewright.errors import TunewrightError
from tunewright.export import pretokenizer
from tunewright.export._gguf import gguf_tokenizer, write_gguf
from tunewright.export._parity import compare_tokens, hard_texts
from tunewright.export.architecture import shape_of
from tunewright.export.pretokenizer import (
    GPT2,
    GPT4O,
    LLAMA3,
    NUMBER,
    QWEN2,
    TEKKEN,
    pretokenizer_of,
)
from tunewright.models._llama import endpoint
from tunewright.models._tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny():
    file = resources.files("tunewright.models") / "assets" / "tiny" / "tokenizer.json"
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def definition(tiny):
    return copy.deepcopy(tiny)


def set_pattern(definition, pattern):
    definition["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern


def steps_of(patterns):
    """Return the steps of a tokenizer.json that split by patterns, as such tokenizers write them."""
    if patterns[-1] != GPT2:
        return split_by(*patterns)
    digits = [pre_tokenizers.Digits(individual_digits=True) for _ in patterns[:-1]]
    return [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]


def differing(folder, patterns, *, whole_words):
    """Return llama.cpp's name of a tokenizer trained with patterns, and texts that it cuts otherwise."""
    tokenizer = byte_level(steps_of(patterns), whole_words=whole_words)
    write_model(folder, "llama", tokenizer, num_hidden_layers=1)
    loaded = load_tokenizer(folder)
    shape = shape_of(AutoConfig.from_pretrained(folder).to_dict())
    packed = gguf_tokenizer(loaded, shape.vocabulary)
    file = folder / "m.gguf"
    write_gguf(
        file,
        model=folder,
        shape=shape,
        tokenizer=packed,
        type_name="F16",
        advanced=lambda done, name: None,
    )
    with endpoint(file, ctx=64) as url:
        found = compare_tokens(url, loaded, hard_texts(loaded))
    assert found.compared > 100
    return packed.pretokenizer, found.differing


@pytest.mark.parametrize("known", pretokenizer.NAMES, ids=pretokenizer.NAMES.get)
def test_a_known_definition_cuts_as_llama_cpp_does(tmp_path, known):
    patterns, whole_words = known
    name, others = differing(tmp_path / "m", patterns, whole_words=whole_words)
    assert name == pretokenizer.NAMES[known]
    assert others == []


@pytest.mark.parametrize("known", pretokenizer.INEXACT, ids=pretokenizer.INEXACT.get)
def test_what_llama_cpp_only_nearly_does(tmp_path, monkeypatch, known):
    monkeypatch.setattr(pretokenizer, "NAMES", pretokenizer.INEXACT)
    _, others = differing(tmp_path / "m", known[0], whole_words=known[1])
    assert "café naïve" in " ".join(others).replace("e\u0301", "é").replace("i\u0308", "ï")


@pytest.mark.parametrize(("pattern", "whole_words"), [(TEKKEN, True), (GPT4O, False)])
def test_and_is_refused_by_its_name(definition, pattern, whole_words):
    set_pattern(definition, pattern)
    definition["model"]["ignore_merges"] = whole_words
    with pytest.raises(TunewrightError, match="combining marks"):
        pretokenizer_of(definition)


def test_plain_byte_level_is_gpt2(definition):
    definition["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False}
    definition["normalizer"] = None
    assert pretokenizer_of(definition) == "gpt-2"


@pytest.mark.parametrize(
    "same",
    [
        QWEN2.replace(
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
            "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
        ),
        QWEN2.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)"),
        QWEN2.replace(r"\p{N}]?\p", r"\p{N}]?+\p").replace(r"\p{N}]+[\r", r"\p{N}]++[\r"),
    ],
)
def test_another_spelling_of_the_same_is_recognised(definition, tiny, same):
    assert same != QWEN2
    set_pattern(definition, same)
    assert pretokenizer_of(definition) == "qwen2"
    text = "I'LL say: it's 123 4x\n\n  \tdon't_do... \u00e9t\u00e9!\r\n"
    one, other = (pre_tokenizers.Split(Regex(p), "isolated") for p in (QWEN2, same))
    assert one.pre_tokenize_str(text) == other.pre_tokenize_str(text)


def test_matches_kept_and_the_rest_removed_is_the_same(definition):
    definition["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    assert pretokenizer_of(definition) == "qwen2"


def byte_fallback(d):
    d["model"]["byte_fallback"] = True


def lowercase(d):
    d["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}


def other_pattern(d):
    set_pattern(d, QWEN2 + "|x")


def qwen_with_whole_words(d):
    d["model"]["ignore_merges"] = True


def prefix_space(d):
    d["pre_tokenizer"]["pretokenizers"][-1]["add_prefix_space"] = True


def removed(d):
    d["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"


def digits(d):
    d["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Digits", "individual_digits": True})


def punctuation(d):
    d["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Punctuation", "behavior": "Isolated"})


def none(d):
    d["pre_tokenizer"] = None


def dropout(d):
    d["model"]["dropout"] = 0.1


def missing_byte(d):
    del d["model"]["vocab"]["Ġ"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (byte_fallback, "not byte-level BPE"),
        (lowercase, "Sequence"),
        (other_pattern, "|x"),
        (qwen_with_whole_words, "takes words that are tokens whole"),
        (prefix_space, "space before"),
        (removed, "Split"),
        (digits, repr(NUMBER)),
        (punctuation, "Punctuation"),
        (none, "byte level"),
        (dropout, "dropout"),
        (missing_byte, "1 of the 256 bytes"),
    ],
)
def test_what_llama_cpp_would_do_otherwise_is_refused(definition, change, word):
    change(definition)
    with pytest.raises(TunewrightError) as caught:
        pretokenizer_of(definition)
    (problem,) = caught.value.problems
    assert problem.code == "E_MODEL"
    assert word in problem.message
    assert "--until merge" in problem.fix
    assert "--set export.llama_cpp=DIR" in problem.fix


def test_the_patterns_are_different():
    assert len({QWEN2, LLAMA3, *(p for steps, _ in pretokenizer.NAMES for p in steps)}) > 10
