"""What was asked for -> tokens of an engine -> the parts of an answer."""

import secrets
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tunewright.errors import TunewrightError
from tunewright.serve import replies
from tunewright.serve.asked import Asked, RefusedError
from tunewright.serve.engine import Engine, Options, Token
from tunewright.serve.pieces import Shown
from tunewright.serve.queue import GoneError
from tunewright.serve.replies import Finish, Head

MAX_TOKEN_BYTES = 128
"""Bytes of the longest token that vocabularies in use have: runs of spaces."""


class EngineError(Exception):
    """An engine has failed; the message is for those who serve."""


@dataclass(frozen=True)
class Defaults:
    """How answers are sampled where a request does not say.

    Attributes:
        temperature: Divides the logits.
        top_p: Probability mass sampled from.
    """

    temperature: float
    top_p: float


@dataclass
class Answering:
    """One answer in the making.

    Attributes:
        engine: Makes it.
        ids: What the model reads.
        options: How it is made.
        shown: What of its text may be told.
        head: What all its parts have in common.
        include_usage: Its last part tells how many tokens there were.
        begun: Its first part has been made.
        count: Tokens made so far, the end among them.
        finish: Why it ended.
    """

    engine: Engine
    ids: Sequence[int]
    options: Options
    shown: Shown
    head: Head
    include_usage: bool
    begun: bool = False
    count: int = 0
    finish: Finish = "length"

    def pieces(self, wanted: Callable[[], bool]) -> Generator[tuple[str, list[Token]]]:
        """Give the text piece by piece, each with the tokens whose probabilities are told with it.

        Raises:
            GoneError: It is no longer wanted; no more of it is computed.
            EngineError: The engine has failed.
        """
        waiting: list[Token] = []
        with closing(self._tokens()) as tokens:
            for token in tokens:
                if not wanted():
                    raise GoneError
                self.count += token.count
                waiting.append(token)
                text = self.shown.add(token.text)
                if token.ends or self.shown.stopped:
                    self.finish = "stop"
                    if not self.shown.stopped:
                        text += self.shown.rest()
                    yield text, waiting
                    return
                if text:
                    yield text, waiting
                    waiting = []
        yield self.shown.rest(), waiting
        if self.shown.stopped:
            self.finish = "stop"

    def _tokens(self) -> Generator[Token]:
        """Give the engine's tokens; whatever it raises becomes one error, which no other part raises."""
        try:
            with closing(self.engine.answer(self.ids, self.options)) as tokens:
                yield from tokens
        except Exception as error:
            raise EngineError(_told(error)) from error

    def events(self, wanted: Callable[[], bool]) -> Generator[dict[str, Any]]:
        """Give the parts of an answer that is told as it is made; see `pieces`."""
        opening = replies.opening(self.head)
        with closing(self.pieces(wanted)) as pieces:
            for text, tokens in pieces:
                if not self.begun and opening:
                    yield opening
                self.begun = True
                if text or any(token.likely and not token.ends for token in tokens):
                    yield replies.piece(self.head, text, tokens)
        yield replies.closing(self.head, self.finish)
        if self.include_usage:
            yield replies.counted(self.head, replies.usage(len(self.ids), self.count))

    def whole(self, wanted: Callable[[], bool]) -> dict[str, Any]:
        """Return the answer when it is complete; see `pieces`."""
        texts: list[str] = []
        told: list[Token] = []
        for text, tokens in self.pieces(wanted):
            texts.append(text)
            told += tokens
        used = replies.usage(len(self.ids), self.count)
        return replies.whole(self.head, "".join(texts), told, finish=self.finish, used=used)


def answering(asked: Asked, engine: Engine, model: str, defaults: Defaults) -> Answering:
    """Return an answer that can be made.

    Raises:
        RefusedError: The chat template cannot write the conversation, or it does not fit the context.
        EngineError: The engine has failed.
    """
    _refuse_too_large(asked, engine.context)
    ids = _ids(asked, engine)
    room = engine.context - len(ids)
    if room < 1:
        message = f"This takes {len(ids):,} tokens, and the context has {engine.context:,}."
        param = "messages" if asked.messages else "prompt"
        raise RefusedError(message, param=param, code="context_length_exceeded")
    temperature, top_p = asked.temperature, asked.top_p
    options = Options(
        max_tokens=min(asked.max_tokens or room, room),
        temperature=defaults.temperature if temperature is None else temperature,
        top_p=defaults.top_p if top_p is None else top_p,
        top_k=min(asked.top_k, engine.vocabulary_size),
        seed=asked.seed,
        logprobs=asked.logprobs,
    )
    chat = asked.messages is not None
    name = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
    head = Head(name, int(time.time()), model, chat)
    return Answering(engine, ids, options, Shown(asked.stops), head, asked.include_usage)


def _refuse_too_large(asked: Asked, context: int) -> None:
    """Refuse what cannot fit by its size alone, before time is spent on it."""
    given = [m["content"] for m in asked.messages or ()]
    if isinstance(asked.prompt, str):
        given.append(asked.prompt)
    size = sum(len(text.encode()) for text in given)
    if size > context * MAX_TOKEN_BYTES:
        message = f"These {size:,} bytes cannot fit the context of {context:,} tokens."
        param = "messages" if asked.messages else "prompt"
        raise RefusedError(message, param=param, code="context_length_exceeded")


def _told(error: Exception) -> str:
    """Return an error in words; those of Python's own are named, since their text alone says little."""
    return str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"


def _ids(asked: Asked, engine: Engine) -> list[int]:
    """Return the tokens that the model reads."""
    try:
        if asked.messages is not None:
            return engine.read(asked.messages)
        if isinstance(asked.prompt, str):
            ids = engine.read_text(asked.prompt)
        else:
            ids = list(asked.prompt)
    except TunewrightError as error:
        reason = error.problems[0].message
        raise RefusedError(reason, param="messages", code="invalid_prompt") from error
    except Exception as error:
        raise EngineError(_told(error)) from error
    if not ids:
        raise RefusedError("There is nothing to continue.", param="prompt")
    if not all(0 <= token < engine.vocabulary_size for token in ids):
        most = engine.vocabulary_size - 1
        raise RefusedError(f"Token ids are from 0 to {most:,}.", param="prompt")
    return ids
