"""An Ollama Modelfile, its TEMPLATE derived from what the training template renders. Pure.

A template can be said in Ollama's language if the text around each question and answer depends on nothing
but this: whether there is a system message, whether the question is the first, and whether it is the last.
That holds for ChatML, Llama 3, Mistral, alpaca and most others. It is measured by rendering chats of marks,
and proven by rendering golden chats with both.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunewright.errors import TunewrightError, failure
from tunewright.models.chat import Message

Render = Callable[[Sequence[Message], bool], str]
"""(messages, whether an answer is to follow) -> text."""

Lead = tuple[str, ...]
"""Text before a question; of two parts, the content of the system message is between them."""


def _chat(*contents: str, system: str | None = None) -> tuple[Message, ...]:
    """Return a chat of questions and answers in turns."""
    turns = [
        Message(role="assistant" if index % 2 else "user", content=content)
        for index, content in enumerate(contents)
    ]
    return tuple(turns if system is None else [Message(role="system", content=system), *turns])


GOLDEN_CHATS: tuple[tuple[Message, ...], ...] = (
    _chat("Hello"),
    _chat("One\n\ntwo: {{ three }} — \U0001f9f5\U0001f44d\U0001f3fd e\u0301"),
    _chat("Why?", system="Be brief."),
    _chat("Why?", system=""),
    _chat("First", "Answer one.\nIn two lines.", "Second"),
    _chat("A line", "It rains.", "Another", "Still.", "End", system="You are a poet."),
    _chat("Now", "Later.", "When?", "Soon.", "And then?", "Nothing.", "Why?"),
    _chat(
        '"""quoted"""', "\\n is no line break", "tab\there, 100% {% raw %} $1", system="a\nb\n\nc"
    ),
)
"""What a template must render alike; each ends with a question."""

PECULIAR_CHATS: Mapping[str, tuple[Message, ...]] = {
    "a question with spaces or line breaks at its ends": _chat(" Hello\n"),
    "an answer with spaces or line breaks at its ends": _chat("Hello", "\n Yes \n", "Good"),
    "a system message with spaces or line breaks at its ends": _chat(
        "Hello", system=" Be brief.\n"
    ),
    "a question with '### Input:'": _chat("Sum up.\n\n### Input:\nIt rained."),
    "an earlier answer with '<think>'": _chat(
        "Hello", "<think>\nhm\n</think>\n\nYes", "Good", "Fine", "So?"
    ),
}
"""What some templates treat in a way that Ollama's language cannot say: it has no test for a text's content."""

_QUESTIONS = ("ONEMARK", "TWOMARK", "THREEMARK")
_ANSWERS = ("YESMARK", "NOMARK")
_SYSTEM = "SYSTEMMARK"


class UntranslatableError(ValueError):
    """The template cannot be said in Ollama's language; the text tells why."""


@dataclass(frozen=True)
class Turns:
    """A chat format, as Ollama's language can say it.

    Attributes:
        first: Lead of the first question, by (there is a system message, it is the last question).
        again: Lead of a later question, likewise, from the end of the answer before it.
        middle: Text between a question and its answer.
        question: Text after the last question, where the answer begins.
        takes_system: The template accepts a system message; otherwise one is left out.
    """

    first: Mapping[tuple[bool, bool], Lead]
    again: Mapping[tuple[bool, bool], Lead]
    middle: str
    question: str
    takes_system: bool = True

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of a chat up to where the answer begins."""
        asked = messages[0]["role"] == "system" and self.takes_system
        system = messages[0]["content"]
        lead, text = self.first, ""
        for index, message in enumerate(messages):
            last = index + 1 == len(messages)
            if message["role"] == "user":
                text += system.join(lead[asked, last]) + message["content"]
                text += self.question if last else self.middle
                lead = self.again
            elif message["role"] == "assistant":
                text += message["content"]
        return text


def turns_of(render: Render) -> Turns:
    """Return the format that a template writes.

    Args:
        render: The training template, without the text that opens every sequence by itself.

    Raises:
        UntranslatableError: It is none that Ollama's language can say; why, with the first chat that differs.
        TunewrightError: E_TEMPLATE, it fails on a plain question.
    """
    turns = _measured(render)
    for chat in GOLDEN_CHATS:
        if chat[0]["role"] == "system" and not turns.takes_system:
            continue
        expected, found = render(chat, True), turns.render(chat)
        if found != expected:
            raise UntranslatableError(_difference(expected, found))
    return turns


def peculiarities(turns: Turns, render: Render) -> list[str]:
    """Return for which chats the training template writes something else, in words."""
    return [name for name, chat in PECULIAR_CHATS.items() if _differs(turns, render, chat)]


def modelfile(
    file: str,
    *,
    turns: Turns,
    stop: Sequence[str],
    parameters: Mapping[str, float],
    system: str | None,
    remarks: Sequence[str] = (),
) -> str:
    """Return the text of a Modelfile.

    Args:
        file: Name of the GGUF file beside it.
        turns: The chat format.
        stop: Texts that end an answer.
        parameters: Ollama's names to values.
        system: System message, or None.
        remarks: Lines of comment at the top.

    Raises:
        TunewrightError: E_CONFIG_VALUE, the system message cannot be quoted, or the template takes none.
    """
    lines = [*(f"# {remark}" for remark in remarks), f"FROM ./{file}"]
    lines.append(f'TEMPLATE """{go_template(turns)}"""')
    if system is not None:
        lines.append(f'SYSTEM """{_system(system, turns)}"""')
    lines += [f"PARAMETER stop {_quoted(text)}" for text in stop]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def go_template(turns: Turns) -> str:
    """Return the format in the language of Ollama's templates.

    Source: Ollama, docs/template.mdx and template/template.go (variables, merging of messages); Go's
    text/template (language).
    """
    begin = (
        '{{ $system := eq (index $.Messages 0).Role "system" }}{{ $first := true }}'
        "{{ range $index, $_ := $.Messages }}"
        "{{ $last := eq (len (slice $.Messages $index)) 1 }}"
        '{{ if eq .Role "user" }}'
    )
    lead = _either("$first", _lead(turns.first), _lead(turns.again))
    end = _either("$last", _literal(turns.question), _literal(turns.middle))
    return (
        f"{begin}{lead}{{{{ .Content }}}}{end}{{{{ $first = false }}}}"
        '{{ else if eq .Role "assistant" }}{{ .Content }}{{ end }}{{ end }}'
    )


def _lead(lead: Mapping[tuple[bool, bool], Lead]) -> str:
    content = "{{ (index $.Messages 0).Content }}"
    texts = {key: content.join(map(_literal, parts)) for key, parts in lead.items()}
    return _either(
        "$system",
        _either("$last", texts[True, True], texts[True, False]),
        _either("$last", texts[False, True], texts[False, False]),
    )


def _either(condition: str, this: str, other: str) -> str:
    if this == other:
        return this
    return f"{{{{ if {condition} }}}}{this}{{{{ else }}}}{other}{{{{ end }}}}"


def _literal(text: str) -> str:
    r"""Return a text as Go's template language writes it, and as it may stand between three quotes.

    Actions and quotes that touch would make another meaning, so each of their characters stands alone.
    """
    return re.sub(r'[{"]', lambda found: f"{{{{ {_GO[found[0]]} }}}}", text)


_GO = {"{": '"{"', '"': '`"`'}


def _system(system: str, turns: Turns) -> str:
    reason = ""
    if not turns.takes_system:
        reason = "The chat template takes no system message."
    elif '"""' in system or system.endswith('"'):
        reason = 'A Modelfile cannot hold a text with """ in it or " at its end.'
    if reason:
        fix = "Leave it out, or use other quotation marks."
        raise failure("E_CONFIG_VALUE", reason, where="export.system", fix=fix)
    return system


def _quoted(text: str) -> str:
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def _measured(render: Render) -> Turns:
    """Return the texts around marks, in a short and in a long chat, with and without a system message.

    Raises:
        UntranslatableError: A mark is missing, or what must be equal differs.
    """
    first: dict[tuple[bool, bool], Lead] = {}
    again: dict[tuple[bool, bool], Lead] = {}
    ends: set[str] = set()
    middles: set[str] = set()
    takes_system = _accepts_system(render)
    for asked in (False, True):
        system = _SYSTEM if asked and takes_system else None
        short = _gaps(render(_chat(_QUESTIONS[0], system=system), True), _QUESTIONS[:1])
        names = [name for pair in zip(_QUESTIONS, (*_ANSWERS, ""), strict=True) for name in pair][
            :-1
        ]
        long = _gaps(render(_chat(*names, system=system), True), names)
        first[asked, True], first[asked, False] = _parts(short[0]), _parts(long[0])
        again[asked, False], again[asked, True] = _parts(long[2]), _parts(long[4])
        middles |= {long[1], long[3]}
        ends |= {short[1], long[5]}
    if len(middles) > 1 or len(ends) > 1:
        raise UntranslatableError("what follows a question depends on more than its place")
    if any(_SYSTEM in text for text in middles | ends):
        raise UntranslatableError("the system message stands behind a question")
    return Turns(first, again, middles.pop(), ends.pop(), takes_system)


def _accepts_system(render: Render) -> bool:
    try:
        render(_chat("Hello", system="Be brief."), True)
    except TunewrightError:
        return False
    return True


def _gaps(text: str, marks: Sequence[str]) -> list[str]:
    """Return what is before, between and after the marks."""
    gaps: list[str] = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise UntranslatableError("a message is left out, changed, or moved")
        gaps.append(before)
    return [*gaps, text]


def _parts(text: str) -> Lead:
    parts = tuple(text.split(_SYSTEM))
    if len(parts) > 2:
        raise UntranslatableError("the system message is written twice")
    return parts


def _difference(expected: str, found: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
    at = min(len(expected), len(found)) if at is None else at
    around = slice(max(at - 20, 0), at + 20)
    return f"it writes {expected[around]!r} where its likeness writes {found[around]!r}"


def _differs(turns: Turns, render: Render, chat: Sequence[Message]) -> bool:
    try:
        return render(chat, True) != turns.render(chat)
    except TunewrightError:
        return chat[0]["role"] != "system" or turns.takes_system
