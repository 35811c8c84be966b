"""Messages -> text -> token ids and loss mask. Pure: the tokenizer is a function that is passed in.

* A stretch between two special tokens of the template is tokenised as plain text, so that a special token
  which a user typed stays text.
* Trained is what the model has to write itself: each answer, what the template puts between the generation
  prompt and the answer (Qwen3's empty think block), and the special token that ends the turn with what the
  template writes before it. What follows the end, such as a line break, is not.
* Raw text, a single turn of the assistant, has no template: BOS where the tokenizer adds one, text, EOS.
* One BOS at most opens a sequence: the one that the template writes, else one where the tokenizer by itself
  begins every text with it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tunewright.models import frames
from tunewright.models.frames import Format, Piece, Shape, Slot
from tunewright.models.messages import Message, is_raw, messages_of, question_and_answer
from tunewright.models.sampling import EMPTY_THOUGHT
from tunewright.models.tokens import (
    Encoded,
    Part,
    Stretch,
    TokenizeMany,
    Tokens,
    encoded,
    runs_of,
)

__all__ = [
    "Encoded",
    "Message",
    "Tokens",
    "Vocabulary",
    "encode",
    "encode_many",
    "is_raw",
    "messages_of",
    "prompt_ids",
    "question_and_answer",
    "render",
    "runs_of",
]

BATCH = 512
"""Conversations tokenised at once: their tokens with offsets are all in memory."""

Tokenize = Callable[[str], Sequence[tuple[int, int, int]]]
"""Text -> (token id, first character, end character) of every token."""


@dataclass(frozen=True)
class Vocabulary:
    """What tokenising needs to know of a tokenizer.

    Attributes:
        template: Chat template, Jinja.
        tokenize: Plain text to ids with character offsets; special tokens in it stay text.
        special: Text of each special token to its id.
        bos_token: Available in the template by this name.
        eos_token: Likewise.
        adds_bos: The tokenizer begins every text with bos_token by itself.
        tokenize_many: `tokenize` for many stretches at once; unset: one after the other.
    """

    template: str
    tokenize: Tokenize
    special: Mapping[str, int]
    bos_token: str
    eos_token: str
    adds_bos: bool = False
    tokenize_many: TokenizeMany | None = None

    @property
    def format(self) -> Format:
        """The template with the tokens it uses."""
        return Format(self.template, self.bos_token, self.eos_token, self.adds_bos)

    @cached_property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end a turn: EOS, and the one that the template writes after an answer.

        A model that was trained on this vocabulary stops there.

        Raises:
            TunewrightError: E_TEMPLATE, the template fails.
        """
        chat = (Shape("user", ("", "")), Shape("assistant", ("", "")))
        last = frames.frame(self.format, chat, add_generation_prompt=False)[-1]
        found = self.special_pattern.search(str(last))
        names = {self.eos_token, found[0] if found else ""}
        return frozenset(self.special[name] for name in names if name in self.special)

    @cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Matches special tokens, the longest one where several do."""
        names = sorted(self.special, key=len, reverse=True)
        # A pattern without alternatives would match the empty text.
        return re.compile("|".join(map(re.escape, names)) or r"(?!)")


@dataclass(frozen=True)
class _Tokens:
    ids: list[int]
    offsets: list[tuple[int, int]]


_Plan = list[list[Part]]
"""The parts of each text of a frame; none for the place of a content."""


def render(
    messages: Sequence[Message], vocabulary: Vocabulary, *, add_generation_prompt: bool = False
) -> str:
    """Return the conversation as the text that is tokenised, special tokens included.

    Raises:
        TunewrightError: E_TEMPLATE, the template is not valid or does something forbidden.
    """
    if is_raw(messages):
        opening = vocabulary.bos_token if vocabulary.adds_bos else ""
        end = "" if add_generation_prompt else vocabulary.eos_token
        return opening + messages[0]["content"] + end
    return frames.written(vocabulary.format, messages, add_generation_prompt=add_generation_prompt)


def encode(
    messages: Sequence[Message], vocabulary: Vocabulary, *, add_generation_prompt: bool = False
) -> Encoded:
    """Return the conversation's token ids and loss mask.

    Raises:
        TunewrightError: E_TEMPLATE, the template fails, or leaves out or rewrites what it was given.
    """
    return encode_many([messages], vocabulary, add_generation_prompt=add_generation_prompt)[0]


def prompt_ids(messages: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
    """Return what a model reads before it answers.

    Where the template puts an empty thought before an answer, as Qwen3's does, it is part of that: a base that
    was not trained on it would think in place of answering.
    """
    ids = list(encode(messages, vocabulary, add_generation_prompt=True).input_ids)
    if is_raw(messages):
        return ids
    asked = render(messages, vocabulary, add_generation_prompt=True)
    answered = render([*messages, Message(role="assistant", content="x")], vocabulary)
    if not answered.startswith(asked + EMPTY_THOUGHT):
        return ids
    pieces = re.split(f"({vocabulary.special_pattern.pattern})", EMPTY_THOUGHT)
    for piece in filter(None, pieces):
        special = vocabulary.special.get(piece)
        ids += [special] if special is not None else [i for i, _, _ in vocabulary.tokenize(piece)]
    return ids


def encode_many(
    conversations: Sequence[Sequence[Message]],
    vocabulary: Vocabulary,
    *,
    add_generation_prompt: bool = False,
) -> list[Encoded]:
    """Return `encode` of each conversation; many together are several times faster.

    Raises:
        TunewrightError: E_TEMPLATE, see `encode`.
    """
    plans: dict[tuple[Shape, ...], _Plan] = {}
    rows: list[Encoded] = []
    for start in range(0, len(conversations), BATCH):
        parts = [
            _raw_parts(messages, vocabulary, add_generation_prompt=add_generation_prompt)
            if is_raw(messages)
            else _chat_parts(
                messages, vocabulary, plans, add_generation_prompt=add_generation_prompt
            )
            for messages in conversations[start : start + BATCH]
        ]
        rows += encoded(parts, _tokenizer(vocabulary))
    return rows


def _raw_parts(
    messages: Sequence[Message], vocabulary: Vocabulary, *, add_generation_prompt: bool
) -> list[Part]:
    parts = [Part(messages[0]["content"], learned=True, opens=True)]
    bos = vocabulary.special.get(vocabulary.bos_token)
    eos = vocabulary.special.get(vocabulary.eos_token)
    if vocabulary.adds_bos and bos is not None:
        parts.insert(0, Part(bos, learned=False))
    if eos is not None and not add_generation_prompt:
        parts.append(Part(eos, learned=True))
    return parts


def _chat_parts(
    messages: Sequence[Message],
    vocabulary: Vocabulary,
    plans: dict[tuple[Shape, ...], _Plan],
    *,
    add_generation_prompt: bool,
) -> list[Part]:
    shapes, pieces = frames.filled(
        vocabulary.format, messages, add_generation_prompt=add_generation_prompt
    )
    if shapes not in plans:
        plans[shapes] = _plan([piece for piece, _ in pieces], shapes, vocabulary)
    parts: list[Part] = []
    for (piece, text), planned in zip(pieces, plans[shapes], strict=True):
        if isinstance(piece, Slot):
            parts.append(Part(text, learned=shapes[piece.message].role == "assistant"))
        else:
            parts += planned
    return parts


def _plan(pieces: Sequence[Piece], shapes: tuple[Shape, ...], vocabulary: Vocabulary) -> _Plan:
    plan: _Plan = []
    for index, piece in enumerate(pieces):
        if isinstance(piece, Slot):
            plan.append([])
            continue
        # Texts and slots take turns.
        before = pieces[index - 1] if index else None
        after = pieces[index + 1] if index + 1 < len(pieces) else None
        begin, end = _given(piece, before, after, shapes=shapes, vocabulary=vocabulary)
        plan.append(
            [
                *_split(piece[:begin], vocabulary, learned=True),
                *_split(piece[begin:end], vocabulary, learned=False),
                *_split(piece[end:], vocabulary, learned=True),
            ]
        )
    return plan


def _given(
    text: str,
    before: Piece | None,
    after: Piece | None,
    *,
    shapes: tuple[Shape, ...],
    vocabulary: Vocabulary,
) -> tuple[int, int]:
    """Return begin and end of what the model need not write of a text between two contents."""
    begin, end = 0, len(text)
    if isinstance(before, Slot) and shapes[before.message].role == "assistant":
        if isinstance(after, Slot) and before.message == after.message:
            return end, end
        found = vocabulary.special_pattern.search(text)
        if found and vocabulary.special[found[0]] in vocabulary.ends:
            begin = found.end()
    if isinstance(after, Slot) and after.message and shapes[after.message].role == "assistant":
        prompt = frames.prompt_end(vocabulary.format, shapes[: after.message], text)
        end = max(begin, prompt)
    return begin, end


def _split(text: str, vocabulary: Vocabulary, *, learned: bool) -> list[Part]:
    parts: list[Part] = []
    at = 0
    for found in vocabulary.special_pattern.finditer(text):
        if found.start() > at:
            parts.append(Part(text[at : found.start()], learned))
        parts.append(Part(vocabulary.special[found[0]], learned))
        at = found.end()
    if at < len(text):
        parts.append(Part(text[at:], learned))
    return parts


def _tokenizer(vocabulary: Vocabulary) -> TokenizeMany:
    def tokenize(stretches: Sequence[Stretch]) -> list[_Tokens]:
        found = [vocabulary.tokenize(text) for text, _ in stretches]
        return [
            _Tokens([i for i, _, _ in tokens], [(start, end) for _, start, end in tokens])
            for tokens in found
        ]

    return vocabulary.tokenize_many or tokenize
