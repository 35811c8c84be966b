"""What a chat template writes around the contents of messages: its frame. Pure.

The frame is read off a rendering in which marks stand for the contents. It depends on the roles, and on
little else, so it is kept; that frame and contents together are what the template writes of the real
messages is verified for every conversation.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from tunewright.errors import TunewrightError, failure
from tunewright.models.messages import Message
from tunewright.models.rendering import render
from tunewright.models.templating import Refused

REFUSALS = {
    "syntax": ("E_TEMPLATE", "fails"),
    "fails": ("E_TEMPLATE", "fails"),
    "unsafe": ("E_TEMPLATE_UNSAFE", "is not safe"),
    "limit": ("E_TEMPLATE_LIMIT", "is ended"),
}
"""Code and words for each kind of refusal."""

_STRIPPED: tuple[Callable[[str], str], ...] = (
    str.strip,
    lambda text: text.strip("\n"),
    lambda text: text.lstrip("\n"),
    lambda text: text.rstrip("\n"),
    str.lstrip,
    str.rstrip,
)
_THOUGHT = re.compile(
    r"\s*(?:<think>)?((?:(?!</?think>).)*)</think>((?:(?!</?think>).)*)", re.DOTALL
)
_INPUT = "\n\n### Input:\n"


@dataclass(frozen=True)
class Format:
    """A template and the names it uses.

    Attributes:
        template: Jinja.
        bos_token: Available in the template by this name.
        eos_token: Likewise.
        adds_bos: Every text begins with bos_token, whether the template writes it or not.
    """

    template: str
    bos_token: str
    eos_token: str
    adds_bos: bool


class Slot(NamedTuple):
    """A place in a frame that a part of a message's content goes to.

    Attributes:
        message: Number of the message.
        part: Number of the part, from 0.
    """

    message: int
    part: int


class Shape(NamedTuple):
    """How a message looks to a template.

    Attributes:
        role: The message's.
        literals: Text around the parts of the content: one part has two of them, mostly empty.
    """

    role: str
    literals: tuple[str, ...]


Piece = str | Slot
_Look = Callable[[str, str], tuple[str, ...] | None]
"""(role, content) -> literals of the shape, if what is looked for is there."""


def written(form: Format, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    """Return what the template writes; with exactly one BOS in front where the format asks for one.

    Raises:
        TunewrightError: E_TEMPLATE, the template is not valid. E_TEMPLATE_UNSAFE, it reaches for something
            forbidden. E_TEMPLATE_LIMIT, it takes more time or memory than a template may.
    """
    text = _rendered(form, messages, add_generation_prompt=add_generation_prompt)
    if not form.bos_token:
        return text
    shapes = tuple(_simple_shape(m) for m in messages)
    _, surplus = _marked(form, shapes, add_generation_prompt)
    return _with_bos(form, text, surplus)


def frame(form: Format, shapes: tuple[Shape, ...], *, add_generation_prompt: bool) -> list[Piece]:
    """Return the text around contents and the places of contents, in turn, text first and last.

    Raises:
        TunewrightError: E_TEMPLATE, see `written`.
    """
    return list(_marked(form, shapes, add_generation_prompt)[0])


def filled(
    form: Format, messages: Sequence[Message], *, add_generation_prompt: bool
) -> tuple[tuple[Shape, ...], list[tuple[Piece, str]]]:
    """Return the shapes of messages, and each piece of their frame with the text that it stands for.

    The texts joined are what the template writes of these messages.

    Raises:
        TunewrightError: E_TEMPLATE, the template fails, or it leaves out or rewrites a content by more
            than white space around it.
    """
    text = written(form, messages, add_generation_prompt=add_generation_prompt)
    for shapes in _guesses(messages):
        pieces = frame(form, shapes, add_generation_prompt=add_generation_prompt)
        _require_contents(pieces, shapes, messages)
        texts = _aligned(
            pieces, [_parts(m, s) for m, s in zip(messages, shapes, strict=True)], text
        )
        if texts is not None:
            return shapes, list(zip(pieces, texts, strict=True))
    raise failure(
        "E_TEMPLATE", "The chat template rewrites the text of a message.", where="chat_template"
    )


def prompt_end(form: Format, shapes: tuple[Shape, ...], text: str) -> int:
    """Return how much of the text between the last of the messages and an answer the prompt has.

    The rest is for the model to write. A template without a generation prompt says nothing of the rest
    but where it is white space, which no template needs to be asked for.
    """
    try:
        plain = frame(form, shapes, add_generation_prompt=False)[-1]
        asked = str(frame(form, shapes, add_generation_prompt=True)[-1])
    except TunewrightError:
        # Templates may refuse a chat that is not whole; then nothing is known of the prompt.
        return len(text)
    known = text.startswith(asked) and (plain != asked or text[len(asked) :].isspace())
    return len(asked) if known else len(text)


def _rendered(form: Format, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    values = {
        "messages": [dict(message) for message in messages],
        "add_generation_prompt": add_generation_prompt,
        "bos_token": form.bos_token,
        "eos_token": form.eos_token,
    }
    try:
        return render(form.template, values)
    except Refused as error:
        code, what = REFUSALS[error.kind]
        raise failure(code, f"The chat template {what}: {error}.", where="chat_template") from error


@lru_cache(maxsize=4096)
def _marked(
    form: Format,
    shapes: tuple[Shape, ...],
    add_generation_prompt: bool,  # noqa: FBT001 - lru_cache
) -> tuple[tuple[Piece, ...], int]:
    """Return the frame, and how many BOS too many the template writes in front; -1 is one too few."""
    nonce = secrets.token_hex(8)
    marks: dict[str, Slot] = {}
    messages: list[Message] = []
    for index, shape in enumerate(shapes):
        content = shape.literals[0]
        for part, literal in enumerate(shape.literals[1:]):
            mark = f"content{nonce}n{index}p{part}e"
            marks[mark] = Slot(index, part)
            content += mark + literal
        messages.append(Message(role=shape.role, content=content))
    text = _rendered(form, messages, add_generation_prompt=add_generation_prompt)
    lead = re.split(f"content{nonce}", text, maxsplit=1)[0]
    surplus = 0
    if form.bos_token:
        count = 0
        while lead.startswith(form.bos_token * (count + 1)):
            count += 1
        surplus = count - 1 if count or form.adds_bos else 0
    parts = re.split(f"(content{nonce}n[0-9]+p[0-9]+e)", _with_bos(form, text, surplus))
    return tuple(marks.get(part, part) for part in parts), surplus


def _with_bos(form: Format, text: str, surplus: int) -> str:
    return form.bos_token + text if surplus < 0 else text[surplus * len(form.bos_token) :]


def _simple_shape(message: Message) -> Shape:
    return Shape(message["role"], ("", ""))


def _guesses(messages: Sequence[Message]) -> Iterator[tuple[Shape, ...]]:
    """Yield how the messages may look to a template, the most likely way first."""
    seen: set[tuple[Shape, ...]] = set()
    for count in range(len(_LOOKS) + 1):
        for looks in combinations(_LOOKS, count):
            shapes = tuple(_shape(message, looks) for message in messages)
            if shapes not in seen:
                seen.add(shapes)
                yield shapes


def _shape(message: Message, looks: Sequence[_Look]) -> Shape:
    """Return the shape of a message to a template that looks into contents for one of some things."""
    content = message["content"]
    found = next((literals for look in looks if (literals := look(message["role"], content))), None)
    return Shape(message["role"], found) if found else _simple_shape(message)


def _blank(_role: str, content: str) -> tuple[str, ...] | None:
    return None if content.strip() else (content,)


def _thought(role: str, content: str) -> tuple[str, ...] | None:
    there = role == "assistant" and "</think>" in content and _THOUGHT.fullmatch(content)
    return ("<think>\n", "\n</think>\n\n", "") if there else None


def _input(role: str, content: str) -> tuple[str, ...] | None:
    return ("", _INPUT, "") if role == "user" and _INPUT in content else None


_LOOKS: tuple[_Look, ...] = (_blank, _thought, _input)


def _parts(message: Message, shape: Shape) -> list[str]:
    content = message["content"]
    if len(shape.literals) < 3:
        return [content] * (len(shape.literals) - 1)
    if shape.literals[1] == _INPUT:
        before, _, after = content.partition(_INPUT)
        return [before, after]
    thought = _THOUGHT.fullmatch(content)
    return list(thought.groups()) if thought else []


def _require_contents(
    pieces: Sequence[Piece], shapes: Sequence[Shape], messages: Sequence[Message]
) -> None:
    """Require a place for every content; a thought may be missing, as it is from earlier turns."""
    there = set(pieces)
    for index, (shape, message) in enumerate(zip(shapes, messages, strict=True)):
        last = len(shape.literals) - 2
        if last >= 0 and message["content"].strip() and Slot(index, last) not in there:
            raise failure(
                "E_TEMPLATE",
                f"The chat template leaves out the text of the '{message['role']}' message.",
                where="chat_template",
            )


def _aligned(
    pieces: Sequence[Piece], parts: Sequence[Sequence[str]], text: str
) -> list[str] | None:
    """Return the text of each piece, which joined are `text`; None if contents differ by more than space."""
    exact = [p if isinstance(p, str) else parts[p.message][p.part] for p in pieces]
    if "".join(exact) == text:
        return exact
    options = [
        [part]
        if isinstance(piece, str)
        else list(dict.fromkeys([part, *(strip(part) for strip in _STRIPPED)]))
        for piece, part in zip(pieces, exact, strict=True)
    ]
    return _path(options, text)


def _path(options: Sequence[Sequence[str]], text: str) -> list[str] | None:
    """Return one of the options in each place so that all joined are `text`, or None."""
    seen: set[tuple[int, int]] = set()
    chosen: list[str] = []
    # A stack of the options still to be tried at each place, and of where in the text the place begins.
    waiting = [(0, iter(options[0]))]
    while waiting:
        begin, rest = waiting[-1]
        option = next((o for o in rest if text.startswith(o, begin)), None)
        if option is None:
            waiting.pop()
            if chosen:
                chosen.pop()
            continue
        end = begin + len(option)
        if len(waiting) == len(options):
            if end == len(text):
                return [*chosen, option]
        elif (len(waiting), end) not in seen:
            seen.add((len(waiting), end))
            chosen.append(option)
            waiting.append((end, iter(options[len(waiting)])))
    return None
