import random
import subprocess
import sys
from functools import cache
from itertools import combinations

import pytest

from tunewright.data.near._links import ANSWER, EXACT, NEAR, WORDS, against, links
from tunewright.data.near._shingles import words_of
from tunewright.data.near.union import Union

VOCABULARY = [f"word{n}" for n in range(300)]


def say(rng, words):
    return " ".join(rng.choices(VOCABULARY, k=words))


def grams(text):
    words = tuple(words_of(text))
    return frozenset(words[n : n + 5] for n in range(max(1, len(words) - 4)))


def near(one, other):
    return len(one & other) >= 0.8 * len(one | other)


@cache
def case(seed, rows=250):
    """Rows, and all pairs of them that a full comparison finds."""
    made = planted(seed, rows)
    sets = [
        (grams(whole), grams(answer) if len(answer.split()) >= 20 else None)
        for whole, answer in made
    ]
    pairs = [
        (i, j)
        for (i, one), (j, other) in combinations(enumerate(sets), 2)
        if near(one[0], other[0]) or (one[1] and other[1] and near(one[1], other[1]))
    ]
    return made, pairs


def planted(seed, rows):
    rng = random.Random(seed)
    made = []
    for _ in range(rows):
        question, answer = say(rng, rng.randrange(2, 30)), say(rng, rng.randrange(2, 60))
        kind = rng.randrange(8) if made else 7
        if kind < 4:
            question, answer = rng.choice(made)
        if kind == 1:
            answer = answer.upper()
        if kind == 2:
            question = say(rng, 25)
        if kind == 3:
            answer = f"{answer} once"
        made.append((question, answer))
    return [(f"{question}\n{answer}", answer) for question, answer in made]


def find(rows, folder, **options):
    return links(rows, rows.__getitem__, folder=folder, threshold=0.8, **options)


def joined(rows, pairs):
    union = Union(rows)
    for i, j in pairs:
        union.join(int(i), int(j))
    return [union.first(row) for row in range(rows)]


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_a_full_comparison(tmp_path, seed):
    rows, true = case(seed)
    found = find(rows, tmp_path)
    pairs = list(map(tuple, found.pairs.tolist()))
    assert set(pairs) <= set(true)
    assert pairs == sorted(set(pairs))
    assert joined(250, pairs) == joined(250, true)
    assert len(pairs) < 250 < len(true)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("border", [1, 125, 240])
def test_every_row_with_a_copy_on_the_other_side_has_a_link_there(tmp_path, seed, border):
    rows, true = case(seed)
    across = {(i, j) for i, j in true if i < border <= j}
    found = find(rows, tmp_path, border=border)
    crossing = set(map(tuple, found.across(border).pairs.tolist()))
    assert crossing <= across
    assert {row for pair in crossing for row in pair} == {row for pair in across for row in pair}
    assert joined(250, found.pairs) == joined(250, true)
    assert len(found.pairs) == len(found.across(border).pairs) + len(found.within(border).pairs)


@pytest.mark.parametrize("seed", range(4))
def test_against_finds_every_row_of_the_first_set_that_is_in_the_second(tmp_path, seed):
    rows, true = case(seed)
    across = {(i, j - 60) for i, j in true if i < 60 <= j}
    second, first = rows[:60], rows[60:]
    found = against(
        iter(second),
        iter(first),
        second.__getitem__,
        first.__getitem__,
        folder=tmp_path,
        threshold=0.8,
    )
    pairs = set(map(tuple, found.pairs.tolist()))
    assert found.rows == len(first)
    assert pairs <= across
    assert {j for _, j in pairs} == {j for _, j in across}
    assert {i for i, _ in pairs} == {i for i, _ in across}


def test_kinds_of_links(tmp_path):
    rng = random.Random(1)
    question, answer, long, other = say(rng, 30), say(rng, 8), say(rng, 40), say(rng, 40)
    rows = [
        (f"{question} {answer}", answer),
        (f"{question} {answer}", answer),
        (f"{question} {answer}!", f"{answer}!"),
        (f"{question} {answer} more", f"{answer} more"),
        (f"{other} {long}", long),
        (f"{question} {long}", long),
        (f"yes {say(rng, 5)}", "yes"),
        (f"yes {say(rng, 5)}", "yes"),
    ]
    found = find(rows, tmp_path)
    assert list(zip(map(tuple, found.pairs.tolist()), found.kinds.tolist(), strict=True)) == [
        ((0, 1), EXACT),
        ((0, 2), WORDS),
        ((0, 3), NEAR),
        ((4, 5), ANSWER),
    ]
    assert found.count(EXACT) == 1
    assert found.count(WORDS, NEAR, ANSWER) == 3


def test_exact_copies_are_counted_on_each_side(tmp_path):
    rows = [("a b", "b")] * 7
    found = find(rows, tmp_path, border=4)
    assert found.within(4).count(EXACT) == 3 + 2
    assert found.across(4).count(EXACT) == len(found.across(4).pairs)
    assert {row for pair in found.across(4).pairs.tolist() for row in pair} == set(range(7))


def test_long_answers_in_chinese_count_as_long(tmp_path):
    answer = "我们今天去公园散步看到很多美丽的花朵和小鸟"
    rng = random.Random(2)
    rows = [(f"{say(rng, 40)} {answer}", answer) for _ in range(2)]
    assert find(rows, tmp_path).kinds.tolist() == [ANSWER]
    short = [(f"{say(rng, 40)} 好的", "好的") for _ in range(2)]
    assert len(find(short, tmp_path).pairs) == 0


def test_progress_counts_rows(tmp_path):
    told = []
    find(planted(1, 2500), tmp_path, progress=told.append)
    assert told == [1000, 2000, 2500]


def test_no_rows(tmp_path):
    assert find([], tmp_path).pairs.shape == (0, 2)


def test_clusters_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = planted(9, 200)
    order = list(range(200))
    random.Random(4).shuffle(order)
    names = joined(200, find(rows, tmp_path).pairs)
    mixed = joined(200, find([rows[n] for n in order], tmp_path).pairs)
    assert len({(names[n], mixed[place]) for place, n in enumerate(order)}) == len(set(names))


MEASURED = """
import resource, sys, tempfile
from pathlib import Path
from tunewright.data.near import _spill
from tunewright.data.near._links import links

_spill.BUFFER_BYTES = 2**20

def row(n):
    text = " ".join(f"w{(n - n % 2) * 977 * (k + 3) % 99991}" for k in range(24)) + " end" * (n % 2)
    return text, "yes"

count = int(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    found = links(map(row, range(count)), row, folder=Path(folder), threshold=0.8)
assert len(found.pairs) > 0.4 * count, len(found.pairs)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.faults
def test_memory_grows_by_bytes_a_row():
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", MEASURED, str(rows)], capture_output=True, check=True
            ).stdout
        )
        * unit
        for rows in (10_000, 35_000)
    ]
    assert peaks[1] - peaks[0] < 25_000 * 150
