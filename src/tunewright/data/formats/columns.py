"""Which column plays which role: applied where it is given, suggested where it is not told. Pure."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PROMPTS = (
    "question", "query", "prompt", "instruction", "input", "request", "problem", "user", "human",
    "title", "topic", "subject", "headline", "task", "ask", "src", "source_text", "before",
    "article", "document",
)  # fmt: skip
ANSWERS = (
    "answer", "answers", "response", "completion", "output", "reply", "assistant", "solution",
    "target", "summary", "highlights", "body", "tgt", "target_text", "after", "content", "article", "story", "text",
    "chosen",
)  # fmt: skip
TEXTS = (
    "text", "content", "body", "article", "document", "passage", "story", "poem", "markdown", "chosen",
)  # fmt: skip
QUESTIONS = (
    "instruction",
    "question",
    "query",
    "input",
    "request",
    "problem",
    "user",
    "human",
    "task",
)
"""Names under which preference data have their prompt, if not `prompt`."""
OPTIONAL = frozenset(["input", "system", "style", "tags", "negative_prompt", "agent", "source_id"])
"""Roles whose column a row may lack."""
NAMED = 20
"""Columns that a message names."""
_SPLIT = re.compile(r"[^a-z]+")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WORDS_OF_YAML = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
_ID = re.compile(
    r"(.*[ _-])?(id|idx|index|key|nr|no|num|number|uuid|date|url|lang|label|code|category|class|type|split)"
)
_AN_ID = 12
"""Characters: columns that are shorter on average are numbers, names and labels, not text."""


def apply_columns(
    data: Mapping[str, Any],
    columns: Mapping[str, str],
    renamed: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the row with every mapped column under the name of its role.

    A column that already has that name, and is itself not mapped, gets the suffix `_column`.

    Args:
        data: The row.
        columns: The column for each role.
        renamed: Such columns and their new names are added.

    Raises:
        ValueError: The row has no column of that name, and its role is not one of OPTIONAL; names those
            that it has.
    """
    missing = [c for role, c in columns.items() if c not in data and role not in OPTIONAL]
    if missing:
        names = " and ".join(f"'{column}'" for column in missing)
        raise ValueError(f"there is no column {names}; the columns are {listed(data)}")
    row = {role: data[column] for role, column in columns.items() if column in data}
    moved = frozenset(columns.values())
    for key, value in data.items():
        if key in moved:
            continue
        name = key
        while name in row or name in columns or (name != key and name in data):
            name += "_column"
        row[name] = value
        if renamed is not None and name != key:
            renamed[key] = name
    return row


def suggest(keys: Sequence[str], samples: Sequence[Mapping[str, Any]]) -> str:
    """Return the exact text to type so that these columns are understood.

    Told by the usual names, else by the lengths of the texts; empty where no column holds text.

    Args:
        keys: The columns.
        samples: Some of the rows.
    """
    keys = [key for key in keys if _plain(key) != "rejected"]
    talks = [key for key in keys if _is_conversation(key, samples)]
    if talks:
        return typed({"messages": talks[0]})
    sizes = {key: size for key in keys if (size := _mean_length(key, samples)) > 0}
    asked = {key: size for key, size in sizes.items() if _plain(key) != "chosen"}
    prompt = _named(asked, PROMPTS)
    answer = _named([key for key in sizes if key != prompt], ANSWERS)
    if prompt and answer:
        return typed({"prompt": prompt, "completion": answer})
    ranked = sorted((key for key in sizes if sizes[key] >= _AN_ID), key=lambda key: -sizes[key])
    if prompt and any(key != prompt for key in ranked):
        return typed({"prompt": prompt, "completion": next(k for k in ranked if k != prompt)})
    text = _named(sizes, TEXTS)
    others = [key for key in sizes if not _ID.fullmatch(_plain(key))]
    if not text and len(ranked) < 2 and len(others) == 2:
        # a table of short questions and answers, in a language whose names are not known here
        return typed({"prompt": others[0], "completion": others[1]})
    if text or len(ranked) < 2:
        return typed({"text": text or (ranked or list(sizes) or [""])[0]})
    return typed({"prompt": ranked[1], "completion": ranked[0]})


def question_of(data: Mapping[str, Any]) -> str:
    """Return the column that holds the prompt of preference data, by its usual names; empty if none does."""
    texts = [key for key, value in data.items() if isinstance(value, str) and value.strip()]
    return next((key for name in QUESTIONS for key in texts if _plain(key) == name), "")


def typed(columns: Mapping[str, str]) -> str:
    """Return what to type so that these columns play these roles; empty where one has no name."""
    if "" in columns.values():
        return ""
    if len(columns) == 1:
        ((role, column),) = columns.items()
        return "--set " + shlex.quote(f"prepare.columns.{role}={_scalar(column)}")
    pairs = ", ".join(f"{role}: {_scalar(column)}" for role, column in columns.items())
    return f"--set {shlex.quote(f'prepare.columns={{{pairs}}}')}"


def listed(names: Iterable[str], *, mark: str = ", ") -> str:
    """Return the first names in words, and how many more there are."""
    shown = list(names)
    more = len(shown) - NAMED
    if more > 0:
        shown = [*shown[:NAMED], f"and {more:,} more"]
    return mark.join(shown) or "none"


def _named(keys: Sequence[str] | Mapping[str, float], names: Sequence[str]) -> str:
    """Return the column with the first of the names, whole before as a word of it; empty if none."""
    for name in names:
        whole = next((key for key in keys if _plain(key) == name), "")
        if whole:
            return whole
    for name in names:
        part = next((key for key in keys if name in _SPLIT.split(key.lower())), "")
        if part:
            return part
    return ""


def _plain(key: str) -> str:
    return key.strip().lower()


def _mean_length(key: str, samples: Sequence[Mapping[str, Any]]) -> float:
    texts = [row[key] for row in samples if isinstance(row.get(key), str)]
    return sum(map(len, texts)) / len(texts) if texts else 0.0


def _is_conversation(key: str, samples: Sequence[Mapping[str, Any]]) -> bool:
    values = [row[key] for row in samples if isinstance(row.get(key), list) and row[key]]
    return bool(values) and all(
        isinstance(turn, Mapping) and ("role" in turn or "from" in turn)
        for turns in values
        for turn in turns
    )


def _scalar(name: str) -> str:
    """Return a column's name as YAML takes it for text."""
    if _PLAIN.fullmatch(name) and name.lower() not in _WORDS_OF_YAML:
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
