import random
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

import tunewright.data
from tunewright.evaluate._style import _features, _unit, scored, sides_of, transfer_score
from tunewright.evaluate.style import count, passages

SAMPLES = Path(tunewright.data.__file__).parent / "samples" / "manuscript"
NOVELS = Path(__file__).parents[4] / "shared" / "corpora" / "british-fiction"
WORDS = 60

_BASE_OPENINGS = ("Moreover, ", "It is important to note that ", "In this context, however, ")
_BASE_REST = (
    "the gradual development of a shared understanding; which is to say, an agreement of many sides",
    "one should consider both of the advantages and the disadvantages before any decision is made",
    "a comprehensive overview of these considerations, including their history, will be provided",
    "the various stakeholders were expected to contribute towards the outcome of the whole process",
    "those who have studied the question would be among the first to admit its great complexity",
)


@pytest.fixture(scope="module")
def author():
    chapters = [f.read_text(encoding="utf-8") for f in sorted(SAMPLES.glob("*.txt"))]
    found = [p for chapter in chapters for p in passages(chapter, WORDS)]
    random.Random(1).shuffle(found)
    return {"tuned": found[:40], "heldout": found[40:70], "training": found[70:]}


@pytest.fixture(scope="module")
def base():
    pick = random.Random(2)
    return [
        " ".join(f"{pick.choice(_BASE_OPENINGS)}{pick.choice(_BASE_REST)}." for _ in range(4))
        for _ in range(40)
    ]


def score(base, tuned, heldout, training, *, min_words=800, samples=200):
    return transfer_score(
        base,
        tuned,
        heldout=heldout,
        training=training,
        min_words=min_words,
        samples=samples,
        seed=1,
    )


def test_base_as_tuned_scores_nothing(base, author):
    result = score(base, base, author["heldout"], author["training"])
    assert result.score == pytest.approx(0, abs=1e-9)
    assert (result.low, result.high) == pytest.approx((0, 0), abs=1e-9)


def test_other_text_of_the_author_scores_about_a_hundred(base, author):
    result = score(base, author["tuned"], author["heldout"], author["training"])
    assert result.score == pytest.approx(100, abs=10)
    assert 60 < result.low <= result.score <= result.high < 130


def test_the_score_rises_with_the_share_of_the_author(base, author):
    results = [
        score(
            base,
            author["tuned"][:share] + base[share:],
            author["heldout"],
            author["training"],
        )
        for share in (0, 10, 20, 30, 40)
    ]
    scores = [r.score for r in results]
    assert all(a < b for a, b in pairwise(scores))
    assert scores[2] == pytest.approx(50, abs=20)
    assert all(r.low <= r.score <= r.high for r in results)


def test_the_score_depends_on_the_texts_and_not_on_their_order(base, author):
    tuned = author["tuned"][:20] + base[20:]
    order = random.Random(3).sample(range(40), 40)
    first = score(base, tuned, author["heldout"], author["training"])
    second = score(
        [base[i] for i in order],
        [tuned[i] for i in order],
        author["heldout"][::-1],
        author["training"][::-1],
    )
    assert first == second


def test_the_order_of_paragraphs_hardly_matters(base, author):
    tuned = author["tuned"][:20] + base[20:]
    text = "\n\n".join(author["training"]).split("\n\n")
    shuffled = random.Random(4).sample(text, len(text))
    first, second = (
        score(base, tuned, author["heldout"], ["\n\n".join(t)]).score for t in (text, shuffled)
    )
    assert first == pytest.approx(second, abs=5)


def test_too_little_text_says_how_much_is_missing_where(base, author):
    result = score(base, author["tuned"], author["heldout"][:2], author["training"])
    assert result.score is None
    assert f"{result.words['heldout']:,} in the author's held-out text" in result.reason
    assert "needs 800 words" in result.reason
    assert "training" not in result.reason
    nothing = score([], [], [], [])
    assert nothing.score is None
    assert set(nothing.words.values()) == {0}


def test_too_few_passages_are_told_as_such(base, author):
    """Halves and draws need several, however long each is."""
    longer = [" ".join(side[at : at + 20]) for side in (base, author["tuned"]) for at in (0, 20)]
    result = score(longer[:2], longer[2:], author["heldout"], author["training"])
    assert result.score is None
    assert "2 in the tuned model's answers" in result.reason


def test_a_base_that_writes_like_the_author_has_no_score(author):
    result = score(author["tuned"], author["tuned"], author["heldout"], author["training"])
    assert result.score is None
    assert "not clearly further" in result.reason


def test_with_less_training_text_than_answers_equal_amounts_are_compared(base, author):
    result = score(base, author["tuned"], author["heldout"], author["training"][:20])
    assert result.score == pytest.approx(100, abs=15)


def test_the_formula_against_all_halvings_one_by_one(base, author):
    """An independent reference: frequencies a text at a time, plain loops, every halving of four."""
    counted = {
        "base": [count(text) for text in base[:4]],
        "tuned": [count(text) for text in author["tuned"][:2] + base[6:8]],
        "heldout": [count(text) for text in author["heldout"][:6]],
        "training": [count(text) for text in author["training"][:4]],
    }
    sides = sides_of(**counted)
    unit = _unit(sides)

    def features(side, chosen):
        return _features(sum(side[i] for i in chosen))

    def off(x, y):
        return np.array(
            [
                max(-2.0, min(2.0, d / u)) if np.isfinite(d) else 0.0
                for d, u in zip(x - y, unit, strict=True)
            ]
        )

    halves = [(a, tuple({0, 1, 2, 3} - set(a))) for a in combinations(range(4), 2)]
    th = ah = tt = aa = 0.0
    for one, two in halves:
        for first, second in halves:
            origins = features(sides.base, one), features(sides.base, two)
            t = [off(features(sides.tuned, x), o) for x, o in zip((one, two), origins, strict=True)]
            a = [
                off(features(sides.training, x), o)
                for x, o in zip((first, second), origins, strict=True)
            ]
            h = [off(features(sides.heldout, range(6)), o) for o in origins]
            th += t[0] @ h[1] + t[1] @ h[0]
            ah += a[0] @ h[1] + a[1] @ h[0]
            tt += 2 * t[0] @ t[1]
            aa += 2 * a[0] @ a[1]
    expected = 100 * th / ah * min(1, (max(aa, 0) / tt) ** 0.5 if tt > 0 else 1)
    found = scored(sides, samples=4_000, seed=3)
    assert found is not None
    assert found[0] == pytest.approx(expected, rel=0.02)


def test_a_style_of_its_own_takes_off_what_the_way_is_worth(base, author):
    """A model that writes like the author, and strangely beside it, is not as close as the author is."""
    odd = [
        f"{text} Whereupon; notwithstanding; (albeit); (albeit); whereupon; (albeit);"
        for text in author["tuned"]
    ]
    plain = score(base, author["tuned"], author["heldout"], author["training"])
    strange = score(base, odd, author["heldout"], author["training"])
    assert strange.high < plain.low


def test_the_interval_has_the_value_of_the_whole_texts(base, author):
    """95 % of the time, so that 20 draws of half of the passages miss it three times at most."""
    tuned = author["tuned"][:20] + base[20:]
    whole = score(base, tuned, author["heldout"], author["training"]).score
    missed = 0
    for draw in range(20):
        pick = random.Random(draw)
        pairs = pick.sample(range(40), 20)
        found = score(
            [base[i] for i in pairs],
            [tuned[i] for i in pairs],
            pick.sample(author["heldout"], 15),
            pick.sample(author["training"], 20),
            min_words=400,
        )
        missed += not found.low <= whole <= found.high
    assert missed <= 3


@pytest.mark.skipif(not NOVELS.is_dir(), reason="needs ../shared/corpora/british-fiction")
def test_two_novels_of_one_author_are_one_author_and_another_author_is_not():
    def novel(name, seed):
        text = (NOVELS / f"{name}.txt").read_text(encoding="utf-8")[5000:405000]
        found = passages(text, WORDS)
        return random.Random(seed).sample(found, len(found))

    emma = novel("Austen_Emma", 1)
    base = novel("Sterne_Tristram", 2)[:160]
    same, other = (
        score(base, novel(name, 3)[:160], emma[:160], emma[160:])
        for name in ("Austen_Pride", "Fielding_Tom")
    )
    assert same.score == pytest.approx(100, abs=20)
    assert other.high < same.low
    assert other.score < same.score - 15
