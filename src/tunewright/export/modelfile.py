"""An Ollama Modelfile, its TEMPLATE derived from what the training template renders. Pure.

A template that writes each message as `before + content + after`, by role, can be said in Ollama's
language; one that does not (tools, dates, a system message inside the first question) cannot.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunewright.errors import TunewrightError, failure
from tunewright.models.chat import Message

Render = Callable[[Sequence[Message], bool], str]
"""(messages, whether an answer is to follow) -> text."""

ROLES = ("system", "user", "assistant")

GOLDEN_CHATS: tuple[tuple[Message, ...], ...] = (
    (Message(role="user", content="Hello"),),
    (Message(role="user", content="One\n\ntwo: {{ three }} \u2014 \U0001f9f5"),),
    (Message(role="system", content="Be brief."), Message(role="user", content="Why?")),
    (
        Message(role="user", content="First"),
        Message(role="assistant", content="Answer one.\nIn two lines."),
        Message(role="user", content="Second"),
    ),
    (
        Message(role="system", content="You are a poet."),
        Message(role="user", content="A line"),
        Message(role="assistant", content="It rains."),
        Message(role="user", content="Another"),
        Message(role="assistant", content="Still."),
        Message(role="user", content="End"),
    ),
)


@dataclass(frozen=True)
class Turns:
    """A chat format in which every message is written alike, by role.

    Attributes:
        before: Text before a message's content, for each role.
        after: Text after it.
        unasked: Text that opens a chat without a system message.
        question: Text after the last message, before the answer.
    """

    before: Mapping[str, str]
    after: Mapping[str, str]
    unasked: str
    question: str

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of a chat up to where the answer begins."""
        opening = "" if messages[0]["role"] == "system" else self.unasked
        body = (self.before[m["role"]] + m["content"] + self.after[m["role"]] for m in messages)
        return opening + "".join(body) + self.question


def turns_of(render: Render) -> Turns | None:
    """Return the format that a template writes, if it writes all golden chats that way.

    Args:
        render: The training template, without the text that opens every sequence (bos).
    """
    try:
        turns = _measured(render)
        return turns if all(turns.render(c) == render(c, True) for c in GOLDEN_CHATS) else None
    except (TunewrightError, ValueError):
        return None


def modelfile(
    file: str,
    *,
    turns: Turns | None,
    stop: Sequence[str],
    parameters: Mapping[str, float],
    system: str | None,
) -> str:
    """Return the text of a Modelfile.

    Args:
        file: Name of the GGUF file beside it.
        turns: The chat format; None leaves TEMPLATE out.
        stop: Texts that end an answer.
        parameters: Ollama's names to values.
        system: System message, or None.

    Raises:
        TunewrightError: E_CONFIG_VALUE, the system message cannot be quoted.
    """
    lines = [f"FROM ./{file}"]
    if turns is not None:
        lines.append(f'TEMPLATE """{go_template(turns)}"""')
    if system is not None:
        if '"""' in system or system.endswith('"'):
            raise failure(
                "E_CONFIG_VALUE",
                'A Modelfile cannot hold a text with """ in it or " at its end.',
                where="export.system",
                fix="Use other quotation marks.",
            )
        lines.append(f'SYSTEM """{system}"""')
    lines += [f'PARAMETER stop "{text}"' for text in stop]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def go_template(turns: Turns) -> str:
    """Return the format in the language of Ollama's templates.

    Source: Ollama, docs/template.mdx, and Go's text/template.
    """
    system, user, answer = (
        turns.before[role] + "{{ .Content }}" + turns.after[role] for role in ROLES
    )
    body = (
        f'{{{{ if eq .Role "system" }}}}{system}{{{{ else if eq .Role "user" }}}}{user}'
        f"{{{{ else }}}}{answer}{{{{ end }}}}"
    )
    opening = ""
    if turns.unasked:
        first = "{{ $first := index .Messages 0 }}"
        opening = f'{first}{{{{ if ne $first.Role "system" }}}}{turns.unasked}{{{{ end }}}}'
    return f"{opening}{{{{ range .Messages }}}}{body}{{{{ end }}}}{turns.question}"


def _measured(render: Render) -> Turns:
    """Return the texts around contents that can be told apart.

    Raises:
        ValueError: A content is missing from the text, or what is around it means something in a
            Modelfile.
    """
    marks = {"system": "SYSTEMMARK", "user": "USERMARK", "assistant": "ANSWERMARK"}
    s, u, a = (Message(role=role, content=marks[role]) for role in ROLES)
    before_s, after_s = _split(render([s], False), "SYSTEMMARK")
    first, after_u = _split(render([u], False), "USERMARK")
    _, rest = _split(render([s, u, a, u], False), "SYSTEMMARK")
    between_su, rest = _split(rest, "USERMARK")
    between_ua, rest = _split(rest, "ANSWERMARK")
    between_au, _ = _split(rest, "USERMARK")
    before_u = between_su.removeprefix(after_s)
    turns = Turns(
        before={
            "system": before_s,
            "user": before_u,
            "assistant": between_ua.removeprefix(after_u),
        },
        after={"system": after_s, "user": after_u, "assistant": between_au.removesuffix(before_u)},
        unasked=first.removesuffix(before_u),
        question=render([u], True).removeprefix(render([u], False)),
    )
    texts = [*turns.before.values(), *turns.after.values(), turns.unasked, turns.question]
    if any(sign in text for text in texts for sign in ("{{", '"""')):
        raise ValueError("the text around messages has a meaning in a Modelfile")
    return turns


def _split(text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found:
        raise ValueError(f"{mark} is missing")
    return before, after
