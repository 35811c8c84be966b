"""Which form a row has, told by its columns, and the row as the rest of the pipeline knows it. Pure.

Order of precedence: preference, messages, style-prompt, instruction, prompt-completion, text. A column that
is null counts as absent where another form fits without it (Parquet files fill absent columns with null).
"""

from collections.abc import Container, Mapping
from typing import Any, Literal

from tunewright.data.formats.changes import Changes
from tunewright.data.formats.columns import question_of, typed
from tunewright.data.formats.conversations import (
    ROLES,
    calls_problem,
    conversation,
    left_out,
    order_problems,
    text_problem,
)
from tunewright.data.formats.templates import fields_of, fill

Form = Literal["messages", "text", "prompt-completion", "instruction", "style-prompt", "preference"]
Layout = Literal["alpaca"]
ANSWERS = ("completion", "response", "output")
STYLE_KEYS = ("style", "negative_prompt", "tags")

_MEANT = frozenset(
    ["messages", "conversations", "system", "prompt", "instruction", "input", "text", *ANSWERS]
) | {"chosen", "rejected"}
"""Columns that say what form a row has; left over beside another form they are renamed."""
_OURS = frozenset(["source", "line", "copy", "origin"])
"""Columns that the pipeline writes to rows itself."""


class RowError(ValueError):
    """A row that cannot be used.

    Attributes:
        problems: What is wrong, each with its field.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


def form_of(data: Mapping[str, Any], *, templated: bool = False) -> Form | None:
    """Return the form of a row, None where its columns tell none.

    Args:
        data: The row.
        templated: A prompt template gives the prompt, so an answer alone will do.
    """
    present = {key for key, value in data.items() if value is not None}
    return _match(present, templated=templated) or _match(data.keys(), templated=templated)


def _match(keys: Container[str], *, templated: bool) -> Form | None:
    answer = any(key in keys for key in ANSWERS)
    if "chosen" in keys and "rejected" in keys:
        return "preference"
    if "messages" in keys or "conversations" in keys:
        return "messages"
    if "instruction" in keys:
        if answer:
            return "instruction"
        styled = "prompt" in keys and any(key in keys for key in STYLE_KEYS)
        return "style-prompt" if styled else None
    if answer and ("prompt" in keys or templated):
        return "prompt-completion"
    return "text" if "text" in keys and "prompt" not in keys else None


def canonical(
    data: Mapping[str, Any],
    form: Form,
    *,
    layout: Layout | None = None,
    prompt_template: str | None = None,
    changes: Changes | None = None,
) -> dict[str, Any]:
    """Return a row as `messages`, `instruction`+`input`+`output`, `prompt`+`completion`, or `text`.

    The other columns stay. Those that would be taken for another form, and those that the pipeline writes
    itself, such as `source` and `line`, get the suffix `_column`; columns that are null are left out.

    Args:
        data: The row as it stands in the file.
        form: What `form_of` says.
        layout: `alpaca` writes instruction and input into one prompt, as that chat template expects it.
        prompt_template: Gives the prompt, from columns of the row.
        changes: What is done to columns and keys of messages is added.

    Raises:
        RowError: (a ValueError) All that is wrong with the row, each with its field.
    """
    problems: list[str] = []
    calls = calls_problem(data)
    if calls:
        problems.append(calls)
    if form == "preference":
        problems.append(
            "'chosen' and 'rejected' are preference data, which cannot be trained on as it stands; "
            f"to learn the chosen answers: {preference_fix(data)}"
        )
        row, used = {}, frozenset[str]()
    elif prompt_template is not None:
        row, used = _templated(data, form, prompt_template, problems)
    elif form == "messages":
        row, used = _messages(data, problems)
    elif form == "instruction":
        row, used = _instruction(data, layout, problems)
    elif form == "style-prompt":
        row, used = _style_prompt(data, problems)
    elif form == "text":
        text = _text(data, "text", problems)
        row, used = {"text": text}, frozenset(["text"])
    else:
        row, used = _prompt_completion(data, problems)
    if problems:
        raise RowError(problems)
    _add_others(row, data, used, changes)
    return row


def validate_preference(data: Mapping[str, Any]) -> None:
    """Return if a row of preference data is sound.

    Raises:
        RowError: (a ValueError) A field is empty, both answers are the same, or do not share their prompt.
    """
    problems: list[str] = []
    answers = [data.get("chosen"), data.get("rejected")]
    if all(isinstance(answer, list) for answer in answers):
        both = _both(data, problems)
        whole = data.get("prompt") is None or _is_whole(data["chosen"])
        if not problems and whole and both[0][:-1] != both[1][:-1]:
            problems.append("chosen and rejected do not share their prompt")
    elif any(isinstance(answer, list) for answer in answers):
        problems.append("one of chosen and rejected is text, the other a list of messages")
    else:
        for key in ("chosen", "rejected"):
            _text(data, key, problems)
        if data.get("prompt") is not None:
            _text(data, "prompt", problems)
    if not problems and answers[0] == answers[1]:
        problems.append("chosen and rejected are the same")
    if problems:
        raise RowError(problems)


def preference_fix(data: Mapping[str, Any]) -> str:
    """Return what to type so that preference data is read as the chosen answers."""
    chosen, prompt = data.get("chosen"), data.get("prompt")
    if isinstance(chosen, list):
        whole = prompt is None or _is_whole(chosen)
        return typed({"messages" if whole else "completion": "chosen"})
    if prompt is not None:
        return typed({"completion": "chosen"})
    question = question_of(data)
    if not question:
        return typed({"text": "chosen"})
    given = {} if question == "instruction" else {"prompt": question}
    return typed({**given, "completion": "chosen"})


def _is_whole(messages: list[Any]) -> bool:
    """Tell a conversation from answers that need a prompt before them."""
    first = messages[0] if messages else None
    role = first.get("role", first.get("from")) if isinstance(first, Mapping) else None
    return ROLES.get(str(role)) != "assistant"


def _both(data: Mapping[str, Any], problems: list[str]) -> list[list[dict[str, str]]]:
    before = [] if data.get("prompt") is None else _asked(data, problems)
    both: list[list[dict[str, str]]] = []
    for key in ("chosen", "rejected"):
        turns = _joined(before, conversation(data[key], key, problems))
        if not problems:
            problems.extend(order_problems(turns, key))
        both.append(turns)
    return both


def _asked(data: Mapping[str, Any], problems: list[str]) -> list[dict[str, str]]:
    """Return the prompt, text or messages, as messages."""
    if isinstance(data["prompt"], list):
        return conversation(data["prompt"], "prompt", problems)
    return [{"role": "user", "content": _prompt(data, problems)}]


def _joined(before: list[dict[str, str]], messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the prompt and what follows; the prompt once where the messages begin with it themselves."""
    system = messages[:1] if messages and messages[0]["role"] == "system" else []
    for begun in (before, [*system, *before]):
        if messages[: len(begun)] == begun:
            return messages
    return [*before, *messages]


def _messages(
    data: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    name = "messages"
    if data.get(name) is None and ("conversations" in data):
        name = "conversations"
    found = conversation(data[name], name, problems)
    system = _system(data, problems)
    if system:
        found = [{"role": "system", "content": system}, *found]
    if found and all(message["role"] for message in found):
        problems.extend(order_problems(found, name))
    return {"messages": found}, frozenset([name, "system"])


def _instruction(
    data: Mapping[str, Any], layout: Layout | None, problems: list[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    answer = _answer_key(data, ("output", "response", "completion"))
    instruction = _text(data, "instruction", problems)
    given = "" if data.get("input") is None else data["input"]
    if text_problem(given, may_be_empty=True) not in {"", "is only white space"}:
        _text(data, "input", problems)
    output = _text(data, answer, problems)
    system = _system(data, problems)
    used = frozenset(["instruction", "input", answer, "system"])
    if problems:
        return {}, used
    # White space alone says nothing, but its heading would.
    given = given if given.strip() else ""
    if layout == "alpaca":
        prompt = f"{instruction}\n\n### Input:\n{given}" if given else instruction
        return _turns(system, prompt, output), used
    if system:
        return _turns(system, f"{instruction}\n\n{given}" if given else instruction, output), used
    return {"instruction": instruction, "input": given, "output": output}, used


def _style_prompt(
    data: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    prompt = _text(data, "instruction", problems) + _section(data, "style", "Style", problems)
    completion = (
        _text(data, "prompt", problems)
        + _section(data, "negative_prompt", "Negative Prompt", problems)
        + _section(data, "tags", "Tags", problems)
    )
    # The style stays beside the text: the split holds out equal shares of it.
    used = frozenset(["instruction", "prompt", "negative_prompt", "tags", "system"])
    return _turns(_system(data, problems), prompt, completion), used


def _section(data: Mapping[str, Any], key: str, heading: str, problems: list[str]) -> str:
    """Return heading and value; nothing where the value is missing or empty."""
    value = data.get(key)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ", ".join(part for part in value if part.strip())
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    reason = text_problem(value)
    if reason:
        problems.append(f"{key} {reason}")
    return f"\n\n### {heading}:\n{value}"


def _prompt_completion(
    data: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    answer = _answer_key(data, ANSWERS)
    prompt, completion = data.get("prompt"), data.get(answer)
    system = _system(data, problems)
    used = frozenset(["prompt", answer, "system"])
    if isinstance(prompt, str | list) and isinstance(completion, list):
        turns = _joined(_asked(data, problems), conversation(completion, answer, problems))
        turns = [{"role": "system", "content": system}, *turns] if system else turns
        if not problems:
            problems.extend(order_problems(turns, f"prompt with {answer}"))
        return {"messages": turns}, used
    if isinstance(prompt, list):
        problems.append(f"prompt is a list of messages, but {answer} is not")
        return {}, used
    return _turns(system, _prompt(data, problems), _text(data, answer, problems)), used


def _prompt(data: Mapping[str, Any], problems: list[str]) -> str:
    if data.get("prompt", " ") not in (None, ""):
        return _text(data, "prompt", problems)
    problems.append(
        f"prompt {text_problem(data['prompt'])}; for plain text use a column named text"
    )
    return ""


def _templated(
    data: Mapping[str, Any], form: Form, template: str, problems: list[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    if form in {"messages", "style-prompt"}:
        problems.append(f"the prompt template does not apply to rows of the form {form}")
        return {}, frozenset()
    answer = "text" if form == "text" else _answer_key(data, ANSWERS)
    prompt = ""
    try:
        prompt = fill(template, data)
        if not prompt.strip():
            problems.append("the prompt template gives an empty prompt")
    except ValueError as error:
        problems.append(str(error))
        return {}, frozenset()
    row = _turns(_system(data, problems), prompt, _text(data, answer, problems))
    return row, frozenset([answer, "system"]) | (fields_of(template) & _MEANT)


def _turns(system: str, prompt: str, completion: str) -> dict[str, Any]:
    if not system:
        return {"prompt": prompt, "completion": completion}
    roles = ("system", system), ("user", prompt), ("assistant", completion)
    return {"messages": [{"role": role, "content": content} for role, content in roles]}


def _system(data: Mapping[str, Any], problems: list[str]) -> str:
    value = data.get("system")
    if value is None or value == "":
        return ""
    return _text(data, "system", problems)


def _answer_key(data: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first of the columns that is not null, or else that is there."""
    there = [name for name in names if name in data]
    return next((name for name in there if data[name] is not None), there[0] if there else names[0])


def _text(data: Mapping[str, Any], key: str, problems: list[str]) -> str:
    """Return a field; empty, with a problem added, if it is no text."""
    if key not in data:
        problems.append(f"{key} is missing")
        return ""
    reason = text_problem(data[key])
    if reason:
        problems.append(f"{key} {reason}")
        return ""
    return data[key]


def _add_others(
    row: dict[str, Any], data: Mapping[str, Any], used: frozenset[str], changes: Changes | None
) -> None:
    """Add the columns that are no part of the text."""
    if changes is not None:
        for key in used & _MEANT:
            if isinstance(data.get(key), list):
                changes.leave_out(left_out(data[key]))
    for key, value in data.items():
        if value is None or key in used:
            continue
        name = key
        if key in _MEANT or key in _OURS:
            name = f"{key}_column"
            while name in data or name in row:
                name += "_"
            if changes is not None:
                changes.renamed[key] = name
        row[name] = value
