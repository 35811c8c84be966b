import random
import time

from hypothesis import given
from hypothesis import strategies as st

from tunewright.evaluate.memorisation import GRAM_WORDS, Span, is_copied, overlap
from tunewright.evaluate.style import words_of

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


def _whole(text, training):
    """Every (first, last) whose words are in the training text, and no longer run's around them."""
    words = text.split()
    known = {
        tuple(other[i:j])
        for other in map(str.split, training)
        for i in range(len(other))
        for j in range(i + GRAM_WORDS, len(other) + 1)
    }
    runs = [
        (i, j - 1)
        for i in range(len(words))
        for j in range(i + GRAM_WORDS, len(words) + 1)
        if tuple(words[i:j]) in known
    ]
    return [
        run
        for run in runs
        if not any(a <= run[0] and run[1] <= b and (a, b) != run for a, b in runs)
    ]


@given(_texts, _texts)
def test_spans_against_brute_force(texts, training):
    result = overlap(texts, [(str(i), text) for i, text in enumerate(training)])
    for text, spans in zip(texts, result.spans, strict=True):
        taken = set()
        for first, last in sorted(_whole(text, training), key=lambda run: run[0] - run[1]):
            left = set(range(first, last + 1)) - taken
            taken |= left if len(left) >= GRAM_WORDS else set()
        shown = set()
        for span in spans:
            copied = text[span.start : span.end]
            first = len(text[: span.start].split())
            assert f" {copied} " in f" {training[int(span.source)]} "
            assert f" {copied} " in f" {text} "
            assert span.words == len(copied.split()) >= GRAM_WORDS
            assert not shown & set(range(first, first + span.words))
            shown |= set(range(first, first + span.words))
        assert shown == taken
        assert list(spans) == sorted(spans, key=lambda span: span.start)
    assert max((s.words for row in result.spans for s in row), default=0) == (
        result.longest.words if result.longest.words >= GRAM_WORDS else 0
    )


_MARKS = st.sampled_from([" ", "\r\n", "\u00a0", " -- ", "... ", "\u201d, \u201c", "-", "*, _"])
_SPELLED = st.sampled_from(["{}", "*{}*", "_{}", "\u00ad{}", "\u2018{}\u2019", "({})"])
_WORDS = [*(f"w{i}" for i in range(12)), "don't", "O'Neill", "İzmir"]


@given(
    st.lists(st.tuples(_SPELLED, _MARKS), min_size=len(_WORDS), max_size=len(_WORDS)),
    st.integers(1, 3),
)
def test_spans_point_into_the_text_as_it_is_given(decorations, inside):
    def spelled(word):
        word = word.replace("'", "\u2019")
        return f"{word[:inside]}\u00ad{word[inside:]}" if len(word) > inside else word

    copied = "".join(
        d.format(spelled(w)) + mark for w, (d, mark) in zip(_WORDS, decorations, strict=True)
    )
    text = f"Mine, all mine: {copied}- and mine again."
    result = overlap(["Nothing.", text], [("a.txt", "Else."), ("b.txt", " ".join(_WORDS))])
    assert result.spans[0] == ()
    [span] = result.spans[1]
    assert (span.words, span.source) == (len(_WORDS), "b.txt")
    assert words_of(text[span.start : span.end]) == [w.lower() for w in _WORDS]
    assert text[span.start] in "wW"
    assert text[span.end - 1] == "r"


def test_of_overlapping_copies_the_longest_is_whole():
    words = [f"w{i}" for i in range(30)]
    training = [("short", " ".join(words[:14])), ("long", " ".join(words[5:30]))]
    text = " ".join(words)
    assert overlap([text], training).spans == (
        (Span(25, len("w0 w1 w2 w3 w4 "), len(text), "long"),),
    )
    training[0] = ("short", " ".join(words[:13]))
    training[1] = ("long", " ".join(words[8:30]))
    first, second = overlap([text], training).spans[0]
    assert (first.words, first.source, text[first.start : first.end]) == (
        *(GRAM_WORDS, "short"),
        " ".join(words[:8]),
    )
    assert (second.words, second.source, second.end) == (22, "long", len(text))


def test_short_runs_and_empty_texts_have_no_spans():
    training = [("x", "a b c d e f g"), ("y", "")]
    assert overlap(["a b c d e f g", "", "...!"], training).spans == ((), (), ())
    assert overlap(["a b c d e f g h"], []).spans == ((),)
    assert overlap([], training).spans == ()


def test_a_megabyte_takes_seconds_and_finds_what_is_planted():
    rng = random.Random(1)
    vocabulary = [f"w{i}" for i in range(5000)]
    training = [(str(n), " ".join(rng.choices(vocabulary, k=400))) for n in range(500)]
    answers = [" ".join(rng.choices(vocabulary, k=120)) for _ in range(60)]
    planted = [words_of(training[n * 8][1])[100:140] for n in range(60)]
    answers = [f"{a} -- {' '.join(p)}!" for a, p in zip(answers, planted, strict=True)]
    assert sum(len(text) for _, text in training) > 1_000_000
    began = time.process_time()
    result = overlap(answers, training)
    assert time.process_time() - began < 10
    for number, (answer, [span]) in enumerate(zip(answers, result.spans, strict=True)):
        assert span.source == str(number * 8)
        assert words_of(answer[span.start : span.end])[-40:] == planted[number]
