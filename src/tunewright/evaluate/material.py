"""What is asked, and what the author wrote: from a dataset, and from prompts of the user's own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunewright.errors import Problem, TunewrightError, failure
from tunewright.evaluate.style import passages, words_of
from tunewright.models.messages import Message, messages_of, question_and_answer

MAX_MARKER_PASSAGES = 500

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """A row of the dataset.

    Attributes:
        messages: The conversation.
        source: Where it comes from.
        source_id: What it was made of, where that is known: rows of one original have the same.
    """

    messages: list[Message]
    source: str
    source_id: str | None = None

    @property
    def texts(self) -> list[str]:
        """What the author wrote: the trained text."""
        return [m["content"] for m in self.messages if m["role"] == "assistant"]


@dataclass(frozen=True)
class Question:
    """Something that both sides are asked.

    Attributes:
        messages: What they read.
        author: What the author answered; None for a prompt of the user's own.
    """

    messages: list[Message]
    author: str | None = None

    @property
    def prompt(self) -> str:
        """What it is shown as: the last turn."""
        return self.messages[-1]["content"]

    @property
    def whole(self) -> str:
        """All turns, as a person reads them."""
        if len(self.messages) == 1:
            return self.prompt
        return "\n\n".join(f"{m['role']}: {m['content']}" for m in self.messages)


@dataclass(frozen=True)
class Material:
    """What the sides are compared on; without a dataset there are only the user's own prompts.

    Attributes:
        heldout: The dataset's held-out rows.
        training: Its training rows.
        questions: What both sides are asked, those of the held-out rows first.
    """

    heldout: list[Row]
    training: list[Row]
    questions: list[Question]

    @property
    def prompts(self) -> tuple[list[list[Message]], list[list[Message]]]:
        """What is asked: of the held-out rows, and the user's own."""
        rows = [q.messages for q in self.questions if q.author is not None]
        return rows, [q.messages for q in self.questions[len(rows) :]]

    @property
    def heldout_texts(self) -> list[str]:
        """What the author wrote in the held-out rows."""
        return [text for row in self.heldout for text in row.texts]

    @property
    def training_texts(self) -> list[tuple[str, str]]:
        """Source and text of all that the author wrote in the training rows."""
        return [(row.source, text) for row in self.training for text in row.texts]


def read(
    dataset: Path | None, *, num_prompts: int, prompts: Sequence[str], prompts_file: str | None
) -> Material:
    """Return what is asked and compared with.

    Held-out rows are asked in turn, again and again until there are `num_prompts`; each time with another seed.

    Raises:
        TunewrightError: E_DATA_EMPTY, there is nothing to ask. E_DATA_ROW, a row is not a conversation.
            E_NOT_FOUND, there is no such file of prompts.
    """
    heldout = rows_of(dataset / "eval.jsonl") if dataset else []
    training = rows_of(dataset / "train.jsonl") if dataset else []
    chosen = spread(heldout, num_prompts)
    asked = [chosen[n % len(chosen)] for n in range(num_prompts)] if chosen else []
    system = [m for row in heldout[:1] for m in row.messages if m["role"] == "system"]
    own = [[Message(role="user", content=prompt)] for prompt in prompts]
    own += own_prompts(Path(prompts_file)) if prompts_file else []
    questions = [
        *(Question(*question_and_answer(row.messages)) for row in asked),
        *(Question([*(system if given[0]["role"] == "user" else []), *given]) for given in own),
    ]
    if not questions:
        raise failure("E_DATA_EMPTY", "There is nothing to ask.", where="compare.prompts")
    return Material(heldout, training, questions)


def rows_of(file: Path) -> list[Row]:
    """Return the rows of a JSONL file.

    Raises:
        TunewrightError: E_DATA_EMPTY, there are none. E_DATA_ROW, one is not a conversation.
    """
    rows: list[Row] = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                origin = row.get("source_id")
                rows.append(
                    Row(
                        messages_of(row),
                        str(row.get("source", f"row {number}")),
                        None if origin is None else str(origin),
                    )
                )
            except (ValueError, AttributeError, TypeError) as error:
                raise failure("E_DATA_ROW", f"{error}.", where=f"{file}:{number}") from error
    if not rows:
        raise failure("E_DATA_EMPTY", "There are no rows to compare with.", where=file)
    return rows


def own_prompts(file: Path) -> list[list[Message]]:
    """Return the prompts of a file: of each row of a `.jsonl` its question, else each line.

    Raises:
        TunewrightError: E_NOT_FOUND, there is no such file. E_DATA_ROW for every row that has no prompt, or
            for a file that is not UTF-8. E_DATA_EMPTY, there are none.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise failure("E_NOT_FOUND", "There is no such file of prompts.", where=file) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        fix = "Name a text file with one prompt a line, or a .jsonl."
        raise failure(
            "E_DATA_ROW", f"The prompts cannot be read: {reason}.", where=file, fix=fix
        ) from error
    found: list[list[Message]] = []
    problems: list[Problem] = []
    fix = 'Write a question, or `{"prompt": ...}`, in each line.'
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(
                _question(json.loads(line))
                if file.suffix == ".jsonl"
                else [Message(role="user", content=line.strip())]
            )
        except (ValueError, TypeError) as error:
            problems.append(Problem("E_DATA_ROW", f"{error}.", f"{file}:{number}", fix))
    if problems:
        raise TunewrightError(problems)
    if not found:
        raise failure("E_DATA_EMPTY", "The file holds no prompt.", where=file, fix=fix)
    return found


def _question(row: Any) -> list[Message]:
    """Return what a row asks, whether it has an answer or not.

    Raises:
        ValueError: It asks nothing.
    """
    if not isinstance(row, dict):
        raise ValueError("not an object with `prompt`, or with another form of row")
    if set(row) == {"prompt"}:
        row = {**row, "completion": "-"}
    elif isinstance(row.get("messages"), list) and row["messages"][-1:]:
        last = row["messages"][-1]
        if isinstance(last, dict) and last.get("role") == "user":
            row = {"messages": [*row["messages"], {"role": "assistant", "content": "-"}]}
    return question_and_answer(messages_of(row))[0]


def matched(texts: Sequence[str], author: Sequence[str]) -> list[str]:
    """Return passages of the author's text that are as long as the answers `texts` are on average."""
    length = max(1, round(sum(len(words_of(text)) for text in texts) / len(texts)))
    own = spread(author, MAX_MARKER_PASSAGES)
    return spread([p for text in own for p in passages(text, length)], MAX_MARKER_PASSAGES)


def up_to(texts: Sequence[str], max_words: int) -> list[str]:
    """Return whole texts from the beginning until there are as many words."""
    result: list[str] = []
    words = 0
    for text in texts:
        result.append(text)
        words += len(words_of(text))
        if words >= max_words:
            break
    return result


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return all, or of too many, evenly spread ones."""
    if len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]
