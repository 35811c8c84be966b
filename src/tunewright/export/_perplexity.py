"""How far a GGUF file's perplexity is from the merged model's, at as many tokens as it takes to tell it from a limit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunewright.models._llama import post

_TWO_SIDED_95 = 1.96


@dataclass(frozen=True)
class Token:
    """A token of the answer of a held-out row.

    Attributes:
        prefix: Token ids before it.
        id: Its own.
        log_p: Its log-probability by the merged model.
    """

    prefix: list[int]
    id: int
    log_p: float


@dataclass(frozen=True)
class Perplexity:
    """What both models say of the same tokens.

    Attributes:
        log_ps: The merged model's log-probability of each.
        log_qs: The GGUF's.
    """

    log_ps: Sequence[float]
    log_qs: Sequence[float]

    @property
    def gguf(self) -> float:
        """The GGUF's perplexity: exp(-mean log q)."""
        return _exp(-_mean(self.log_qs))

    @property
    def merged(self) -> float:
        """The merged model's: exp(-mean log p)."""
        return _exp(-_mean(self.log_ps))

    @property
    def change(self) -> float:
        """How much higher the GGUF's is, as a share: exp(mean(log p - log q)) - 1."""
        return self.gguf / self.merged - 1

    @property
    def interval(self) -> tuple[float, float]:
        """The change's 95 % interval, by the normal distribution of a mean of paired differences."""
        differences = np.subtract(self.log_ps, self.log_qs)
        if len(differences) < 2:
            return -1.0, math.inf
        half = _TWO_SIDED_95 * float(differences.std(ddof=1)) / math.sqrt(len(differences))
        middle = float(differences.mean())
        return _exp(middle - half) - 1, _exp(middle + half) - 1

    def is_clear_of(self, limit: float) -> bool:
        """Return whether the interval has neither end of what a change may be within it; NaN is clear of all."""
        low, high = self.interval
        return not any(low <= edge <= high for edge in (-limit, limit))

    def __add__(self, other: "Perplexity") -> "Perplexity":
        """Return both as one."""
        return Perplexity([*self.log_ps, *other.log_ps], [*self.log_qs, *other.log_qs])


def ask(url: str, tokens: Sequence[Token], advanced: Callable[[int], None]) -> Perplexity:
    """Return what the endpoint says of the tokens; those whose probability it does not show are left out."""
    log_ps: list[float] = []
    log_qs: list[float] = []
    for number, token in enumerate(tokens, start=1):
        # It tells the probability, which is the one before any bias, of the token that is sampled.
        asked = {"n_predict": 1, "n_probs": 1, "temperature": 0, "logit_bias": [[token.id, 1e4]]}
        answer = post(url, "/completion", {"prompt": token.prefix, **asked})
        for shown in answer.get("completion_probabilities", [])[:1]:
            if shown["id"] == token.id:
                log_ps.append(token.log_p)
                log_qs.append(math.nan if shown["logprob"] is None else shown["logprob"])
        advanced(number)
    return Perplexity(log_ps, log_qs)


def _mean(logs: Sequence[float]) -> float:
    return float(np.mean(logs))


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(value))
