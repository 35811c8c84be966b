import copy
import json
from importlib import resources

import pytest

from tunewright.errors import TunewrightError
from tunewright.export.pretokenizer import GPT2, LLAMA3, QWEN2, pretokenizer_of


@pytest.fixture
def definition():
    file = resources.files("tunewright.models") / "assets" / "tiny" / "tokenizer.json"
    return copy.deepcopy(json.loads(file.read_text(encoding="utf-8")))


def set_pattern(definition, pattern):
    definition["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern


@pytest.mark.parametrize(
    ("pattern", "whole_words", "name"),
    [
        (QWEN2, False, "qwen2"),
        (LLAMA3, True, "llama-bpe"),
        (LLAMA3, False, "smaug-bpe"),
        (GPT2, False, "gpt-2"),
    ],
)
def test_a_known_definition_is_recognised(definition, pattern, whole_words, name):
    set_pattern(definition, pattern)
    definition["model"]["ignore_merges"] = whole_words
    assert pretokenizer_of(definition) == name


def test_plain_byte_level_is_gpt2(definition):
    definition["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False}
    definition["normalizer"] = None
    assert pretokenizer_of(definition) == "gpt-2"


def unigram(d):
    d["model"] = {"type": "Unigram"}


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


def none(d):
    d["pre_tokenizer"] = None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (unigram, "Unigram"),
        (byte_fallback, "byte-level BPE"),
        (lowercase, "Sequence"),
        (other_pattern, "|x"),
        (qwen_with_whole_words, "splits by"),
        (prefix_space, "pre-tokenizer"),
        (removed, "pre-tokenizer"),
        (digits, "pre-tokenizer"),
        (none, "pre-tokenizer"),
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
