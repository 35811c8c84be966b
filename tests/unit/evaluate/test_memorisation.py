import time

from hypothesis import given
from hypothesis import strategies as st

from tunewright.evaluate.memorisation import GRAM_WORDS, is_copied, overlap

_texts = st.lists(st.lists(st.sampled_from("abc"), max_size=25).map(" ".join), max_size=4)


def _grams(text, n):
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _longest(text, training):
    return max(
        (
            n
            for n in range(1, len(text.split()) + 1)
            if set(_grams(text, n)) & {g for other in training for g in _grams(other, n)}
        ),
        default=0,
    )


@given(_texts, _texts)
def test_against_brute_force(texts, training):
    result = overlap(texts, [(str(i), text) for i, text in enumerate(training)])
    assert result.runs == tuple(_longest(text, training) for text in texts)
    known = {g for text in training for g in _grams(text, GRAM_WORDS)}
    per_text = [[g in known for g in _grams(text, GRAM_WORDS)] for text in texts]
    assert result.shares == tuple(sum(row) / len(row) if row else 0 for row in per_text)
    assert result.grams == sum(map(len, per_text))
    assert result.share == (sum(map(sum, per_text)) / result.grams if result.grams else 0)
    longest = result.longest
    assert longest.words == max(result.runs, default=0)
    if longest.words:
        assert len(longest.text.split()) == longest.words
        assert f" {longest.text} " in f" {training[int(longest.source)]} "
        assert f" {longest.text} " in f" {texts[longest.index]} "


def test_case_and_punctuation_do_not_hide_a_copy():
    result = overlap(
        ["Nothing here.", "He said: The lift -- it is STUCK, again!"],
        [("a.txt", "the lift"), ("b.txt", "Well. The lift, it is stuck. Again? No.")],
    )
    assert result.longest.text == "The lift—it is STUCK, again"
    assert (result.longest.words, result.longest.source, result.longest.index) == (6, "b.txt", 1)


def test_a_run_does_not_cross_texts():
    result = overlap(["a b c", "d e f"], [("x", "a b c d e f")])
    assert result.runs == (3, 3)
    assert overlap(["a b c d"], [("x", "a b"), ("y", "c d")]).runs == (2,)


def test_a_copy_is_a_long_run_or_mostly_known():
    words = [f"w{i}" for i in range(40)]
    result = overlap([" ".join([*words[:20], *"pqrstuvxyz"])], [("x", " ".join(words))])
    assert is_copied(result, 0, 19)
    assert is_copied(result, 0, 25) == (result.shares[0] > 0.5)
    half = overlap([" ".join([*words[:10], *"abcdefghijkl"])], [("x", " ".join(words))])
    assert not is_copied(half, 0, 10)


def test_a_million_words_take_seconds():
    training = [(str(n), " ".join(str((n * i) % 977) for i in range(1000))) for n in range(500)]
    answers = [text for _, text in training[:40]]
    began = time.perf_counter()
    assert overlap(answers, training).share == 1
    assert time.perf_counter() - began < 20
