import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data._near import near_pairs
from tunewright.data.split import clusters, hold_out

texts_ = st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=30, unique=True)


@given(texts_, st.floats(0.05, 0.9), st.integers(0, 5), st.randoms())
def test_split_does_not_depend_on_the_order_of_rows(texts, share, seed, shuffler: random.Random):
    groups = [len(t) % 7 for t in texts]
    order = list(range(len(texts)))
    shuffler.shuffle(order)
    together = clusters(groups, [])
    if len(together) < 2:
        return
    held = {texts[i] for i in hold_out(together, texts, share, seed)}
    mixed = [texts[i] for i in order]
    again = hold_out(clusters([groups[i] for i in order], []), mixed, share, seed)
    assert held == {mixed[i] for i in again}


@given(texts_, st.floats(0.05, 0.9), st.integers(0, 5))
def test_both_sides_have_rows_and_no_group_is_cut(texts, share, seed):
    groups = [len(t) % 5 for t in texts]
    together = clusters(groups, [])
    if len(together) < 2:
        with pytest.raises(ValueError, match="together"):
            hold_out(together, texts, share, seed)
        return
    held = hold_out(together, texts, share, seed)
    assert 0 < len(held) < len(texts)
    for members in together:
        assert set(members) <= held or not set(members) & held


def test_linked_rows_stay_together_through_others():
    assert sorted(map(sorted, clusters(["a", "b", "c", "d"], [(0, 1), (1, 2)]))) == [[0, 1, 2], [3]]


def test_about_the_share_is_held_out():
    texts = [f"text number {n} of a hundred" for n in range(100)]
    held = hold_out(clusters(range(100), []), texts, 0.2, 1)
    assert 18 <= len(held) <= 22


def test_one_large_cluster_is_not_held_out():
    texts = ["x" * 1000, *("y" * 10 + str(n) for n in range(20))]
    for seed in range(10):
        assert 0 not in hold_out(clusters(range(21), []), texts, 0.1, seed)


def jaccard(one: str, other: str) -> float:
    def grams(text):
        w = text.lower().split()
        return {" ".join(w[i : i + 5]) for i in range(len(w) - 4)}

    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


def test_near_pairs_are_those_of_a_full_comparison():
    rng = random.Random(3)
    vocabulary = [f"w{n}" for n in range(200)]
    texts = [" ".join(rng.choices(vocabulary, k=60)) for _ in range(30)]
    for n in range(10):
        copied = texts[n].split()
        copied[rng.randrange(60)] = "changed"
        texts.append(" ".join(copied))
    expected = {
        (i, j) for j in range(len(texts)) for i in range(j) if jaccard(texts[i], texts[j]) >= 0.8
    }
    assert len(expected) >= 8
    assert set(near_pairs(texts, 0.8)) == expected
