"""Dataset files to token rows with labels."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.models._load import vocabulary_of
from tunewright.models.chat import encode, messages_of

IGNORED = -100


def read_side(file: Path) -> list[dict[str, Any]]:
    """Return the rows of train.jsonl or eval.jsonl."""
    with file.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def token_rows(
    rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> list[dict[str, list[int]]]:
    """Return input_ids and labels of each row, cut at max_length; rows with nothing to learn are left out."""
    vocabulary = vocabulary_of(tokenizer)
    encoded = [encode(messages_of(row), vocabulary) for row in rows]
    tokens = [
        {
            "input_ids": item.input_ids[:max_length],
            "labels": [
                token if learned else IGNORED
                for token, learned in zip(item.input_ids, item.mask, strict=True)
            ][:max_length],
        }
        for item in encoded
    ]
    return [row for row in tokens if any(label != IGNORED for label in row["labels"])]
