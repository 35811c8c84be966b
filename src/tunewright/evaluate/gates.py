"""What an evaluation has measured, and the limits that it is held against."""

from dataclasses import dataclass
from typing import TypedDict

from tunewright.evaluate.habits import Change, Habits
from tunewright.evaluate.intervals import Estimate
from tunewright.evaluate.perplexity import Perplexity

MIN_DISTINCT_SHARE = 0.75
MIN_COPIED_GRAMS = 8
"""8-grams that a single copy of 15 words has; of fewer, a share of short answers tells nothing."""
MIN_ROWS = 4
"""Rows of which an interval of perplexity means something."""
MIN_ANSWERS = 8
"""Likewise, answers of which one of a rubric does."""
MIN_DIFFERENT_SHARE = 0.5
MIN_WRITTEN_SHARE = 0.9
MAX_LOST_ENDS = 0.1
"""Share of answers that may stop to end, however sure it is that they do."""


class Gate(TypedDict):
    """One thing that was proven, or was not."""

    gate: str
    value: str
    limit: str
    passed: bool


@dataclass(frozen=True)
class Limits:
    """The thresholds of the config's `compare` section, by the same names."""

    target_score: float
    max_copied_words: int
    max_copied_share: float
    max_perplexity_ratio: float
    max_neutral_ratio: float
    fail_under: float | None = None


@dataclass(frozen=True)
class Copied:
    """What was measured of copies of training text.

    Attributes:
        words: Longest verbatim run in the tuned answers.
        heldout_words: The same in held-out text: what template and language share anyway.
        share: Share of the tuned answers' 8-grams that the training text has.
        grams: How many those are.
        heldout_share: The same for held-out text.
    """

    words: int
    heldout_words: int
    share: float
    grams: int
    heldout_share: float


@dataclass(frozen=True)
class Rubric:
    """How many answers pass a rubric.

    Attributes:
        name: Of the rubric.
        tuned: Share of the tuned answers.
        author: Share of the author's answers; None without any.
        difference: Tuned less base.
        min_share: Share that is asked for; None: only no loss.
    """

    name: str
    tuned: Estimate
    author: float | None
    difference: Estimate
    min_share: float | None


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        score: Transfer score with the ends of its interval; None if there is none.
        score_reason: Why there is none.
        copied: Copies of training text; None without a dataset.
        heldout: Perplexities on held-out rows; None where the models are not here.
        training: Perplexities on training rows; likewise.
        neutral: Perplexities on the bundled neutral text; likewise.
        base: How the base answers.
        tuned: How the tuned model answers.
        change: Tuned less base.
        author_distinct: Share of distinct word 3-grams in passages of the author; None without any.
        author_different: Different answers of the author over questions; likewise.
        author_ended: Share of the author's answers that are shorter than answers may be; likewise.
        rubrics: Of structured answers.
    """

    score: tuple[float, float, float] | None
    score_reason: str
    copied: Copied | None
    heldout: Perplexity | None
    training: Perplexity | None
    neutral: Perplexity | None
    base: Habits
    tuned: Habits
    change: Change
    author_distinct: float | None
    author_different: float | None
    author_ended: float | None
    rubrics: tuple[Rubric, ...] = ()


def copies_gates(figures: Figures, limits: Limits) -> list[Gate]:
    """Return whether training text comes back word for word; nothing without a dataset."""
    found = figures.copied
    if found is None:
        return []
    words = max(limits.max_copied_words, found.heldout_words)
    share = found.heldout_share + limits.max_copied_share
    return [
        Gate(
            gate="longest verbatim copy of training text",
            value=f"{found.words} words",
            limit=f"at most {words} words",
            passed=found.words <= words,
        ),
        Gate(
            gate="word 8-grams of the answers found in training text",
            value=f"{found.share:.1%}",
            limit=f"at most {share:.1%}, of which held-out text has {found.heldout_share:.1%}",
            passed=found.share <= share or found.grams < MIN_COPIED_GRAMS,
        ),
    ]


def rise_gates(figures: Figures) -> list[Gate]:
    """Return whether unseen text became harder while trained text became easier; nothing without losses."""
    heldout, training = figures.heldout, figures.training
    if heldout is None or training is None:
        return []
    return [
        Gate(
            gate="held-out loss while the training loss fell",
            value=f"{heldout.base_loss:.3f} to {heldout.tuned_loss:.3f}; training "
            f"{training.base_loss:.3f} to {training.tuned_loss:.3f}",
            limit="must not clearly rise (95 % intervals)",
            passed=heldout.rows < MIN_ROWS
            or not (heldout.ratio.low > 1 and training.ratio.high < 1),
        )
    ]


def damage_gates(figures: Figures, limits: Limits) -> list[Gate]:
    """Return whether text, answers and their structure are as good as before."""
    texts = (
        ("held-out perplexity, tuned over base", figures.heldout, limits.max_perplexity_ratio),
        ("perplexity on neutral text, tuned over base", figures.neutral, limits.max_neutral_ratio),
    )
    return [
        *(
            Gate(
                gate=name,
                value=f"{found.ratio.value:.3f}",
                limit=f"at most {limit:g}",
                passed=found.ratio.value <= limit,
            )
            for name, found, limit in texts
            if found
        ),
        _written(figures),
        _repetition(figures),
        _sameness(figures),
        _ends(figures),
        *(_structure(rubric) for rubric in figures.rubrics),
    ]


def _repetition(figures: Figures) -> Gate:
    base, tuned = figures.base.distinct_3.value, figures.tuned.distinct_3.value
    limit, of = base * MIN_DISTINCT_SHARE, f"{MIN_DISTINCT_SHARE:.0%} of the base's"
    if figures.author_distinct is not None:
        limit = min(base, MIN_DISTINCT_SHARE * figures.author_distinct)
        of = f"the lower of base and {MIN_DISTINCT_SHARE:.0%} of the author's"
    return Gate(
        gate="distinct word 3-grams in an answer",
        value=f"{tuned:.0%}",
        limit=f"at least {limit:.0%}, {of}",
        passed=tuned >= limit,
    )


def _sameness(figures: Figures) -> Gate:
    """Return whether different questions still get different answers."""
    base, author = figures.base.different_answers, figures.author_different
    limit = MIN_DIFFERENT_SHARE * (base if author is None else min(base, author))
    of = "the base's" if author is None else "what base and author have"
    return Gate(
        gate="different answers",
        value=f"{figures.tuned.different_answers:.0%}",
        limit=f"at least {limit:.0%}, half of {of}",
        passed=figures.tuned.different_answers >= limit,
    )


def _written(figures: Figures) -> Gate:
    """Return whether there are answers at all: a served model may say nothing."""
    tuned, base = figures.tuned.written.value, figures.base.written.value
    limit = MIN_WRITTEN_SHARE * base
    return Gate(
        gate="answers that are not empty",
        value=f"{tuned:.0%}",
        limit=f"at least {limit:.0%}, {MIN_WRITTEN_SHARE:.0%} of the base's",
        passed=tuned >= limit,
    )


def _ends(figures: Figures) -> Gate:
    """Return whether answers still end: clearly and noticeably fewer than the base's is a fault.

    An author whose texts are longer than answers may be does not end his either: to do as he does is none.
    """
    tuned, base, author = figures.tuned.ended, figures.base.ended.value, figures.author_ended
    lost = figures.change.ended
    fewer = lost.high < 0 and lost.value < -MAX_LOST_ENDS
    as_author = author is not None and tuned.high >= author
    enough = figures.tuned.answers >= MIN_ANSWERS
    beside = "" if author is None else f" or of the author ({author:.0%})"
    return Gate(
        gate="answers that end by themselves",
        value=f"{tuned.value:.0%} ({tuned.low:.0%} to {tuned.high:.0%})",
        limit=f"not clearly fewer than of the base ({base:.0%}){beside}",
        passed=as_author or not (fewer and enough),
    )


def _structure(rubric: Rubric) -> Gate:
    """Return whether structure is kept: to be clearly under base and author is a fault.

    Where the author's own answers do not pass, a model that does as he does is none.
    """
    found, least = rubric.tuned, rubric.min_share
    as_base = rubric.difference.high >= 0
    as_author = rubric.author is not None and found.high >= rubric.author
    limit = "not clearly fewer than of base and author"
    return Gate(
        gate=f"answers that pass '{rubric.name}'",
        value=f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})",
        limit=limit if least is None else f"at least {least:.0%}, {limit}",
        passed=(as_base or as_author) and (least is None or found.value >= least),
    )


def score_gates(figures: Figures, limits: Limits) -> list[Gate]:
    """Return whether the transfer score is what was asked for, if one was."""
    if limits.fail_under is None:
        return []
    score = figures.score
    return [
        Gate(
            gate="transfer score asked for",
            value="none" if score is None else f"{score[0]:.0f} %",
            limit=f"at least {limits.fail_under:g} % (compare.fail_under)",
            passed=score is not None and score[0] >= limits.fail_under,
        )
    ]
