"""What of a conversation still fits the context: the latest turns, and the system message. Pure."""

from collections.abc import Callable, Sequence

from tunewright.models.chat import Message


def fitting(
    messages: Sequence[Message], limit: int, count: Callable[[Sequence[Message]], int]
) -> list[Message]:
    """Return the messages without the oldest exchanges, so that they take at most `limit` tokens.

    The system message and the last question stay, whatever they take.

    Args:
        messages: Ends with a user's message.
        limit: Tokens.
        count: Tokens of a conversation.
    """
    system = [m for m in messages[:1] if m["role"] == "system"]
    turns = list(messages[len(system) :])
    while len(turns) > 1 and count([*system, *turns]) > limit:
        turns = turns[2:]
    return [*system, *turns]
