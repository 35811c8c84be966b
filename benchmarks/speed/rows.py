"""The shapes, and the rows of each set. Pure: they depend on the vocabulary and on the seed, on nothing else.

Rows are ids. Each has a text as well, one word an id, for those that tokenise by themselves.
"""

import json
import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORED = -100
SEED = 42
SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768,
        "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    },
    "medium": {
        "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1536,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
    },
    "qwen3-0.6b": {
        "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    },
}  # fmt: skip
"""`small` is the shape of the bundled base; all with tied embeddings."""
PAD, USER, ASSISTANT, END = range(4)
SPECIAL = ("<pad>", "<user>", "<assistant>", "<end>")
FIRST_WORD = len(SPECIAL)
SHORT = (60, 200)
"""Tokens of a short row, the shared prefix among them."""
OWN = 30
"""Tokens that a short row has at least beside the prefix."""
CHUNK = (700, 4096)
ROWS = 192
ADAPTERS, ROWS_EACH = 16, 100
SETS = ("A0", "A30", "A100", "B", "C")


ROWS_A_STEP = "TRAIN_SPEED_ROWS_A_STEP"
"""Variable of the environment, so that it reaches every process."""


def rows_a_step() -> int:
    """Return the rows of an optimizer step: 8 unless something else was asked for."""
    return int(os.environ.get(ROWS_A_STEP, "8"))


def folder_of(name: str, count: int) -> str:
    """Return the name of a set's folder: the order of its rows depends on how many a step has."""
    return f"{name}-{count}" if rows_a_step() == 8 else f"{name}-{count}-by-{rows_a_step()}"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        prompt: Ids that are given; empty: raw text.
        answer: Ids to learn, without the end.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def input_ids(self) -> list[int]:
        """The row as the model reads it."""
        if not self.prompt:
            return [*self.answer, END]
        return [USER, *self.prompt, ASSISTANT, *self.answer, END]

    @property
    def labels(self) -> list[int]:
        """What it learns: the answer and its end."""
        given = len(self.prompt) + 2 if self.prompt else 0
        return [IGNORED] * given + self.input_ids[given:]

    @property
    def text(self) -> dict[str, str]:
        """The row as a line of a dataset."""
        if not self.prompt:
            return {"text": words(self.answer)}
        return {"prompt": words(self.prompt), "completion": words(self.answer)}


def words(ids: Sequence[int]) -> str:
    """Return the text that is tokenised to these ids."""
    return " ".join(f"w{i}" for i in ids)


def rows_of(name: str, *, vocabulary: int, count: int, seed: int = 0) -> list[list[Row]]:
    """Return the rows of a set, for each adapter that is trained on it; all but C have one.

    Args:
        name: A0, A30, A100, B or C.
        vocabulary: Ids that the model knows.
        count: Rows an adapter; C has 100.
        seed: Of the choice of ids and lengths.
    """
    chosen = random.Random(f"{name}/{vocabulary}/{seed}")

    def ids(length: int) -> tuple[int, ...]:
        return tuple(chosen.randrange(FIRST_WORD, vocabulary) for _ in range(length))

    def short(prefix: tuple[int, ...]) -> Row:
        # The template's first token opens the prefix, so that a prefix of 30 is 29 words.
        length = chosen.randint(max(SHORT[0], len(prefix) + 1 + OWN), SHORT[1])
        own = length - len(prefix) - 3
        answer = own // 2
        return Row(prefix + ids(own - answer), ids(answer))

    if name == "B":
        low, high = (math.log(n) for n in CHUNK)
        lengths = [round(math.exp(chosen.uniform(low, high))) for _ in range(count)]
        return [[Row((), ids(length - 1)) for length in lengths]]
    if name == "C":
        return [[short(()) for _ in range(ROWS_EACH)] for _ in range(ADAPTERS)]
    prefix = ids(max(0, int(name[1:]) - 1))
    return [[short(prefix) for _ in range(count)]]


@dataclass(frozen=True)
class Work:
    """What the first steps of a set have to do, however it is done.

    Attributes:
        tokens: Of all rows; padding is not counted, a shared prefix is in every row.
        labels: Tokens that are predicted.
        squares: Sum of the squared lengths of the rows, for attention.
    """

    tokens: int
    labels: int
    squares: int

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.tokens + other.tokens, self.labels + other.labels, self.squares + other.squares
        )


def work_of(rows: Sequence[dict[str, list[int]]], first: int, last: int, rows_a_step: int) -> Work:
    """Return the work of steps `first` to `last`, counted from 1, both included."""
    used = rows[(first - 1) * rows_a_step : last * rows_a_step]
    return Work(
        tokens=sum(len(row["input_ids"]) for row in used),
        # The first token of a row has none before it that could predict it.
        labels=sum(label != IGNORED for row in used for label in row["labels"][1:]),
        squares=sum(len(row["input_ids"]) ** 2 for row in used),
    )


def read_rows(file: Path) -> list[dict[str, list[int]]]:
    """Return the token rows of a file."""
    return json.loads(file.read_text(encoding="utf-8"))
