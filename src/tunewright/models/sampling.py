"""How answers are sampled, and what one is. Pure."""

from dataclasses import dataclass

EMPTY_THOUGHT = "<think>\n\n</think>\n\n"
"""Qwen3's template puts it before an answer; a model trained on it writes it, too."""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        max_new_tokens: Tokens of an answer at most.
        temperature: Divides the logits; 0: the most likely token each time.
        top_p: Probability mass sampled from.
    """

    max_new_tokens: int
    temperature: float
    top_p: float


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: Without special tokens.
        tokens: How many it sampled, the end among them.
        ended: It ended by itself, and was not cut at the limit.
    """

    text: str
    tokens: int
    ended: bool


class TimeUpError(Exception):
    """There was no time to finish an answer."""
