"""Which column plays which role: applied where it is given, suggested where it is not told. Pure."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

PROMPTS = (
    "question", "query", "prompt", "instruction", "input", "request", "problem", "user", "human",
    "title", "topic", "subject", "headline", "task", "ask", "src", "source_text", "before",
    "article", "document",
)  # fmt: skip
ANSWERS = (
    "answer", "answers", "response", "completion", "output", "reply", "assistant", "solution",
    "target", "summary", "highlights", "body", "tgt", "target_text", "after", "content", "article", "story", "text",
)  # fmt: skip
TEXTS = ("text", "content", "body", "article", "document", "passage", "story", "poem", "markdown")
_SPLIT = re.compile(r"[^a-z]+")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WORDS_OF_YAML = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
_AN_ID = 12
"""Characters: columns that are shorter on average are numbers, names and labels, not text."""


def apply_columns(data: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the row with every mapped column under the name of its role.

    A column that already has that name, and is itself not mapped, gets the suffix `_column`.

    Raises:
        ValueError: The row has no column of that name; names those that it has.
    """
    missing = [column for column in columns.values() if column not in data]
    if missing:
        there = ", ".join(data) or "none"
        names = " and ".join(f"'{column}'" for column in missing)
        raise ValueError(f"there is no column {names}; the columns are {there}")
    row = {role: data[column] for role, column in columns.items()}
    moved = frozenset(columns.values())
    for key, value in data.items():
        if key in moved:
            continue
        name = key
        while name in row or (name != key and name in data):
            name += "_column"
        row[name] = value
    return row


def suggest(keys: Sequence[str], samples: Sequence[Mapping[str, Any]]) -> str:
    """Return the exact text to type so that these columns are understood.

    Told by the usual names, else by the lengths of the texts; empty where no column holds text.

    Args:
        keys: The columns.
        samples: Some of the rows.
    """
    talks = [key for key in keys if _is_conversation(key, samples)]
    if talks:
        return _typed({"messages": talks[0]})
    sizes = {key: size for key in keys if (size := _mean_length(key, samples)) > 0}
    prompt = _named(sizes, PROMPTS)
    answer = _named([key for key in sizes if key != prompt], ANSWERS)
    if prompt and answer:
        return _typed({"prompt": prompt, "completion": answer})
    ranked = sorted((key for key in sizes if sizes[key] >= _AN_ID), key=lambda key: -sizes[key])
    if prompt and any(key != prompt for key in ranked):
        return _typed({"prompt": prompt, "completion": next(k for k in ranked if k != prompt)})
    text = _named(sizes, TEXTS)
    if text or len(ranked) < 2:
        return _typed({"text": text or (ranked or list(sizes) or [""])[0]})
    return _typed({"prompt": ranked[1], "completion": ranked[0]})


def _named(keys: Sequence[str] | Mapping[str, float], names: Sequence[str]) -> str:
    """Return the column with the first of the names, whole before as a word of it; empty if none."""
    for name in names:
        whole = next((key for key in keys if key.strip().lower() == name), "")
        if whole:
            return whole
    for name in names:
        part = next((key for key in keys if name in _SPLIT.split(key.lower())), "")
        if part:
            return part
    return ""


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


def _typed(columns: Mapping[str, str]) -> str:
    if "" in columns.values():
        return ""
    if len(columns) == 1:
        ((role, column),) = columns.items()
        return "--set " + shlex.quote(f"prepare.columns.{role}={_scalar(column)}")
    pairs = ", ".join(f"{role}: {_scalar(column)}" for role, column in columns.items())
    return f"--set {shlex.quote(f'prepare.columns={{{pairs}}}')}"


def _scalar(name: str) -> str:
    """Return a column's name as YAML takes it for text."""
    if _PLAIN.fullmatch(name) and name.lower() not in _WORDS_OF_YAML:
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
