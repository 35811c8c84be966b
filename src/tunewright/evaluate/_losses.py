"""What both models lose on text: rows of the dataset, and the bundled neutral text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.config.schema import Config
from tunewright.errors import failure
from tunewright.evaluate._local import Local, row_losses, text_losses
from tunewright.evaluate.harness import Speaker
from tunewright.evaluate.material import Material, Question, Row, spread
from tunewright.evaluate.neutral import neutral_texts
from tunewright.evaluate.perplexity import Perplexity, RowLoss, perplexity
from tunewright.evaluate.style import words_of
from tunewright.events import Listener

MAX_HELDOUT_ROWS = 200
MAX_TRAINING_ROWS = 30
HELDOUT = "held-out rows"


@dataclass(frozen=True)
class Losses:
    """Perplexities of base and tuned.

    Attributes:
        heldout: On held-out rows.
        training: On training rows.
        neutral: On the bundled neutral text.
        heldout_rows: Losses on each held-out row.
    """

    heldout: Perplexity
    training: Perplexity
    neutral: Perplexity
    heldout_rows: list[RowLoss]

    def facts(self) -> dict[str, Any]:
        """Return the perplexities as JSON values."""
        return {name: getattr(self, name).facts() for name in ("heldout", "training", "neutral")}


def losses(
    sides: tuple[Speaker, Speaker], material: Material, config: Config, listener: Listener
) -> Losses | None:
    """Return the perplexities; None where a side cannot be asked for those, or there is no dataset.

    Nor are there any for models whose tokens are others: their losses cannot be compared.

    Raises:
        TunewrightError: E_NOTHING_TO_LEARN, no row has an answer within `train.max_length`.
    """
    base, tuned = sides
    if not material.heldout:
        return None
    if not isinstance(base, Local) or not isinstance(tuned, Local):
        listener.said(f"Perplexity is not measured: {tuned.name} gives answers only.")
        return None
    if not _same_tokens(base, tuned, material):
        listener.said("Base and tuned model read text as other tokens: perplexities are left out.")
        return None
    heldout, training = (
        _of_rows(base, tuned, spread(rows, most), config, what=what, listener=listener)
        for rows, most, what in (
            (material.heldout, MAX_HELDOUT_ROWS, HELDOUT),
            (material.training, MAX_TRAINING_ROWS, "training rows"),
        )
    )
    neutral = text_losses(base, tuned, neutral_texts(), listener=listener)
    found = (_perplexity(rows, config) for rows in (heldout, training, neutral))
    return Losses(*found, heldout_rows=heldout)


def of_checkpoint(
    base: Local,
    tuned: Local,
    material: Material,
    config: Config,
    *,
    known: Sequence[RowLoss],
    listener: Listener,
) -> Perplexity:
    """Return the perplexities on held-out rows, on which the base's losses are known."""
    rows = spread(material.heldout, MAX_HELDOUT_ROWS)
    found = _of_rows(base, tuned, rows, config, what=HELDOUT, listener=listener, known=known)
    return _perplexity(found, config)


def author_ended(
    sides: tuple[Speaker, Speaker], questions: Sequence[Question], max_new_tokens: int
) -> float | None:
    """Return the share of the author's answers that end within as many tokens; None if there are none."""
    local = next((side.vocabulary for side in sides if isinstance(side, Local)), None)
    answers = [question.author for question in questions if question.author is not None]
    if not answers:
        return None
    # Where nothing here can count tokens, there are at least as many as words. One more is the end itself.
    counts = [len(local.tokenize(a) if local else words_of(a)) + 1 for a in answers]
    return sum(count <= max_new_tokens for count in counts) / len(answers)


def _same_tokens(base: Local, tuned: Local, material: Material) -> bool:
    if base.vocabulary is tuned.vocabulary:
        return True
    sample = [*neutral_texts(), *material.heldout_texts[:20]]
    return base.vocabulary.special == tuned.vocabulary.special and all(
        base.vocabulary.tokenize(text) == tuned.vocabulary.tokenize(text) for text in sample
    )


def _of_rows(
    base: Local,
    tuned: Local,
    rows: Sequence[Row],
    config: Config,
    *,
    what: str,
    listener: Listener,
    known: Sequence[RowLoss] = (),
) -> list[RowLoss]:
    limit = config.train.max_length
    found = row_losses(
        base,
        tuned,
        [row.messages for row in rows],
        max_length=limit,
        what=what,
        listener=listener,
        known=known,
    )
    if not found:
        raise failure(
            "E_NOTHING_TO_LEARN",
            f"None of {len(rows)} rows has an answer within {limit} tokens.",
            where="train.max_length",
        )
    return found


def _perplexity(rows: Sequence[RowLoss], config: Config) -> Perplexity:
    return perplexity(rows, samples=config.compare.bootstrap_samples, seed=config.seed)
