"""Rows of a dataset as conversations. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

SHOWN_WORDS = 32
"""Words at the beginning of a raw text that serve as its prompt where one is needed."""


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


def messages_of(row: Mapping[str, Any]) -> list[Message]:
    """Return a row's conversation; forms: messages, instruction(+input)+output, prompt+completion, text.

    A text is a conversation of a single turn of the assistant.

    Raises:
        ValueError: The row has none of these forms, or a field is not usable: says which.
    """
    if "messages" in row:
        return _conversation(row["messages"])
    if "instruction" in row:
        parts = (_text(row, "instruction"), _text(row, "input", required=False))
        return [
            Message(role="user", content="\n\n".join(p for p in parts if p)),
            Message(role="assistant", content=_text(row, "output")),
        ]
    if "prompt" in row:
        answer = "completion" if "completion" in row else "response"
        return [
            Message(role="user", content=_text(row, "prompt")),
            Message(role="assistant", content=_text(row, answer)),
        ]
    if "text" in row:
        return [Message(role="assistant", content=_text(row, "text"))]
    raise ValueError(
        "no known form: expected 'messages', 'instruction' and 'output', 'prompt' and 'completion', or 'text'"
    )


def is_raw(messages: Sequence[Message]) -> bool:
    """Return whether the conversation is raw text, which no template is applied to."""
    return len(messages) == 1 and messages[0]["role"] == "assistant"


def question_and_answer(messages: Sequence[Message]) -> tuple[list[Message], str]:
    """Return the prompt of a conversation and the answer that its author gave.

    A chat is split before its last turn. A raw text is split after its first 32 words, one of fewer
    than 64 words after half of them, so that prompt and answer joined are the text.
    """
    last = messages[-1]
    if not is_raw(messages):
        return list(messages[:-1]), last["content"]
    words = list(re.finditer(r"\S+", last["content"]))
    shown = max(1, min(SHOWN_WORDS, len(words) // 2))
    end = words[shown - 1].end() if words else 0
    prompt = Message(role="assistant", content=last["content"][:end])
    return [prompt], last["content"][end:]


def _conversation(value: object) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise ValueError("'messages' is not a list of turns")
    turns = [
        _turn(turn, f"messages[{index}]") for index, turn in enumerate(cast("list[object]", value))
    ]
    roles = [turn["role"] for turn in turns]
    expected = [("user", "assistant")[n % 2] for n in range(len(roles))]
    if "system" in roles[1:]:
        raise ValueError("'system' is only allowed as the first role")
    if roles[0] == "system":
        roles = roles[1:]
        expected = expected[: len(roles)]
    if roles != expected:
        raise ValueError(f"roles do not alternate user, assistant: {', '.join(roles)}")
    if not roles or roles[-1] != "assistant":
        raise ValueError("the last turn is not the assistant's")
    return turns


def _turn(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    turn = cast("dict[str, object]", value)
    role = turn.get("role")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"{where}: unknown role {role!r}")
    return Message(role=str(role), content=_text(turn, "content", where=f"{where}."))


def _text(row: Mapping[str, Any], key: str, *, required: bool = True, where: str = "") -> str:
    value = row.get(key, "" if not required else None)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"'{where}{key}' is {'missing' if key not in row else 'not text'}")
    if required and not value.strip():
        raise ValueError(f"'{where}{key}' is empty")
    return value
