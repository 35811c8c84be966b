"""The same questions to each checkpoint: score and copies over the training."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tunewright.config.schema import Config
from tunewright.errors import TunewrightError
from tunewright.evaluate._figures import Answers, copies_in, score
from tunewright.evaluate._local import Local, put_on
from tunewright.evaluate._losses import of_checkpoint
from tunewright.evaluate.harness import Speaker, ask
from tunewright.evaluate.perplexity import RowLoss
from tunewright.evaluate.sides import Checkpoint
from tunewright.events import Listener


def course(
    config: Config,
    sides: tuple[Speaker, Speaker],
    answers: Answers,
    checkpoints: Sequence[Checkpoint],
    *,
    known: Sequence[RowLoss],
    until: float,
    listener: Listener,
) -> list[dict[str, Any]]:
    """Return score, copies and held-out perplexity of each checkpoint, the first step first.

    The base's answers are those that it has given, and `known` is what it loses on held-out rows. A checkpoint that
    cannot be asked, or that there is no time for before `until`, is left out, and it is told. The tuned side holds
    the last checkpoint afterwards.
    """
    base, tuned = sides
    rows: list[dict[str, Any]] = []
    if not isinstance(base, Local) or not isinstance(tuned, Local):
        return rows
    for checkpoint in sorted(checkpoints, key=lambda one: one.step):
        try:
            put_on(tuned, checkpoint.path)
            here = _answers(config, tuned, answers, checkpoint, until, listener)
        except TunewrightError as error:
            listener.said(f"{checkpoint.name} is left out: {error.problems[0].message}")
            continue
        row = _row(config, here)
        held = of_checkpoint(base, tuned, answers.material, config, known=known, listener=listener)
        rows.append(
            {
                "step": checkpoint.step,
                "eval_loss": checkpoint.eval_loss,
                **row,
                "perplexity": held.tuned.facts(),
            }
        )
    return rows


def _answers(
    config: Config,
    tuned: Local,
    answers: Answers,
    checkpoint: Checkpoint,
    until: float,
    listener: Listener,
) -> Answers:
    """Return the base's answers to held-out rows with those of a checkpoint."""
    asked = ask(
        [replace(tuned, name=checkpoint.name)],
        [[question.messages for question in answers.questions[: answers.scored]]],
        batch_size=config.compare.batch_size,
        seed=config.seed,
        max_seconds=until - time.monotonic(),
        listener=listener,
    )
    made = asked.answers[0]
    return Answers(answers.material, answers.base[: len(made)], made)


def _row(config: Config, answers: Answers) -> dict[str, Any]:
    copies = copies_in(answers, max_words=config.compare.max_copied_words)
    transfer, excluded = score(config, answers, copies)
    facts = {key: getattr(transfer, key) for key in ("score", "low", "high", "reason")}
    return {
        "score": facts,
        "excluded": excluded,
        "longest_words": copies.tuned.longest.words,
        "copied_share": copies.tuned.share,
        "heldout_copied_share": copies.heldout.share,
    }
