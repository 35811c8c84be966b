"""Lists of messages, as OpenAI or ShareGPT write them, to one form. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunewright.data.formats.jsontext import kind

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
_TOOLS = frozenset(
    ["tool", "function", "function_call", "function-call", "observation", "ipython", "tool_call"]
)
_MASKS = ("weight", "train", "loss")
"""Keys of a message that say whether it is learned."""
_CALLS = ("tool_calls", "function_call", "tools", "functions")


def text_problem(value: Any, *, may_be_empty: bool = False) -> str:
    """Return why a value is no text to learn from; empty if it is."""
    if isinstance(value, str):
        if "\0" in value:
            return "holds a NUL character"
        if value.strip() or (may_be_empty and not value):
            return ""
        return "is only white space" if value else "is empty"
    return "is null" if value is None else f"is {kind(value)}, not text"


def calls_problem(data: Mapping[str, Any]) -> str:
    """Return which field is about tools, in words; empty if none is."""
    found = next((name for name in _CALLS if data.get(name)), "")
    return f"{found} is there: tools are not supported" if found else ""


def conversation(value: Any, name: str, problems: list[str]) -> list[dict[str, str]]:
    """Return the messages of a field with the roles system, user and assistant.

    Args:
        value: The field.
        name: Its name, for the problems.
        problems: What is wrong is added: each text names its place, `messages[2].content is null`.
    """
    if not isinstance(value, list):
        problems.append(f"{name} is {kind(value)}, not a list of messages")
        return []
    if not value:
        problems.append(f"{name} is empty")
    messages: list[dict[str, str]] = []
    for number, item in enumerate(value):
        where = f"{name}[{number}]"
        if isinstance(item, Mapping):
            messages.append(_message(item, where, problems))
        else:
            problems.append(f"{where} is {kind(item)}, not a message")
    return messages


def order_problems(messages: list[dict[str, str]], name: str) -> list[str]:
    """Return what is wrong with the order of the turns: system?, then user and assistant in turn."""
    roles = [message["role"] for message in messages]
    problems: list[str] = []
    if roles.count("system") > 1:
        problems.append(f"{name} has two system turns")
    elif "system" in roles[1:]:
        problems.append(f"{name} has a system turn that is not the first")
    turns = [role for role in roles if role != "system"]
    if "assistant" not in turns:
        return [*problems, f"{name} has no assistant turn"]
    if turns[0] == "assistant":
        problems.append(f"{name} begins with an assistant turn")
    for number in range(1, len(roles)):
        if roles[number] == roles[number - 1] != "system":
            problems.append(f"{name}[{number}] is a second {roles[number]} turn in a row")
    if turns[-1] == "user":
        problems.append(f"{name} ends with a user turn")
    return problems


def left_out(messages: Sequence[Any]) -> Iterator[str]:
    """Yield each key of the messages that says something and is not used."""
    for item in messages:
        if not isinstance(item, Mapping) or len(item) <= 2:
            continue
        used = ("from", "value") if "from" in item else ("role", "content")
        learned = ROLES.get(item.get(used[0], "")) == "assistant"
        for key, value in item.items():
            # 1 is how answers, and 0 how other messages are trained on anyway.
            idle = key in _MASKS and value == learned
            if key not in used and not idle and value is not None and value not in ("", [], {}):
                yield key


def _message(item: Mapping[str, Any], where: str, problems: list[str]) -> dict[str, str]:
    """Return a message; a role or content that cannot be used is empty, and named."""
    role_key, text_key = ("from", "value") if "from" in item else ("role", "content")
    role = _role(item.get(role_key), f"{where}.{role_key}", problems)
    calls = calls_problem(item)
    if calls:
        problems.append(f"{where}.{calls}")
    problems.extend(_mask_problems(item, role, where))
    place = f"{where}.{text_key}"
    if text_key not in item:
        problems.append(f"{place} is missing")
        return {"role": role, "content": ""}
    before = len(problems)
    content = item[text_key]
    if isinstance(content, list):
        content = _joined(content, place, problems)
    # An empty system turn keeps a template from putting its own there.
    reason = text_problem(content, may_be_empty=role == "system")
    if reason and not calls and len(problems) == before:
        problems.append(f"{place} {reason}")
    return {"role": role, "content": content if isinstance(content, str) else ""}


def _mask_problems(item: Mapping[str, Any], role: str, where: str) -> Iterator[str]:
    """Yield what a message asks for and cannot have: every answer is learned, with the same weight."""
    for key in _MASKS:
        value = item.get(key)
        if value is None or value == 1 or (value == 0 and role in {"system", "user"}):
            continue
        shown = json.dumps(value, ensure_ascii=False)[:40]
        yield f"{where}.{key} is {shown}: leaving out or weighting single messages is not supported"


def _role(value: Any, place: str, problems: list[str]) -> str:
    role = ROLES.get(value, "") if isinstance(value, str) else ""
    if role:
        return role
    if isinstance(value, str) and value in _TOOLS:
        problems.append(f"{place} is '{value}': turns of tools are not supported")
    elif isinstance(value, str):
        known = ", ".join(ROLES)
        problems.append(f"{place} is '{value[:40]}', an unknown role; known are {known}")
    else:
        problems.append(f"{place} is {'missing' if value is None else kind(value)}")
    return ""


def _joined(parts: list[Any], place: str, problems: list[str]) -> str:
    """Return the text of content given as a list of parts."""
    texts: list[str] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and part.get("type", "text") == "text":
            text = part.get("text")
            if isinstance(text, str):
                texts.append(text)
            else:
                problems.append(f"{place}[{number}].text {text_problem(text)}")
        else:
            what = part.get("type") if isinstance(part, Mapping) else kind(part)
            problems.append(f"{place}[{number}] is '{what}': only text is supported")
    return "".join(texts)
