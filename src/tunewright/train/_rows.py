"""Dataset files to token rows with labels."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.config.schema import TrainSection
from tunewright.errors import failure
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import encode_many, messages_of
from tunewright.models.lengths import Fitted, fit

IGNORED = -100


def read_side(file: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of train.jsonl or eval.jsonl, the first `limit` of them."""
    with file.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in islice(stream, limit)]


def fitted_rows(
    rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, options: TrainSection
) -> list[Fitted]:
    """Return each row as tokens within max_length, with what that costs it.

    Raises:
        TunewrightError: E_TOO_LONG, a row is too long and `excess_length_strategy` is raise.
    """
    vocabulary = vocabulary_of(tokenizer, allow_special=options.allow_special)
    encoded = encode_many([messages_of(row) for row in rows], vocabulary)
    try:
        return [fit(item, options.max_length, options.excess_length_strategy) for item in encoded]
    except ValueError as error:
        raise failure("E_TOO_LONG", f"{error}.", where="train.max_length") from error


def token_rows(
    rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, options: TrainSection
) -> list[dict[str, Any]]:
    """Return input_ids, labels and number of each row, fitted to max_length; rows with nothing to learn are left out.

    The number is that of the row given, from 1: its line in the dataset's file.

    Raises:
        TunewrightError: E_TOO_LONG, a row is too long and `excess_length_strategy` is raise.
    """
    return as_token_rows(fitted_rows(rows, tokenizer, options))


def as_token_rows(fitted: list[Fitted]) -> list[dict[str, Any]]:
    """Return what `token_rows` returns of rows that are fitted already."""
    return [
        {
            "input_ids": piece.input_ids,
            "labels": [
                token if learned else IGNORED
                for token, learned in zip(piece.input_ids, piece.mask, strict=True)
            ],
            "number": number,
        }
        for number, row in enumerate(fitted, 1)
        for piece in row.rows
        if any(piece.mask)
    ]
