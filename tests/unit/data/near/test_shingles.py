import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.near._shingles import Shingler, words_of


def grams(text: str) -> set[tuple[str, ...]]:
    words = tuple(words_of(text))
    return {words[n : n + 5] for n in range(max(1, len(words) - 4))}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop, NOW!", ["don", "t", "stop", "now"]),
        ("Straße 5", ["strasse", "5"]),
        ("我喜欢你。", ["我", "喜", "欢", "你"]),
        ("GPT 是模型", ["gpt", "是", "模", "型"]),
        ("ネコ cat", ["ネ", "コ", "cat"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("cafe\u0301", ["café"]),
        ("😀 🎉", ["😀", "🎉"]),
        ("  \n", []),
    ],
)
def test_words_in_any_script(text, words):
    assert list(words_of(text)) == words


def test_thai_is_cut_into_characters():
    assert list(words_of("ภาษาไทย")) == list("ภาษาไทย")


def test_long_texts_give_the_same_words():
    text = "eins Zwei, drei. " * 10_000
    assert list(words_of(text)) == ["eins", "zwei", "drei"] * 10_000


@given(st.lists(st.text(alphabet="ab 我。x", max_size=40), min_size=1, max_size=12))
def test_hashes_agree_where_shingles_agree(texts):
    shingled = Shingler()(texts)
    ends = [*shingled.starts[1:].tolist(), len(shingled.hashes)]
    sets = [
        set(shingled.hashes[a:b].tolist())
        for a, b in zip(shingled.starts.tolist(), ends, strict=True)
    ]
    for text, found in zip(texts, sets, strict=True):
        assert len(found) == len(grams(text))
        for other, others in zip(texts, sets, strict=True):
            assert len(found & others) == len(grams(text) & grams(other))


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_digests_are_equal_where_the_words_are(texts):
    digests = Shingler()(texts).digests.tolist()
    words = [list(words_of(text)) for text in texts]
    for i in range(len(texts)):
        for j in range(len(texts)):
            assert (digests[i] == digests[j]) == (words[i] == words[j])


def test_a_batch_gives_what_single_texts_give():
    texts = ["one", "", "a b c d e f g", "word " * 30, "\ud800 lone", "x y z w v"]
    together, alone = Shingler()(texts), [Shingler()([text]) for text in texts]
    assert np.array_equal(together.hashes, np.concatenate([one.hashes for one in alone]))
    assert np.array_equal(together.digests, np.concatenate([one.digests for one in alone]))


def test_hashes_do_not_depend_on_the_process():
    code = (
        "from tunewright.data.near._shingles import Shingler;"
        "print(Shingler()(['a b c d e f 我们', 'x']).hashes.tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
