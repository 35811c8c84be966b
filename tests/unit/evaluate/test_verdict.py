from dataclasses import replace

import pytest

from tunewright.evaluate.perplexity import RowLoss, perplexity
from tunewright.evaluate.verdict import Figures, Limits, judge

LIMITS = Limits(
    target_score=60, max_copied_words=25, max_copied_share=0.05, max_perplexity_ratio=1.05
)


def _perplexity(base, tuned):
    rows = [RowLoss(base * 10 + n / 10, tuned * 10 + n / 10, 10) for n in range(8)]
    return perplexity(rows, samples=100, seed=1)


BETTER, SAME, WORSE = _perplexity(3, 2.8), _perplexity(3, 3), _perplexity(3, 3.2)
SLIGHTLY_WORSE = _perplexity(3, 3.02)
GOOD = Figures(
    score=(75.0, 60.0, 90.0),
    copied_words=8,
    heldout_copied_words=7,
    copied_share=0.01,
    heldout_copied_share=0.01,
    heldout=BETTER,
    training=BETTER,
    distinct=(0.98, 0.97, 0.99),
)


@pytest.mark.parametrize(
    ("change", "word", "failed"),
    [
        ({}, "improved", ""),
        ({"copied_words": 26}, "overfitted", "longest verbatim copy"),
        ({"copied_words": 26, "heldout_copied_words": 26}, "improved", ""),
        ({"copied_share": 0.061}, "overfitted", "8-grams"),
        ({"copied_share": 0.33, "heldout_copied_share": 0.3}, "improved", ""),
        ({"heldout": SLIGHTLY_WORSE}, "overfitted", "while the training loss fell"),
        ({"heldout": WORSE}, "overfitted", "while the training loss fell"),
        ({"heldout": WORSE, "training": WORSE}, "degraded", "perplexity"),
        ({"heldout": SLIGHTLY_WORSE, "training": SAME}, "improved", ""),
        ({"distinct": (0.95, 0.5, 0.99)}, "degraded", "3-grams"),
        ({"distinct": (0.5, 0.55, 0.99)}, "improved", ""),
        ({"score": (30.0, -5.0, 60.0)}, "nothing learned", ""),
        ({"score": (5.0, 1.0, 9.0)}, "nothing learned", ""),
        ({"score": None}, "improved", ""),
        ({"score": None, "heldout": SAME}, "nothing learned", ""),
        ({"score": (0.0, 0.0, 0.0), "copied_words": 99, "heldout": WORSE}, "overfitted", "copy"),
    ],
)
def test_verdicts(change, word, failed):
    verdict = judge(replace(GOOD, **change), LIMITS)
    assert verdict.word == word
    names = [gate["gate"] for gate in verdict.gates if not gate["passed"]]
    assert bool(names) == (word in ("overfitted", "degraded"))
    assert failed in " ".join(names)
    assert verdict.sentence.endswith(".")
    assert verdict.advice


def test_a_score_under_the_target_is_a_remark_and_not_a_failure():
    verdict = judge(replace(GOOD, score=(45.0, 30.0, 58.0)), LIMITS)
    assert verdict.word == "improved"
    assert "45 % (30 to 58), under the target of 60 %" in verdict.sentence
    assert "stronger style" in verdict.advice


def test_the_sentence_says_which_limit_was_passed():
    verdict = judge(replace(GOOD, copied_words=31), LIMITS)
    assert (
        "Longest verbatim copy of training text: 31 words (at most 25 words)." in verdict.sentence
    )
