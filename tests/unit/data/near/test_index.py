import random
import time
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from tunewright.data.near import _candidates, _index
from tunewright.data.near._index import NearIndex
from tunewright.data.near._shingles import words_of
from tunewright.data.near.union import Union

VOCABULARY = [f"word{n}" for n in range(500)]


@cache
def grams(text: str) -> frozenset[tuple[str, ...]]:
    words = tuple(words_of(text))
    return frozenset(words[n : n + 5] for n in range(max(1, len(words) - 4)))


def jaccard(one: str, other: str) -> float:
    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


def edited(rng: random.Random, text: str, edits: int) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), edits):
        words[place] = f"edit{rng.getrandbits(40)}"
    return " ".join(words)


def search(folder, texts, threshold, **options):
    with NearIndex(folder, threshold) as index:
        index.add_many(texts)
        copies = index.copies()
        near = list(index.near(texts.__getitem__, copies, **options))
        return copies, near


def joined(rows, pairs):
    union = Union(rows)
    for i, j in pairs:
        union.join(int(i), int(j))
    return [union.first(row) for row in range(rows)]


def planted(seed: int, rows: int) -> list[str]:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(VOCABULARY, k=rng.randrange(3, 80))) for _ in range(rows)]
    for _ in range(rows // 2):
        text = rng.choice(texts[:rows])
        text = edited(rng, text, min(len(text.split()), rng.randrange(4)))
        texts.append(f"{text} more" if rng.random() < 0.5 else text)
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
def test_pairs_are_those_of_a_full_comparison(tmp_path, threshold):
    texts = planted(3, 200)
    true = {
        (i, j)
        for i, j in combinations(range(len(texts)), 2)
        if jaccard(texts[i], texts[j]) >= threshold
    }
    copies, near = search(tmp_path, texts, threshold)
    links = [tuple(map(int, pair)) for pair in (*copies.exact, *copies.words)]
    assert {*links, *near} <= true
    assert all(i < j for i, j in near)
    assert len(near) == len(set(near)) >= (5 if threshold < 1 else 0)
    assert joined(len(texts), [*links, *near]) == joined(len(texts), true)
    kept = {(i, j) for i, j in true if not copies.collapsed[i] and not copies.collapsed[j]}
    missed = kept - set(near)
    assert all(jaccard(texts[i], texts[j]) < threshold + 0.05 for i, j in missed)
    assert len(missed) <= 0.01 * len(kept)


def test_recall_and_precision_on_planted_pairs(tmp_path):
    rng = random.Random(5)
    texts, pairs = [], []
    for number in range(1000):
        texts.append(" ".join(rng.choices(VOCABULARY, k=60)))
        texts.append(edited(rng, texts[-1], number % 4))
        pairs.append((2 * number, 2 * number + 1))
    true = {p for p in pairs if jaccard(texts[p[0]], texts[p[1]]) >= 0.8}
    copies, near = search(tmp_path, texts, 0.8)
    found = {*near, *((int(i), int(j)) for i, j in (*copies.exact, *copies.words))}
    assert len(true) > 450
    assert len(found & true) / len(true) >= 0.99
    assert all(jaccard(texts[i], texts[j]) >= 0.8 for i, j in found)


def test_copies_tell_characters_from_words(tmp_path):
    texts = ["A b c", "x", "a, b c", "A b c", "x", "a, b c", "", " "]
    copies, near = search(tmp_path, texts, 0.8)
    assert sorted(map(tuple, copies.exact.tolist())) == [(0, 3), (1, 4), (2, 5)]
    assert sorted(map(tuple, copies.words.tolist())) == [(0, 2), (6, 7)]
    assert np.flatnonzero(copies.collapsed).tolist() == [2, 3, 4, 5, 7]
    assert near == []


def test_each_side_of_a_border_has_its_own_first_row(tmp_path):
    texts = ["one", "two", "one", "One!", "one", "two"]
    with NearIndex(tmp_path, 0.8) as index:
        index.add_many(texts)
        copies = index.copies(border=3)
    assert copies.exact.tolist() == [[0, 2]]
    assert sorted(map(tuple, copies.exact_across.tolist())) == [(0, 4), (1, 5)]
    assert copies.words.tolist() == [[3, 4]]
    assert sorted(map(tuple, copies.words_across.tolist())) == [(0, 3), (1, 5)]
    assert np.flatnonzero(copies.collapsed).tolist() == [2, 4]


@pytest.mark.parametrize(
    "text", ["我们今天去公园散步看到很多美丽的花朵", "ภาษาไทยเป็นภาษาที่สวยงามมาก" * 2]
)
def test_scripts_without_spaces(tmp_path, text):
    texts = [text * 2 + "a", text * 2 + "b", text[::-1] * 2]
    assert search(tmp_path, texts, 0.8)[1] == [(0, 1)]


def test_rows_that_share_a_template_are_not_copies(tmp_path):
    rng = random.Random(7)
    template = " ".join(rng.choices(VOCABULARY, k=40))
    texts = [f"{template} {' '.join(rng.choices(VOCABULARY, k=20))}" for _ in range(3000)]
    texts += [edited(rng, text, 1) for text in texts[:100]]
    true = {(n, 3000 + n) for n in range(100) if jaccard(texts[n], texts[3000 + n]) >= 0.8}
    start = time.process_time()
    _, near = search(tmp_path, texts, 0.8)
    assert time.process_time() - start < 5
    assert len(set(near) & true) >= 0.97 * len(true) > 50
    assert all(jaccard(texts[i], texts[j]) >= 0.8 for i, j in near)


def test_a_large_family_of_near_copies_is_one_cluster_with_few_comparisons(tmp_path, monkeypatch):
    # every row is near to the first, in buckets far over the size where all pairs are compared
    monkeypatch.setattr(_candidates, "ROWS_AT_ONCE", 256)
    rng = random.Random(8)
    base = " ".join(rng.choices(VOCABULARY, k=120))
    texts = [base, *(edited(rng, base, 1) for _ in range(1500))]
    union, asked = Union(len(texts)), 0

    def wanted(i, j):
        nonlocal asked
        asked += 1
        return union.first(i) != union.first(j)

    with NearIndex(tmp_path, 0.8) as index:
        index.add_many(texts)
        for i, j in index.near(texts.__getitem__, index.copies(), wanted):
            union.join(i, j)
    assert {union.first(row) for row in range(len(texts))} == {0}
    assert asked < 100 * len(texts)


def test_fifty_thousand_identical_rows(tmp_path):
    texts = ["The same row, of a few words, again and again and again."] * 50_000
    start = time.process_time()
    copies, near = search(tmp_path, texts, 0.8)
    assert time.process_time() - start < 3
    assert len(copies.exact) == 49_999
    assert near == []


def test_the_folder_is_left_empty(tmp_path):
    search(tmp_path, planted(1, 20), 0.8)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), NearIndex(tmp_path, 0.8) as index:
        index.add_many(["a"])
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_no_rows_no_pairs(tmp_path):
    copies, near = search(tmp_path, [], 0.8)
    assert near == []
    assert len(copies.exact) == len(copies.collapsed) == 0


def test_batches_do_not_matter(tmp_path, monkeypatch):
    texts = planted(4, 100)
    _, whole = search(tmp_path, texts, 0.8)
    monkeypatch.setattr(_index, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(_index, "CACHED_SHINGLES", 10)
    _, small = search(tmp_path, texts, 0.8)
    assert whole == small
