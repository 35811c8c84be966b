"""The same questions to each checkpoint: score and copies over the training."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tunewright.config.schema import Config
from tunewright.evaluate._figures import Answers, copies_in, score
from tunewright.evaluate._local import Local, put_on
from tunewright.evaluate._losses import heldout_perplexity
from tunewright.evaluate.harness import Speaker, ask
from tunewright.evaluate.sides import Checkpoint
from tunewright.events import Listener


def course(
    config: Config,
    sides: tuple[Speaker, Speaker],
    answers: Answers,
    checkpoints: Sequence[Checkpoint],
    *,
    listener: Listener,
) -> list[dict[str, Any]]:
    """Return score, copies and held-out perplexity of each checkpoint, the first step first.

    The base's answers are those that it has given. The tuned side holds the last checkpoint afterwards.

    Raises:
        TunewrightError: E_TIME, a checkpoint had no time to answer. E_ARTIFACT_INVALID, one is of another adapter.
    """
    base, tuned = sides
    rows: list[dict[str, Any]] = []
    for checkpoint in sorted(checkpoints, key=lambda one: one.step):
        if not isinstance(base, Local) or not isinstance(tuned, Local):
            break
        put_on(tuned, checkpoint.path)
        asked = ask(
            [replace(tuned, name=checkpoint.name)],
            [question.messages for question in answers.questions],
            batch_size=config.compare.batch_size,
            seed=config.seed,
            max_seconds=60 * config.compare.max_minutes,
            listener=listener,
        )
        made = asked.answers[0]
        here = Answers(answers.material, answers.base[: len(made)], made)
        copies = copies_in(here, max_words=config.compare.max_copied_words)
        if copies is None:
            break
        transfer, excluded = score(config, here, copies)
        held = heldout_perplexity(base, tuned, answers.material, config, listener)
        rows.append(
            {
                "step": checkpoint.step,
                "eval_loss": checkpoint.eval_loss,
                "score": {
                    "score": transfer.score,
                    "low": transfer.low,
                    "high": transfer.high,
                    "reason": transfer.reason,
                },
                "excluded": excluded,
                "longest_words": copies.tuned.longest.words,
                "copied_share": copies.tuned.share,
                "heldout_copied_share": copies.heldout.share,
                "perplexity": held.tuned.facts(),
            }
        )
    return rows
