"""Rows examined one batch at a time: tokens, masks, ends, secrets, languages, copies."""

from array import array
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from tunewright.config.schema import Config
from tunewright.data._gathered import text_of
from tunewright.data._language import SAMPLE_ROWS, languages
from tunewright.data._sides import Sides
from tunewright.data._split import SMALL_SET, content_digest
from tunewright.data._statistics import lengths_of, outliers
from tunewright.data.findings import Findings
from tunewright.data.spool import Spool
from tunewright.events import Listener
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import Encoded, Vocabulary, encode_many, messages_of, runs_of
from tunewright.models.lengths import Excess, Fitted, excess, fit
from tunewright.privacy import emails_in, secrets_in, texts_in

BATCH = 512
BATCH_CHARACTERS = 500_000
NO_ORIGIN = 0
MAIN_LANGUAGE_SHARE = 0.95
"""With less than this in one language the mix is worth a warning."""
LEAST_TOLD = 20
"""Texts whose language could be told, from which shares mean something."""


@dataclass
class Measured:
    """Sums over the rows of all sides, fitted to the limit as training does it.

    Attributes:
        excess: What the limit costs.
        rows_dropped: Too long rows of which nothing is left.
        first_cut: Where the first row is that is too long.
        rows_with_end: Rows whose last answer ends in a learned end-of-sequence token.
        rows_whole: Rows that keep the end of their answer.
        rows_whole_without_end: Of these, those whose end is not learned.
        special_tokens_typed: Rows with a special token typed in their text.
        lengths: Tokens of each row before the cut.
        origins: 64 bits that stand for each row's source_id, NO_ORIGIN where it has none.
        sample: Texts that languages are told from.
    """

    excess: Excess = field(default_factory=Excess)
    rows_dropped: int = 0
    first_cut: str = ""
    rows_with_end: int = 0
    rows_whole: int = 0
    rows_whole_without_end: int = 0
    special_tokens_typed: int = 0
    lengths: "array[int]" = field(default_factory=lambda: array("l"))
    origins: "array[int]" = field(default_factory=lambda: array("Q"))
    sample: list[str] = field(default_factory=list[str])


class Examination:
    """Examines sides of a dataset and collects findings."""

    def __init__(
        self,
        config: Config,
        tokenizer: PreTrainedTokenizerFast,
        work: Path,
        findings: Findings,
    ) -> None:
        self.findings = findings
        self.measured = Measured()
        self.shown: list[dict[str, Any]] = []
        self._config = config
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary_of(tokenizer, allow_special=config.train.allow_special)
        self._cut = Spool(work / "cut.jsonl")

    def rows(self, sides: Sides, listener: Listener) -> None:
        """Examine every row on its own."""
        stride = max(1, len(sides) // SAMPLE_ROWS)
        listener.started("check rows", len(sides), "rows")
        with closing(self._cut):
            for batch in _batches(sides):
                encoded = encode_many([messages_of(row) for _, row in batch], self._vocabulary)
                for (where, row), item in zip(batch, encoded, strict=True):
                    self._row(row, item, where, stride)
                listener.advanced(self.measured.excess.rows, "")

    def _row(self, row: Mapping[str, Any], item: Encoded, where: str, stride: int) -> None:
        found = self.measured
        text = text_of(row)
        if found.excess.rows % stride == 0:
            found.sample.append(text[:2000])
        found.lengths.append(len(item.input_ids))
        origin = row.get("source_id")
        found.origins.append(NO_ORIGIN if origin is None else content_digest(str(origin)))
        fitted = self._lengths(item, where)
        self._text(row, where)
        if fitted.rows and len(self.shown) < self._config.check.show:
            self.shown.append(self._rendered(row, fitted, where))

    def _lengths(self, item: Encoded, where: str) -> Fitted:
        found, options = self.measured, self._config.train
        limit, strategy = options.max_length, options.excess_length_strategy
        if strategy == "raise" and fit(item, limit, "truncate").too_long:
            message = f"The row has {len(item.input_ids):,} tokens, the limit is {limit:,}."
            self.findings.add("E_TOO_LONG", message, where)
        fitted = fit(item, limit, "truncate" if strategy == "raise" else strategy)
        found.excess += excess([fitted])
        ends = bool(fitted.rows) and _ends(fitted.rows[-1], self._vocabulary)
        found.rows_with_end += ends
        if fitted.rows and not fitted.end_lost:
            found.rows_whole += 1
            found.rows_whole_without_end += not ends
        if fitted.too_long:
            found.rows_dropped += not fitted.rows
            found.first_cut = found.first_cut or where
            self._cut.add(
                {"where": where, "tokens": fitted.length, "tokens_lost": fitted.tokens_lost}
                | {"trained_lost": fitted.trained_lost, "pieces": len(fitted.rows)}
            )
        return fitted

    def _rendered(self, row: Mapping[str, Any], fitted: Fitted, where: str) -> dict[str, Any]:
        """Return a row as it is trained on: runs of text, learned or not, of all its pieces."""
        runs = [
            {"text": text, "learned": learned, "piece": number}
            for number, piece in enumerate(fitted.rows)
            for text, learned in runs_of(piece, lambda ids: str(self._tokenizer.decode(ids)))
        ]
        return {
            "source": row.get("source"),
            "where": where,
            "tokens_lost": fitted.tokens_lost if fitted.too_long else 0,
            "runs": runs,
        }

    def _text(self, row: Mapping[str, Any], where: str) -> None:
        """Look for secrets and addresses in every text of the row, and special tokens in its messages."""
        code = "W_SECRET" if self._config.check.allow_secrets else "E_SECRET"
        whole = "\n".join(texts_in(row))
        for secret in secrets_in(whole):
            message = f"What looks like a secret ({secret.kind}) is in the row: {secret.shown}."
            self.findings.add(code, message, where)
        for email in emails_in(whole):
            self.findings.add("W_EMAIL", f"An e-mail address is in the row: {email.shown}.", where)
        typed = [
            token
            for token in self._vocabulary.special
            if token in whole and any(token in m["content"] for m in messages_of(row))
        ]
        if typed:
            self.measured.special_tokens_typed += 1
            acts = self._config.train.allow_special
            effect = "acts as one (train.allow_special)" if acts else "is trained on as plain text"
            message = f"The special token {typed[0]} is typed in the text; it {effect}."
            self.findings.add("W_SPECIAL", message, where)

    def whole(self, sides: Sides) -> dict[str, Any]:
        """Judge the rows together, add what is found, and return the figures as JSON values."""
        where = sides.where
        if len(sides) < SMALL_SET:
            message = (
                f"There {'is only one row' if len(sides) == 1 else f'are only {len(sides)} rows'}."
            )
            self.findings.add("W_SMALL", message, where)
        self._judge_cuts(where)
        self._judge_ends(where)
        found = self.measured
        told, shares = languages(found.sample)
        if told >= LEAST_TOLD and next(iter(shares.values())) < MAIN_LANGUAGE_SHARE:
            words = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:5])
            message = f"The texts are in several languages: {words} (of {told:,} that can be told)."
            self.findings.add("W_LANGUAGE", message, where)
        strange, middle = outliers(found.lengths)
        for row in strange:
            message = (
                f"The row has {found.lengths[row]:,} tokens, far from the others: the middle half has "
                f"{middle[0]:,.0f} to {middle[1]:,.0f}."
            )
            full = self.findings.full("W_OUTLIER")
            self.findings.add("W_OUTLIER", message, "" if full else sides.place(row))
        cost = found.excess
        is_drop = self._config.train.excess_length_strategy == "drop"
        dropped = found.rows_dropped if is_drop else 0
        return {
            "sources_on_both_sides": self._judge_origins(sides),
            "rows": cost.rows,
            "rows_kept": cost.rows_kept,
            "tokens": cost.tokens,
            "trained_tokens": cost.trained_tokens,
            "rows_cut": cost.rows_too_long,
            "tokens_lost": cost.tokens_lost,
            "trained_tokens_lost": cost.trained_lost,
            "rows_dropped": dropped,
            "rows_without_labels": cost.rows_unlearned - dropped,
            "rows_with_end": found.rows_with_end,
            "rows_whole_without_end": found.rows_whole_without_end,
            "special_tokens_typed": found.special_tokens_typed,
            "longest": cost.longest,
            "lengths": lengths_of(found.lengths),
            "languages": {name: round(share, 4) for name, share in shares.items()},
            "outliers": len(strange),
        }

    def _judge_origins(self, sides: Sides) -> int:
        """Return how many held-out rows have the source_id of a training row."""
        origins = np.asarray(self.measured.origins)
        train, held = origins[: sides.border], origins[sides.border :]
        train = train[train != NO_ORIGIN]
        if not sides.border or not len(train):
            return 0
        leaking = np.flatnonzero(np.isin(held, train)) + sides.border
        code = "W_LEAK" if self._config.check.allow_leakage else "E_LEAK"
        for row in leaking.tolist():
            full = self.findings.full(code)
            name = "" if full else sides.row(row)["source_id"]
            message = f"The source of the held-out row, {name}, also has training rows."
            self.findings.add(code, message, "" if full else sides.place(row))
        return len(leaking)

    def _judge_cuts(self, where: str) -> None:
        cost, options, limits = self.measured.excess, self._config.train, self._config.check
        strategy = options.excess_length_strategy
        dropped = self.measured.rows_dropped if strategy == "drop" else 0
        if cost.rows_too_long and strategy != "raise":
            done = {
                "truncate": "their ends are cut",
                "drop": f"{dropped:,} of them are left out, {cost.rows_kept:,} rows remain",
                "split": f"they are cut up, which makes {cost.rows_kept:,} rows in all",
            }
            message = (
                f"{cost.rows_too_long:,} of {cost.rows:,} rows are longer than {options.max_length:,} "
                f"tokens, the longest has {cost.longest:,}; {done[strategy]}. {cost.tokens_lost:,} "
                f"tokens are lost, {cost.trained_lost:,} of them to be learned."
            )
            fix = f"Raise train.max_length{'' if strategy == 'split' else ', or --set train.excess_length_strategy=split'}"
            self.findings.add("W_CUT", message, self.measured.first_cut, fix)
        # what `drop` leaves out is no row that training would learn nothing from
        unlearned = cost.rows_unlearned - dropped
        fix = f"Raise train.max_length; the longest row has {cost.longest:,} tokens."
        if dropped > limits.max_cut * cost.rows:
            message = f"{dropped:,} of {cost.rows:,} rows are too long and would be left out."
            self.findings.add("E_NOTHING_TO_LEARN", message, where, fix)
        elif unlearned:
            message = f"{unlearned:,} of {cost.rows:,} rows have no answer to learn after the cut."
            refused = unlearned > limits.max_unlearned * cost.rows
            code = "E_NOTHING_TO_LEARN" if refused else "W_UNLEARNED"
            self.findings.add(code, message, where, fix)

    def _judge_ends(self, where: str) -> None:
        found, cost = self.measured, self.measured.excess
        if found.rows_whole_without_end:
            message = (
                f"The end of {found.rows_whole_without_end:,} of {found.rows_whole:,} answers is not "
                "learned: the chat template writes no end-of-sequence token after an answer."
            )
            fix = "Correct the template, or choose one: --set model.chat_template=alpaca."
            self.findings.add("E_EOS_NOT_LEARNED", message, where, fix)
        # a row of which nothing is left does not teach an answer without an end
        endless = cost.rows_without_end - cost.rows_unlearned
        raises = self._config.train.excess_length_strategy == "raise"
        if endless > self._config.check.max_cut * cost.rows and not raises:
            message = f"{endless:,} of {cost.rows:,} rows lose the end of their answer."
            fix = f"Raise train.max_length to {cost.longest}."
            self.findings.add("E_EOS_NOT_LEARNED", message, where, fix)


def _batches(sides: Sides) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Yield rows in batches of bounded length: the tokens of a batch are all in memory."""
    batch: list[tuple[str, dict[str, Any]]] = []
    characters = 0
    for where, row in sides:
        batch.append((where, row))
        characters += sum(len(message["content"]) for message in messages_of(row))
        if len(batch) == BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _ends(piece: Encoded, vocabulary: Vocabulary) -> bool:
    learned = [token for token, mark in zip(piece.input_ids, piece.mask, strict=True) if mark]
    return bool(learned) and learned[-1] in vocabulary.ends
