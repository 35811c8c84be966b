"""Dataset files to token rows with labels."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.config.schema import TrainSection
from tunewright.errors import failure
from tunewright.models._load import vocabulary_of
from tunewright.models.chat import Encoded, encode_many, messages_of
from tunewright.models.lengths import fit

IGNORED = -100


def read_side(file: Path) -> list[dict[str, Any]]:
    """Return the rows of train.jsonl or eval.jsonl."""
    with file.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def token_rows(
    rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, options: TrainSection
) -> list[dict[str, list[int]]]:
    """Return input_ids and labels of each row, fitted to max_length; rows with nothing to learn are left out.

    Raises:
        TunewrightError: E_TOO_LONG, a row is too long and `excess_length_strategy` is raise.
    """
    vocabulary = vocabulary_of(tokenizer, allow_special=options.allow_special)
    pieces: list[Encoded] = []
    for item in encode_many([messages_of(row) for row in rows], vocabulary):
        try:
            pieces += fit(item, options.max_length, options.excess_length_strategy).rows
        except ValueError as error:
            raise failure("E_TOO_LONG", f"{error}.", where="train.max_length") from error
    return [
        {
            "input_ids": piece.input_ids,
            "labels": [
                token if learned else IGNORED
                for token, learned in zip(piece.input_ids, piece.mask, strict=True)
            ],
        }
        for piece in pieces
        if any(piece.mask)
    ]
