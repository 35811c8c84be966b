"""A conversation in the terminal, with one model or with base and tuned side by side."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from tunewright.config.schema import Config
from tunewright.models.chat import Message
from tunewright.serve._open import opened, opened_pair
from tunewright.serve.engine import Engine, Options
from tunewright.serve.history import fitting
from tunewright.serve.pieces import Shown
from tunewright.serve.servable import Servable

ANSWER_SHARE = 4
"""One part in so many of the context is kept free for the answer."""
SIDES = ("base", "tuned")


class _TooLongError(Exception):
    """A question that does not fit the context; the text says so."""


Say = Callable[[str, str], None]
"""Whose answer, and a piece of it; an empty piece ends it."""


@dataclass
class Side:
    """One of those that answer.

    Attributes:
        name: `base` or `tuned`.
        engine: Its model.
        messages: The conversation as it is for this side, with its own answers.
    """

    name: str
    engine: Engine
    messages: list[Message] = field(default_factory=list[Message])


def chat_with(
    config: Config, model: Servable, *, ask: Callable[[], str | None], say: Say, compare: bool
) -> None:
    """Hold a conversation; see `tunewright.serve.chat`."""
    with ExitStack() as stack:
        if compare:
            engines = stack.enter_context(opened_pair(config, model))
            sides = [Side(name, own) for name, own in zip(SIDES, engines, strict=True)]
        else:
            sides = [Side("tuned", stack.enter_context(opened(config, model)))]
        system = config.export.system
        for side in sides:
            side.messages += [Message(role="system", content=system)] if system else []
        turn = 0
        while (line := _asked(ask)) is not None:
            if not line.strip():
                continue
            # Both sides get the same seed: what differs is the model.
            _turn(config, sides, line, say, seed=config.seed + turn if compare else None)
            turn += 1


def _asked(ask: Callable[[], str | None]) -> str | None:
    """Return what the user says; Ctrl-C while nothing is being answered ends the conversation."""
    try:
        return ask()
    except KeyboardInterrupt:
        return None


def _turn(config: Config, sides: Sequence[Side], line: str, say: Say, *, seed: int | None) -> None:
    """Let every side answer; Ctrl-C ends the answers, and what was said of them stays said."""
    ended = False
    for side in sides:
        side.messages.append(Message(role="user", content=line))
        pieces: list[str] = []
        try:
            with closing(_answer(config, side, seed)) as answer:
                for piece in answer if not ended else ():
                    pieces.append(piece)
                    say(side.name, piece)
        except KeyboardInterrupt:
            ended = True
        except _TooLongError as error:
            say(side.name, str(error))
        say(side.name, "")
        if pieces:
            side.messages.append(Message(role="assistant", content="".join(pieces)))
        else:
            # Nothing was answered, so nothing was asked.
            side.messages.pop()


def _answer(config: Config, side: Side, seed: int | None) -> Generator[str]:
    """Give the pieces of an answer as they come."""
    engine = side.engine
    limit = engine.context - engine.context // ANSWER_SHARE
    kept = fitting(side.messages, limit, lambda chat: len(engine.read(chat)))
    ids = engine.read(kept)
    if len(ids) >= engine.context:
        raise _TooLongError(
            f"(The question takes {len(ids):,} tokens, and the context has {engine.context:,}: "
            "ask something shorter, or raise `serve.max_model_len`.)"
        )
    side.messages = kept
    options = Options(
        max_tokens=engine.context - len(ids),
        temperature=config.export.temperature,
        top_p=config.export.top_p,
        seed=seed,
    )
    shown = Shown()
    with closing(engine.answer(ids, options)) as tokens:
        for token in tokens:
            if piece := shown.add(token.text):
                yield piece
    if rest := shown.rest():
        yield rest
