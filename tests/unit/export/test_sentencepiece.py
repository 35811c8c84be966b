import copy
import json
import string
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import HARD_TEXTS, sentencepiece
from tokenizers import Tokenizer, processors
from tokenizers.models import BPE

from tunewright.errors import TunewrightError
from tunewright.export._vocabulary import as_written, gguf_tokenizer
from tunewright.export.sentencepiece import BYTES, SPACE, is_sentencepiece, pieces_of

FORMS = {"legacy": "always", "always": "always", "first": "first", "never": "never"}


@pytest.fixture(scope="module")
def definitions():
    return {form: json.loads(sentencepiece(form).backend_tokenizer.to_str()) for form in FORMS}


@pytest.fixture
def definition(definitions):
    return copy.deepcopy(definitions["legacy"])


def cut(text, scores):
    """Cut a text as llama.cpp does: join the neighbours whose joint piece has the highest score, left first."""
    parts = list(text)
    while True:
        pairs = [
            (scores[left + right], -at)
            for at, (left, right) in enumerate(pairwise(parts))
            if left + right in scores
        ]
        if not pairs:
            return parts
        at = -max(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_recognised(definitions, form):
    assert is_sentencepiece(definitions[form])
    assert pieces_of(definitions[form]).prefix == FORMS[form]
    assert pieces_of(definitions[form]).unknown == "<unk>"


def test_byte_level_bpe_is_another_kind():
    assert not is_sentencepiece({"model": {"type": "BPE", "byte_fallback": False}})


def test_joining_by_score_gives_the_tokens_of_joining_by_list(definition):
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    scores = pieces_of(definition).scores
    checked = 0
    for text in HARD_TEXTS:
        parts = cut(SPACE + text.replace(" ", SPACE) if text else "", scores)
        known = [part for part in parts if part in definition["model"]["vocab"]]
        if known == parts and "<" not in text:
            checked += 1
            assert tokenizer.encode(text, add_special_tokens=False).tokens == parts
    assert checked > 20


pieces = st.lists(st.text("ab", min_size=2, max_size=4), unique=True, min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(pieces, st.text("abc", max_size=12))
def test_any_vocabulary_that_is_taken_is_cut_alike(joined, text):
    vocab = {t: i for i, t in enumerate([*BYTES, *joined, "a", "b", "c"])}
    merges = [(p[:n], p[n:]) for p in joined for n in range(1, len(p))]
    merges = [pair for pair in merges if all(part in vocab for part in pair)]
    definition = {
        "model": {"type": "BPE", "byte_fallback": True, "vocab": vocab, "merges": merges},
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": SPACE,
            "prepend_scheme": "never",
            "split": False,
        },
    }
    scores = pieces_of(definition).scores
    made = {left + right for left, right in merges}
    overlapping = any(a + b == b + c for a, b in merges for b2, c in merges if b2 == b)
    plain = Tokenizer(BPE(vocab, merges)).encode(text).tokens
    if not overlapping and all(p in made for p in joined):
        assert cut(text, scores) == plain


def unigram(d):
    d["model"] = {"type": "Unigram", "vocab": [["<unk>", 0.0]]}


def fewer_bytes(d):
    del d["model"]["vocab"]["<0x0A>"]


def pair_left_out(d):
    d["model"]["merges"] = d["model"]["merges"][1:]


def pairs_apart(d):
    merges = d["model"]["merges"]
    made = ["".join(pair) for pair in merges]
    first = next(n for n, piece in enumerate(made) if made.count(piece) > 1)
    merges.append(merges.pop(first))


def lowercased(d):
    d["normalizer"]["normalizers"].append({"type": "Lowercase"})


def words_apart(d):
    d["normalizer"] = None
    d["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "always",
        "split": True,
    }
    d["model"]["vocab"][SPACE * 2] = 10_000
    d["model"]["merges"].append([SPACE, SPACE])


def other_sign(d):
    d["normalizer"] = None
    d["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "_",
        "prepend_scheme": "always",
        "split": False,
    }


def dropout(d):
    d["model"]["dropout"] = 0.5


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (unigram, "Unigram"),
        (fewer_bytes, "1 of the 256 bytes"),
        (pair_left_out, "would join"),
        (pairs_apart, "have others between them"),
        (lowercased, "normalizer is Sequence"),
        (words_apart, "pre-tokenizer Metaspace"),
        (other_sign, "pre-tokenizer Metaspace"),
        (dropout, "dropout"),
    ],
)
def test_what_llama_cpp_would_cut_otherwise_is_refused(definition, change, word):
    change(definition)
    with pytest.raises(TunewrightError) as caught:
        pieces_of(definition)
    (problem,) = caught.value.problems
    assert problem.code == "E_MODEL"
    assert word in problem.message
    assert "--set export.llama_cpp=DIR" in problem.fix


def test_words_apart_make_no_difference_without_pieces_over_a_space(definition):
    merges = [pair for pair in definition["model"]["merges"] if SPACE not in "".join(pair)[1:]]
    kept = {"".join(pair) for pair in merges}
    vocab = definition["model"]["vocab"]
    for text in [t for t in vocab if len(t) > 1 and t not in kept and not t.startswith("<")]:
        del vocab[text]
    definition["model"]["merges"] = merges
    definition["normalizer"] = None
    definition["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "always",
        "split": True,
    }
    assert pieces_of(definition).prefix == "always"


def test_types_and_scores_of_pieces():
    tokenizer = sentencepiece("legacy")
    tokenizer.add_tokens([f"my{SPACE}word"])
    packed = gguf_tokenizer(tokenizer, 1100)
    assert (packed.model, packed.pretokenizer, packed.merges) == ("llama", "default", [])
    assert packed.types[:4] == [2, 3, 3, 6]
    assert packed.tokens[3] == "<0x00>"
    assert packed.scores[259] == 0.0
    assert packed.scores[260] == -1.0
    assert packed.tokens[1024] == "my word"
    assert (packed.types[1024], packed.scores[1024]) == (4, -1000.0)
    assert packed.tokens[1025] == "[PAD1025]"
    assert (packed.types[1025], packed.scores[1025]) == (5, -10000.0)
    assert packed.special == {"bos": 1, "eos": 2, "unk": 0, "pad": 2}
    assert (packed.adds_bos, packed.adds_eos, packed.adds_space) == (True, False, True)


def test_a_text_that_begins_with_letters_needs_the_space():
    tokenizer = sentencepiece("first")
    tokenizer.chat_template = "{% for m in messages %}User: {{ m.content }}{% endfor %}"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B", special_tokens=[("</s>", 2)]
    )
    packed = gguf_tokenizer(tokenizer, 1100)
    assert packed.adds_space is True
    assert (packed.adds_bos, packed.adds_eos) == (False, True)
    assert "after special tokens" in packed.notes[0]


def test_the_reference_is_a_copy():
    tokenizer = sentencepiece("first")
    packed = gguf_tokenizer(tokenizer, 1100)
    other = as_written(tokenizer, packed)
    assert packed.adds_space is False
    word = string.ascii_lowercase[:5]
    assert other.tokenize(word) != tokenizer.tokenize(word)
    assert tokenizer.tokenize(word)[0].startswith(SPACE)
    assert as_written(sentencepiece("legacy"), packed).backend_tokenizer.normalizer is not None
