import random
from itertools import pairwise
from pathlib import Path

import pytest

import tunewright.data
from tunewright.evaluate._style import transfer_score
from tunewright.evaluate.style import passages

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
    missing = 800 - result.words["heldout"]
    assert result.score is None
    assert f"heldout text by {missing:,} words" in result.reason
    assert "training" not in result.reason
    nothing = score([], [], [], [])
    assert nothing.score is None
    assert set(nothing.words.values()) == {0}


def test_a_base_that_writes_like_the_author_has_no_score(author):
    result = score(author["tuned"], author["tuned"], author["heldout"], author["training"])
    assert result.score is None
    assert "not clearly further" in result.reason


def test_with_less_training_text_than_answers_equal_amounts_are_compared(base, author):
    result = score(base, author["tuned"], author["heldout"], author["training"][:20])
    assert result.score == pytest.approx(100, abs=15)


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
