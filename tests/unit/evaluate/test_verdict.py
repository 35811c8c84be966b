from dataclasses import replace

import pytest

from tunewright.evaluate.gates import Copied, Figures, Limits, Rubric
from tunewright.evaluate.habits import Change, Habits, habits
from tunewright.evaluate.intervals import Estimate
from tunewright.evaluate.perplexity import RowLoss, perplexity
from tunewright.evaluate.verdict import judge
from tunewright.models.sampling import Answer

LIMITS = Limits(
    target_score=60,
    max_copied_words=25,
    max_copied_share=0.05,
    max_perplexity_ratio=1.05,
    max_neutral_ratio=1.5,
)


def _perplexity(base, tuned):
    rows = [RowLoss(base * 10 + n / 10, tuned * 10 + n / 10, 10) for n in range(8)]
    return perplexity(rows, samples=100, seed=1)


def _habits(distinct=0.97, ended=30, of=60) -> Habits:
    plain = Estimate(40.0, 38.0, 42.0)
    answers = [Answer(f"{n}", 3, ended=n < ended) for n in range(of)]
    own = habits(answers, range(of), samples=100, seed=1)
    shown = Estimate(distinct, distinct - 0.01, distinct + 0.01)
    return replace(own, words=plain, tokens=plain, distinct_3=shown)


def _change(lost, spread=0.02) -> Change:
    nothing = Estimate(0.0, -0.1, 0.1)
    return Change(nothing, Estimate(-lost, -lost - spread, -lost + spread), nothing)


def _rubric(tuned, difference, least=None, author=None) -> Rubric:
    around = [Estimate(x, x - 0.1, x + 0.1) for x in (tuned, difference)]
    return Rubric("ltx-video", around[0], author, around[1], least)


BETTER, SAME, WORSE = _perplexity(3, 2.8), _perplexity(3, 3), _perplexity(3, 3.2)
SLIGHTLY_BETTER, SLIGHTLY_WORSE = _perplexity(3, 2.98), _perplexity(3, 3.02)
COPIED = Copied(words=8, heldout_words=7, share=0.01, grams=20, heldout_share=0.01)
GOOD = Figures(
    score=(75.0, 60.0, 90.0),
    score_reason="",
    copied=COPIED,
    heldout=BETTER,
    training=BETTER,
    neutral=SLIGHTLY_WORSE,
    base=_habits(0.98),
    tuned=_habits(0.97),
    change=_change(0),
    author_distinct=0.99,
    author_different=1.0,
    author_ended=0.5,
)


def _copied(**change):
    return {"copied": replace(COPIED, **change)}


@pytest.mark.parametrize(
    ("change", "word", "failed"),
    [
        ({}, "improved", ""),
        (_copied(words=26), "memorised", "longest verbatim copy"),
        (_copied(words=26, heldout_words=26), "improved", ""),
        (_copied(share=0.061), "memorised", "8-grams"),
        (_copied(share=0.33, heldout_share=0.3), "improved", ""),
        (_copied(share=0.33, grams=7), "improved", ""),
        ({"heldout": SLIGHTLY_WORSE}, "overfitted", "while the training loss fell"),
        ({"heldout": WORSE}, "overfitted", "while the training loss fell"),
        ({"heldout": WORSE, "training": WORSE}, "degraded", "perplexity"),
        ({"heldout": SLIGHTLY_WORSE, "training": SAME}, "improved", ""),
        ({"neutral": _perplexity(3, 3.5)}, "degraded", "neutral"),
        ({"tuned": _habits(0.5)}, "degraded", "3-grams"),
        ({"base": _habits(0.5), "tuned": _habits(0.55)}, "improved", ""),
        ({"tuned": replace(_habits(), different_answers=0.4)}, "degraded", "different answers"),
        (
            {"tuned": replace(_habits(), different_answers=0.4), "author_different": 0.7},
            "improved",
            "",
        ),
        ({"tuned": _habits(ended=5), "change": _change(0.4)}, "degraded", "end by themselves"),
        (
            {"tuned": _habits(ended=5), "change": _change(0.4), "author_ended": 0.1},
            "improved",
            "",
        ),
        ({"tuned": _habits(ended=5), "change": _change(0.4, 0.5)}, "improved", ""),
        ({"tuned": _habits(ended=27), "change": _change(0.05, 0.01)}, "improved", ""),
        (
            {"tuned": replace(_habits(ended=5), answers=7), "change": _change(0.4)},
            "improved",
            "",
        ),
        (
            {"tuned": replace(_habits(), written=Estimate(0.5, 0.4, 0.6))},
            "degraded",
            "not empty",
        ),
        ({"score": (30.0, -5.0, 60.0), "heldout": SLIGHTLY_BETTER}, "nothing learned", ""),
        ({"score": (5.0, 1.0, 9.0), "heldout": SAME}, "nothing learned", ""),
        # a perplexity that is clearly lower shows by itself that something was learned
        ({"score": (30.0, -5.0, 60.0)}, "improved", ""),
        ({"score": None}, "improved", ""),
        ({"score": None, "heldout": SAME}, "nothing learned", ""),
        ({"score": (0.0, 0.0, 0.0), "heldout": SAME}, "nothing learned", ""),
        # several faults: the first in the order of causes names it
        ({**_copied(words=99), "heldout": WORSE}, "overfitted", "copy"),
        ({**_copied(words=99), "tuned": _habits(0.5)}, "memorised", "3-grams"),
        # structured answers
        ({"rubrics": (_rubric(0.4, -0.3),)}, "degraded", "ltx-video"),
        ({"rubrics": (_rubric(0.4, -0.3, author=0.8),)}, "degraded", "ltx-video"),
        # the author's own answers do not pass either: the rubric is not for them
        ({"rubrics": (_rubric(0.4, -0.3, author=0.45),)}, "improved", ""),
        ({"rubrics": (_rubric(0.9, 0.5, 0.95),)}, "degraded", "ltx-video"),
        ({"rubrics": (_rubric(0.9, 0.5, 0.8),)}, "improved", ""),
        (
            {"rubrics": (_rubric(0.9, 0.5),), "score": (1.0, -5.0, 9.0), "heldout": SAME},
            "improved",
            "",
        ),
    ],
)
def test_verdicts(change, word, failed):
    verdict = judge(replace(GOOD, **change), LIMITS)
    assert verdict.word == word
    names = [gate["gate"] for gate in verdict.gates if not gate["passed"]]
    assert bool(names) == (word in ("overfitted", "memorised", "degraded"))
    assert failed in " ".join(names)
    assert all(reason.endswith(".") for reason in verdict.reasons)
    assert all(any(name[1:] in reason for reason in verdict.reasons) for name in names)
    assert verdict.sentence.endswith(verdict.reasons[-1])
    assert verdict.advice


def test_endpoints_have_a_verdict_without_losses():
    far = {"heldout": None, "training": None, "neutral": None, "author_ended": None}
    assert judge(replace(GOOD, **far), LIMITS).word == "improved"
    same = judge(replace(GOOD, **far, score=(1.0, -9.0, 9.0)), LIMITS)
    assert same.word == "nothing learned"


def test_without_text_of_the_author_nothing_is_decided():
    bare = replace(
        GOOD,
        score=None,
        score_reason="There is no text of the author to compare with.",
        **dict.fromkeys(
            ("copied", "heldout", "training", "neutral", "author_distinct", "author_different")
        ),
    )
    verdict = judge(bare, LIMITS)
    assert verdict.word == "undecided"
    assert "no text of the author" in verdict.sentence
    assert judge(replace(bare, tuned=_habits(0.2)), LIMITS).word == "degraded"


@pytest.mark.parametrize(
    ("score", "passed"), [((60.0, 50.0, 70.0), True), ((59.0, 50.0, 70.0), False), (None, False)]
)
def test_fail_under_is_a_gate_and_no_verdict(score, passed):
    verdict = judge(replace(GOOD, score=score), replace(LIMITS, fail_under=60))
    assert verdict.word == "improved"
    assert [g["passed"] for g in verdict.gates if g["gate"] == "transfer score asked for"] == [
        passed
    ]


def test_a_score_under_the_target_is_a_remark_and_not_a_failure():
    verdict = judge(replace(GOOD, score=(45.0, 30.0, 58.0)), LIMITS)
    assert verdict.word == "improved"
    assert "45 % (30 to 58), under the target of 60 %" in verdict.sentence
    assert "stronger style" in verdict.advice


def test_a_score_whose_interval_reaches_0_is_no_proof():
    verdict = judge(replace(GOOD, score=(30.0, -5.0, 60.0)), LIMITS)
    assert "reaches 0" in verdict.sentence


def test_the_sentence_says_which_limit_was_passed():
    verdict = judge(replace(GOOD, **_copied(words=31)), LIMITS)
    assert (
        "Longest verbatim copy of training text: 31 words (at most 25 words)." in verdict.sentence
    )
