"""From answers and losses to every figure, and the verdict on them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunewright.config.schema import Config
from tunewright.evaluate import gates, rubric, verdict
from tunewright.evaluate._losses import Losses
from tunewright.evaluate._style import Transfer, transfer_score
from tunewright.evaluate.habits import change, habits
from tunewright.evaluate.intervals import Estimate, mean
from tunewright.evaluate.markers import markers
from tunewright.evaluate.material import Material, Question, matched, up_to
from tunewright.evaluate.memorisation import Overlap, is_copied, overlap
from tunewright.evaluate.style import distinct_share, words_of
from tunewright.models.sampling import Answer

MAX_HELDOUT_WORDS = 20_000
MAX_SPANS = 20
"""Copied spans that are listed, the longest ones."""


@dataclass(frozen=True)
class Answers:
    """What both sides answered to the questions that there was time for.

    Attributes:
        material: What they were asked, and what the author wrote.
        base: One answer a question.
        tuned: Likewise.
    """

    material: Material
    base: list[Answer]
    tuned: list[Answer]

    @property
    def questions(self) -> list[Question]:
        """Those that were asked."""
        return self.material.questions[: len(self.tuned)]

    @property
    def scored(self) -> int:
        """How many of them, the first ones, are of held-out rows; only they are scored."""
        return sum(question.author is not None for question in self.questions)

    @property
    def measured(self) -> tuple[list[Answer], list[Answer]]:
        """Both sides' answers to held-out rows; where there are none, to the user's own prompts."""
        count = self.scored or len(self.tuned)
        return self.base[:count], self.tuned[:count]


@dataclass(frozen=True)
class Copies:
    """What is copied from the training text.

    Attributes:
        base: In the base's answers, those to the user's own prompts among them.
        tuned: In those of the tuned model, likewise.
        heldout: In the author's held-out text.
        limit: Words; a longer run in an answer counts as memorised.
    """

    base: Overlap
    tuned: Overlap
    heldout: Overlap
    limit: int


def figured(
    config: Config,
    answers: Answers,
    found: Losses | None,
    *,
    rubrics: Sequence[rubric.Rubric],
    author_ended: float | None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the facts, and the samples with what is copied in them."""
    options = config.compare
    training = answers.material.training
    copies = copies_in(answers, max_words=options.max_copied_words) if training else None
    transfer, excluded = score(config, answers, copies)
    author = _author(answers)
    chance = {"samples": options.bootstrap_samples, "seed": config.seed}
    base, tuned = answers.measured
    asked = [str(question.messages) for question in answers.questions[: len(tuned)]]
    of_base, of_tuned = (habits(side, asked, **chance) for side in (base, tuned))
    changed = change(base, tuned, asked, **chance)
    wrote = {(str(q.messages), q.author) for q in answers.questions if q.author is not None}
    structure = [
        rubric.judged(
            one,
            base=[answer.text for answer in base],
            tuned=[answer.text for answer in tuned],
            author=sorted(text for _, text in wrote),
            groups=asked,
            **chance,
        )
        for one in rubrics
    ]
    decided = verdict.judge(
        gates.Figures(
            score=_interval(transfer),
            score_reason=transfer.reason,
            copied=_copied(copies),
            heldout=found.heldout if found else None,
            training=found.training if found else None,
            neutral=found.neutral if found else None,
            base=of_base,
            tuned=of_tuned,
            change=changed,
            author_distinct=distinct_share(author) if author else None,
            author_different=_different(answers.questions),
            author_ended=author_ended,
            rubrics=tuple(_rubric(one) for one in structure),
        ),
        gates.Limits(
            target_score=options.target_score,
            max_copied_words=options.max_copied_words,
            max_copied_share=options.max_copied_share,
            max_perplexity_ratio=options.max_perplexity_ratio,
            max_neutral_ratio=options.max_neutral_ratio,
            fail_under=options.fail_under,
        ),
    )
    facts = {
        **verdict.facts(decided),
        "transfer_score": {**asdict(transfer), "excluded": excluded},
        "markers": _markers(answers, author),
        "memorisation": _memorisation(answers, copies, found),
        "perplexity": found.facts() if found else {},
        "answers": {
            "max_new_tokens": options.max_new_tokens,
            "base": of_base.facts(),
            "tuned": of_tuned.facts(),
            "author": _author_facts(author, **chance),
            "author_ended": author_ended,
            "difference": changed.facts(),
        },
        "rubrics": structure,
    }
    return facts, _samples(answers, copies)


def copies_in(answers: Answers, *, max_words: int) -> Copies:
    """Return what both sides copy."""
    training = answers.material.training_texts
    base, tuned = (
        overlap([answer.text for answer in side], training)
        for side in (answers.base, answers.tuned)
    )
    heldout = overlap(up_to(answers.material.heldout_texts, MAX_HELDOUT_WORDS), training)
    return Copies(base, tuned, heldout, max(max_words, heldout.longest.words))


def score(config: Config, answers: Answers, copies: Copies | None) -> tuple[Transfer, int]:
    """Return the transfer score without answers that are copies, and how many those are."""
    options, count = config.compare, answers.scored
    if copies is None:
        return Transfer(None, None, None, "There is no text of the author to compare with.", {}), 0
    kept = [n for n in range(count) if not is_copied(copies.tuned, n, copies.limit)]
    found = transfer_score(
        [answers.base[n].text for n in kept],
        [answers.tuned[n].text for n in kept],
        heldout=answers.material.heldout_texts,
        training=[text for _, text in answers.material.training_texts],
        min_words=options.min_words,
        samples=options.bootstrap_samples,
        seed=config.seed,
    )
    return found, count - len(kept)


def _interval(transfer: Transfer) -> tuple[float, float, float] | None:
    if transfer.score is None or transfer.low is None or transfer.high is None:
        return None
    return transfer.score, transfer.low, transfer.high


def _copied(copies: Copies | None) -> gates.Copied | None:
    if copies is None:
        return None
    return gates.Copied(
        words=copies.tuned.longest.words,
        heldout_words=copies.heldout.longest.words,
        share=copies.tuned.share,
        grams=round(copies.tuned.share * copies.tuned.grams),
        heldout_share=copies.heldout.share,
    )


def _rubric(facts: dict[str, Any]) -> gates.Rubric:
    tuned, difference = (
        Estimate(*(facts[key][name] for name in ("value", "low", "high")))
        for key in ("tuned", "difference")
    )
    author = facts["author"]["value"] if facts["author"] else None
    return gates.Rubric(facts["name"], tuned, author, difference, facts["min_share"])


def _author(answers: Answers) -> list[str]:
    """Return passages of the author as long as the answers."""
    texts = [answer.text for side in answers.measured for answer in side]
    own = [
        *answers.material.heldout_texts,
        *(text for _, text in answers.material.training_texts),
    ]
    return matched(texts, own) if own else []


def _different(questions: Sequence[Question]) -> float | None:
    """Return the author's different answers over the questions, which may repeat; None without any."""
    answered = [question.author for question in questions if question.author is not None]
    return len(set(answered)) / len(answered) if answered else None


def _author_facts(author: Sequence[str], *, samples: int, seed: int) -> dict[str, Any] | None:
    if not author:
        return None
    return {
        "passages": len(author),
        "words": mean(
            [float(len(words_of(text))) for text in author], samples=samples, seed=seed
        ).facts(),
        "distinct_3": mean(
            [distinct_share([text]) for text in author], samples=samples, seed=seed
        ).facts(),
    }


def _markers(answers: Answers, author: Sequence[str]) -> list[dict[str, Any]]:
    """Return the table of markers; empty without an author."""
    if not author:
        return []
    base, tuned = ([answer.text for answer in side] for side in answers.measured)
    return [marker.facts() for marker in markers(base, tuned, author)]


def _memorisation(
    answers: Answers, copies: Copies | None, found: Losses | None
) -> dict[str, Any] | None:
    if copies is None:
        return None
    longest = copies.tuned.longest
    spans = [
        {
            "words": span.words,
            "text": answers.tuned[index].text[span.start : span.end],
            "source": span.source,
            "answer": index,
        }
        for index, own in enumerate(copies.tuned.spans)
        for span in own
    ]
    facts: dict[str, Any] = {
        "longest_words": longest.words,
        "longest_text": longest.text,
        "longest_source": longest.source,
        "longest_answer": longest.index,
        "limit_words": copies.limit,
        "heldout_longest_words": copies.heldout.longest.words,
        "copied_share": copies.tuned.share,
        "heldout_copied_share": copies.heldout.share,
        "base_copied_share": copies.base.share,
        "spans": sorted(spans, key=lambda span: -span["words"])[:MAX_SPANS],
        "spans_found": len(spans),
    }
    if found:
        facts["loss_gap"] = found.heldout.tuned_loss - found.training.tuned_loss
        facts["base_loss_gap"] = found.heldout.base_loss - found.training.base_loss
    return facts


def _samples(answers: Answers, copies: Copies | None) -> list[dict[str, Any]]:
    return [
        {
            "prompt": question.prompt,
            "base": answers.base[index].text,
            "tuned": answers.tuned[index].text,
            "author": question.author,
            "scored": question.author is not None,
            "copied": {
                name: [[span.start, span.end, span.words, span.source] for span in own.spans[index]]
                for name, own in (("base", copies.base), ("tuned", copies.tuned))
            }
            if copies
            else {"base": [], "tuned": []},
        }
        for index, question in enumerate(answers.questions)
    ]
