"""Rows examined one batch at a time: tokens, masks, ends, secrets, languages, copies."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
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
from tunewright.models._load import vocabulary_of
from tunewright.models.chat import Encoded, Vocabulary, encode_many, messages_of, runs_of
from tunewright.models.lengths import Excess, excess, fit
from tunewright.privacy import emails_in, secrets_in

BATCH = 512
NO_ORIGIN = 0
MAIN_LANGUAGE_SHARE = 0.95
"""With less than this in one language the mix is worth a warning."""


@dataclass
class Measured:
    """Sums over the rows of all sides, fitted to the limit as training does it.

    Attributes:
        excess: What the limit costs.
        rows_dropped: Rows that the strategy `drop` leaves out.
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
        stream = iter(sides)
        while batch := list(islice(stream, BATCH)):
            encoded = encode_many([messages_of(row) for _, row in batch], self._vocabulary)
            for (where, row), item in zip(batch, encoded, strict=True):
                self._row(row, item, where, stride)
            listener.advanced(self.measured.excess.rows, "")
        self._cut.close()

    def _row(self, row: Mapping[str, Any], item: Encoded, where: str, stride: int) -> None:
        found = self.measured
        text = text_of(row)
        if found.excess.rows % stride == 0:
            found.sample.append(text[:2000])
        if len(self.shown) < self._config.check.show:
            runs = runs_of(item, lambda ids: str(self._tokenizer.decode(ids)))
            learned = [{"text": part, "learned": mark} for part, mark in runs]
            self.shown.append({"source": row.get("source"), "where": where, "runs": learned})
        found.lengths.append(len(item.input_ids))
        origin = row.get("source_id")
        found.origins.append(NO_ORIGIN if origin is None else content_digest(str(origin)))
        self._lengths(item, where)
        self._text(text, where)

    def _lengths(self, item: Encoded, where: str) -> None:
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
            found.rows_dropped += strategy == "drop"
            self._cut.add(
                {"where": where, "tokens": fitted.length, "tokens_lost": fitted.tokens_lost}
                | {"trained_lost": fitted.trained_lost, "pieces": len(fitted.rows)}
            )

    def _text(self, text: str, where: str) -> None:
        code = "W_SECRET" if self._config.check.allow_secrets else "E_SECRET"
        for secret in secrets_in(text):
            message = f"What looks like a secret ({secret.kind}) is in the text: {secret.shown}."
            self.findings.add(code, message, where)
        for email in emails_in(text):
            self.findings.add("W_EMAIL", f"An e-mail address is in the text: {email.shown}.", where)
        typed = [token for token in self._vocabulary.special if token in text]
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
            message = f"There are only {len(sides)} rows."
            self.findings.add("W_SMALL", message, where)
        self._judge_cuts(where)
        self._judge_ends(where)
        found = self.measured
        shares = languages(found.sample)
        if shares and next(iter(shares.values())) < MAIN_LANGUAGE_SHARE:
            words = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:5])
            self.findings.add("W_LANGUAGE", f"The texts are in several languages: {words}.", where)
        strange, least, most = outliers(found.lengths)
        for row in strange:
            message = (
                f"The row has {found.lengths[row]:,} tokens; most have {least:,.0f} to {most:,.0f}."
            )
            self.findings.add("W_OUTLIER", message, sides.place(row))
        cost = found.excess
        return {
            "sources_on_both_sides": self._judge_origins(sides),
            "rows": cost.rows,
            "rows_kept": cost.rows_kept,
            "tokens": cost.tokens,
            "trained_tokens": cost.trained_tokens,
            "rows_cut": cost.rows_too_long,
            "tokens_lost": cost.tokens_lost,
            "trained_tokens_lost": cost.trained_lost,
            "rows_dropped": found.rows_dropped,
            "rows_without_labels": cost.rows_unlearned - found.rows_dropped,
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
        cost, options = self.measured.excess, self._config.train
        done = {"truncate": "cut", "drop": "left out", "split": "cut into several"}
        if cost.rows_too_long and options.excess_length_strategy in done:
            message = (
                f"{cost.rows_too_long:,} of {cost.rows:,} rows are longer than {options.max_length:,} "
                f"tokens and are {done[options.excess_length_strategy]}: {cost.tokens_lost:,} tokens "
                f"are lost, {cost.trained_lost:,} of them to be learned. The longest has "
                f"{cost.longest:,}."
            )
            self.findings.add("W_CUT", message, where)
        # what `drop` leaves out is no row that training would learn nothing from
        unlearned = cost.rows_unlearned - self.measured.rows_dropped
        if unlearned or not cost.rows_kept:
            message = f"{cost.rows_unlearned:,} of {cost.rows:,} rows have no answer to learn after the cut."
            fix = f"Raise train.max_length; the longest row has {cost.longest:,} tokens."
            refused = unlearned > self._config.check.max_unlearned * cost.rows or not cost.rows_kept
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
        if endless > self._config.check.max_cut * cost.rows:
            message = f"{endless:,} of {cost.rows:,} rows lose the end of their answer."
            fix = f"Raise train.max_length to {cost.longest}."
            self.findings.add("E_EOS_NOT_LEARNED", message, where, fix)


def _ends(piece: Encoded, vocabulary: Vocabulary) -> bool:
    learned = [token for token, mark in zip(piece.input_ids, piece.mask, strict=True) if mark]
    return bool(learned) and learned[-1] in vocabulary.ends
