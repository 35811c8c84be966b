import random
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.data._split import clusters, content_digest, hold_out

NONE = np.empty((0, 2), dtype=np.int64)

texts_ = st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=80, unique=True)
shares = st.floats(0.05, 0.9)
seeds = st.integers(0, 5)


def split(texts, groups, share=0.1, seed=0, strata=None, pairs=NONE):
    together = clusters(groups, pairs)
    return hold_out(
        together,
        [len(t) for t in texts],
        [content_digest(t) for t in texts],
        share=share,
        seed=seed,
        strata=strata,
    )


def held_texts(texts, *args, **options):
    made = split(texts, *args, **options)
    return {text for text, held in zip(texts, made.held, strict=True) if held}


def plain(count, length=20):
    return [f"{n:0{length}d}" for n in range(count)]


@given(texts_, shares, seeds, st.booleans(), st.randoms())
def test_split_does_not_depend_on_the_order_of_rows(
    texts, share, seed, stratified, shuffler: random.Random
):
    groups = [len(t) % 7 for t in texts]
    strata = [t[0] < "a" for t in texts] if stratified else None
    if len(set(groups)) < 2:
        return
    order = list(range(len(texts)))
    shuffler.shuffle(order)
    mixed = [[values[i] for i in order] for values in (texts, groups)]
    again = strata and [strata[i] for i in order]
    assert held_texts(texts, groups, share, seed, strata) == held_texts(*mixed, share, seed, again)


@given(
    texts_,
    shares,
    seeds,
    st.none() | st.lists(st.none() | st.sampled_from("abc"), min_size=80, max_size=80),
    st.lists(st.tuples(st.integers(0, 79), st.integers(0, 79)), max_size=10),
)
@settings(max_examples=300)
def test_both_sides_have_rows_and_no_cluster_is_cut(texts, share, seed, strata, pairs):
    groups = [len(t) % 9 for t in texts]
    linked = np.array([p for p in pairs if max(p) < len(texts)], dtype=np.int64).reshape(-1, 2)
    together = clusters(groups, linked)
    strata = strata and strata[: len(texts)]
    if len(set(together.tolist())) < 2:
        with pytest.raises(ValueError, match="together"):
            split(texts, groups, share, seed, strata, linked)
        return
    made = split(texts, groups, share, seed, strata, linked)
    assert 0 < made.held.sum() < len(texts)
    for name in set(together.tolist()):
        assert len(set(made.held[together == name].tolist())) == 1
    characters = np.array([len(t) for t in texts])
    assert made.share == pytest.approx(characters[made.held].sum() / characters.sum())
    if not share / 1.5 <= made.share <= share * 1.5:
        assert any("instead of" in note for note in made.notes)
    if len(texts) < 50:
        assert made.held.sum() <= len(texts) // 2
        assert any(f"only {len(texts)} rows" in note for note in made.notes)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=30),
)
def test_clusters_join_what_a_search_reaches(groups, pairs):
    pairs = [p for p in pairs if max(p) < len(groups)]
    found = clusters(groups, np.array(pairs, dtype=np.int64).reshape(-1, 2)).tolist()
    for row in range(len(groups)):
        reached, grew = {row}, True
        while grew:
            more = {r for r in range(len(groups)) if groups[r] in {groups[x] for x in reached}}
            more |= {x for p in pairs if set(p) & reached for x in p}
            grew, reached = not more <= reached, reached | more
        assert found[row] == min(reached)


def test_linked_rows_stay_together_through_others():
    pairs = np.array([[0, 1], [1, 2]])
    assert clusters(["a", "b", "c", "d"], pairs).tolist() == [0, 0, 0, 3]


def test_no_rows_no_clusters():
    assert clusters([], NONE).tolist() == []


def test_about_the_share_is_held_out():
    for seed in range(5):
        made = split(plain(100), range(100), 0.2, seed)
        assert 18 <= made.held.sum() <= 22
        assert made.notes == []


def test_another_seed_gives_another_split():
    assert len({tuple(split(plain(200), range(200), seed=s).held) for s in range(5)}) == 5


def test_one_more_row_changes_little():
    texts = plain(1000)
    before = held_texts(texts, range(1000))
    after = held_texts([*texts, "one more"], range(1001))
    assert len(before ^ after) <= 2


def test_one_large_cluster_is_not_held_out():
    texts = ["x" * 1000, *("y" * 10 + str(n) for n in range(20))]
    for seed in range(10):
        assert not split(texts, range(21), 0.1, seed).held[0]


def test_each_stratum_has_its_share():
    strata = ["noir"] * 300 + ["pastel"] * 60 + [3] * 40
    for seed in range(3):
        made = split(plain(400), range(400), 0.1, seed, strata)
        counts = [int(part.sum()) for part in np.split(made.held, [300, 360])]
        assert counts == [pytest.approx(30, abs=2), pytest.approx(6, abs=1), 4]
        assert made.notes == []


def test_strata_that_are_too_small_for_a_share_give_one_cluster_within_the_bound():
    strata = ["many"] * 200 + ["b"] * 3 + ["c"] * 3
    made = split(plain(206), range(206), 0.1, 1, strata)
    assert [int(part.sum()) for part in np.split(made.held, [200, 203])][1:] == [1, 1]


def test_a_stratum_for_nearly_every_row_does_not_hold_out_half():
    strata = [f"s{n // 2:03d}" for n in range(400)]
    made = split(plain(400), range(400), 0.1, 1, strata)
    assert made.share <= 0.15
    assert any("Nothing is held out of s" in note and ", ..." in note for note in made.notes)


def test_strata_of_one_cluster_share_their_part_with_rows_without_one():
    strata = [None] * 50 + [f"only{n}" for n in range(50)]
    made = split(plain(100), range(100), 0.1, 1, strata)
    assert made.share == pytest.approx(0.1, abs=0.01)
    assert made.notes == []


def test_a_cluster_is_of_the_stratum_of_most_of_its_rows():
    # ten clusters of three rows, each with one row of another stratum
    groups = [n // 3 for n in range(120)]
    strata = ["b" if n % 3 == 0 else "a" for n in range(120)]
    made = split(plain(120), groups, 0.1, 1, strata)
    assert made.held.sum() == 12
    assert made.notes == []


@pytest.mark.parametrize(
    ("rows", "least"), [(2, 1), (3, 1), (4, 2), (10, 2), (20, 2), (30, 3), (49, 5)]
)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.9])
def test_small_sets_hold_out_two_rows_and_a_tenth_but_never_more_than_half(rows, least, share):
    for seed in range(5):
        made = split(plain(rows), range(rows), share, seed)
        assert least <= made.held.sum() <= rows // 2
        assert f"only {rows} rows" in made.notes[0]


def test_a_small_set_of_two_uneven_clusters_holds_out_the_one_with_fewer_rows():
    texts = [*("x" * n for n in range(1, 8)), "y" * 500]
    made = split(texts, [0] * 7 + [1])
    assert made.held.tolist() == [False] * 7 + [True]
    assert any("instead of 10%" in note for note in made.notes)


def test_large_clusters_are_told():
    made = split(plain(100), [n // 40 for n in range(100)], 0.05)
    assert made.share == pytest.approx(0.2)
    assert made.notes == [
        "20% of the text is held out instead of 5%: rows that belong together make large clusters."
    ]


def test_digests_are_fixed_numbers():
    assert content_digest("abc") == content_digest("abc") != content_digest("abd")
    assert content_digest("") == int.from_bytes(bytes.fromhex("e4a6a0577479b2b4"), "little")
    assert content_digest("\ud800") < 2**64


def test_rows_of_equal_content_count_as_often_as_they_occur():
    made = split(["same"] * 100, range(100), 0.2)
    assert 19 <= made.held.sum() <= 21


@pytest.mark.slow
def test_a_million_rows_in_seconds():
    rng = np.random.default_rng(1)
    rows = 1_000_000
    groups = rng.integers(0, 700_000, rows)
    pairs = np.sort(rng.integers(0, rows, (100_000, 2)), axis=1)
    lengths, digests = rng.integers(100, 500, rows), rng.integers(0, 2**63, rows).astype("u8")
    start = time.process_time()
    together = clusters(groups, pairs)
    made = hold_out(together, lengths, digests, share=0.1, seed=1)
    assert time.process_time() - start < 10
    assert 0.09 < made.share < 0.11
    tracemalloc.start()
    hold_out(clusters(groups, pairs), lengths, digests, share=0.1, seed=1)
    assert tracemalloc.get_traced_memory()[1] < 150e6
    tracemalloc.stop()
