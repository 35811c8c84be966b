"""Proof that a GGUF file tokenises, renders and computes as the merged model does."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerFast
from typing_extensions import TypedDict

from tunewright.errors import TunewrightError
from tunewright.export.sentencepiece import SPACE
from tunewright.models._llama import EndpointError, post, requested
from tunewright.models._load import load_model
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import Message, encode, is_raw, render

FULL_VOCABULARY = 8192
"""Tokens: up to this size the whole distribution is compared, above it the TOP and a rest."""
TOP = 1000
ENDS_OF_ADDED = 32
"""Added tokens that are tried, of the first and of the last."""


class _Entry(TypedDict):
    """A token and its log-probability, which is null where it is NaN."""

    id: int
    logprob: float | None


class _Sampled(TypedDict):
    top_logprobs: list[_Entry]


class _Probabilities(TypedDict):
    completion_probabilities: list[_Sampled]


_PROBABILITIES = TypeAdapter(_Probabilities)
"""Reads what is needed of an answer, in half the time that all of it takes: text and bytes of thousands of tokens."""


@dataclass(frozen=True)
class Position:
    """A place in a held-out row.

    Attributes:
        prefix: Token ids up to it.
        next: The token that follows in the row.
        log_p: The merged model's log-probability of each next token.
    """

    prefix: list[int]
    next: int
    log_p: np.ndarray


@dataclass(frozen=True)
class Divergence:
    """How far the GGUF's next-token distributions are from the merged model's.

    Attributes:
        mean_kl: Nats.
        max_kl: Nats.
        top1_agreement: Share of positions with the same most likely token.
        perplexity: The GGUF's, of the tokens that follow: exp(-mean log q).
        merged_perplexity: The merged model's, of the same: exp(-mean log p).
        positions: Number of positions.
    """

    mean_kl: float
    max_kl: float
    top1_agreement: float
    perplexity: float
    merged_perplexity: float
    positions: int

    @property
    def perplexity_change(self) -> float:
        """How much higher the GGUF's perplexity is, as a share."""
        return self.perplexity / self.merged_perplexity - 1


def hard_texts(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return the bundled texts on which tokenizers differ, and the tokenizer's own added tokens."""
    source = resources.files("tunewright.export") / "hard_texts.json"
    texts: list[str] = json.loads(source.read_text(encoding="utf-8"))
    added = [t.content for t in tokenizer.added_tokens_decoder.values()]
    if len(added) > 2 * ENDS_OF_ADDED:
        # The template's are among the first, a user's own among the last.
        added = added[:ENDS_OF_ADDED] + added[-ENDS_OF_ADDED:]
    return texts + [f"a {token} b{token}{token}c" for token in added]


def positions_of(
    model: Path, rows: Sequence[Sequence[int]], *, count: int, max_prefix: int
) -> list[Position]:
    """Return `count` positions spread over the rows, with the model's answer in float32."""
    network = load_model(model, "float32")
    positions: list[Position] = []
    for row in rows:
        longest = min(len(row) - 1, max_prefix)
        each = min(math.ceil(count / len(rows)), longest)
        ends = sorted({1 + round(i * (longest - 1) / max(each - 1, 1)) for i in range(each)})
        if not ends:
            continue
        with torch.inference_mode():
            logits_TV = network(torch.tensor([list(row[:longest])])).logits[0]
        picked_PV = logits_TV[[end - 1 for end in ends]].double().log_softmax(-1).numpy()
        positions += [
            Position(list(row[:end]), row[end], log_p)
            for end, log_p in zip(ends, picked_PV, strict=True)
        ]
    return positions


def divergence(
    url: str, positions: Sequence[Position], advanced: Callable[[int], None]
) -> Divergence:
    """Return how far the endpoint's next-token distributions are from the given ones."""
    # llama.cpp shows the distribution, which is the one before any bias, only along with a token
    # that neither ends the answer nor is half a character: an "a" is sampled always.
    shown = _tokens(url, "a")[0]
    kls: list[float] = []
    log_ps: list[float] = []
    log_qs: list[float] = []
    agreed = 0
    for position in positions:
        vocabulary = len(position.log_p)
        asked = {
            "prompt": position.prefix,
            "n_predict": 1,
            "n_probs": vocabulary if vocabulary <= FULL_VOCABULARY else TOP,
            "temperature": 0,
            "logit_bias": [[shown, 1e4]],
        }
        with requested(url, "/completion", asked) as response:
            answer = _PROBABILITIES.validate_json(response.read())
        top = answer["completion_probabilities"][0]["top_logprobs"]
        ids = np.array([entry["id"] for entry in top])
        log_q = np.array([entry["logprob"] for entry in top], np.float64)
        with np.errstate(invalid="ignore"):
            if len(ids) == vocabulary:
                log_q = as_distribution(log_q)
            kls.append(kl(position.log_p, ids, log_q))
        log_p_next, log_q_next = of_next(position, ids, log_q)
        log_ps.append(log_p_next)
        log_qs.append(log_q_next)
        agreed += int(ids[log_q.argmax()] == position.log_p.argmax())
        advanced(len(kls))
    return Divergence(
        mean_kl=float(np.mean(kls)),
        max_kl=float(np.max(kls)),
        top1_agreement=agreed / len(kls),
        perplexity=_perplexity(log_qs),
        merged_perplexity=_perplexity(log_ps),
        positions=len(kls),
    )


def as_distribution(log_q: np.ndarray) -> np.ndarray:
    """Return log-probabilities of all tokens that sum to 1: llama.cpp's float32 sum misses it by about 1e-5."""
    return log_q - np.logaddexp.reduce(log_q)


def kl(log_p: np.ndarray, ids: np.ndarray, log_q: np.ndarray) -> float:
    """Return KL(p || q) in nats, where q is known for some ids and the others are one outcome.

    One outcome for the rest makes it a lower bound. Source: data processing inequality, Cover and
    Thomas, Elements of Information Theory, 2.8.
    """
    log_p_known = log_p[ids]
    known = float(np.sum(np.exp(log_p_known) * (log_p_known - log_q)))
    if len(ids) == len(log_p):
        return known
    log_rest_p, log_rest_q = _log_rest(log_p_known), _log_rest(log_q)
    return known + math.exp(log_rest_p) * (log_rest_p - log_rest_q)


def of_next(position: Position, ids: np.ndarray, log_q: np.ndarray) -> tuple[float, float]:
    """Return log p and log q of the token that follows; of all that q is not known for, if it is one of those.

    So both are probabilities of the same event, and exp(-mean) of each is a perplexity of the same tokens.
    """
    at = np.flatnonzero(ids == position.next)
    if len(at):
        return float(position.log_p[position.next]), float(log_q[at[0]])
    return _log_rest(position.log_p[ids]), _log_rest(log_q)


def _perplexity(logs: Sequence[float]) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(-np.mean(logs)))


def _log_rest(log_known: np.ndarray) -> float:
    return math.log(max(1.0 - float(np.exp(log_known).sum()), 1e-9))


@dataclass(frozen=True)
class Comparison:
    """What was compared for equality.

    Attributes:
        compared: How many.
        differing: Those that are not equal.
        normalised: How many were compared after Unicode normalisation, which llama.cpp leaves out.
    """

    compared: int
    differing: list[str]
    normalised: int


def compare_tokens(
    url: str, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> Comparison:
    """Return whether the endpoint tokenises the texts alike, special tokens being text."""
    given = [normalised(tokenizer, text) for text in texts]
    differing = [
        text
        for text, plain in zip(texts, given, strict=True)
        if _tokens(url, plain)
        != tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ]
    changed = sum(text != plain for text, plain in zip(texts, given, strict=True))
    return Comparison(len(texts), differing, changed)


def compare_chats(
    url: str, tokenizer: PreTrainedTokenizerFast, chats: Sequence[Sequence[Message]]
) -> Comparison:
    """Return whether the endpoint renders and tokenises the chats as training does.

    A chat that quotes a special token is left out: llama.cpp cannot tell it from a real one.
    A chat which the template refuses, and raw text, which has no template, are left out, too.
    """
    vocabulary = vocabulary_of(tokenizer)
    differing: list[str] = []
    compared = changed = 0
    for chat in chats:
        quotes = any(token in m["content"] for token in vocabulary.special for m in chat)
        if quotes or is_raw(chat):
            continue
        prompt = list(chat[:-1] if chat[-1]["role"] == "assistant" else chat)
        try:
            text = render(chat, vocabulary)
            question = render(prompt, vocabulary, add_generation_prompt=True)
            expected = encode(chat, vocabulary).input_ids
        except TunewrightError:
            continue
        plain = normalised(tokenizer, text)
        compared, changed = compared + 1, changed + (plain != text)
        try:
            served = post(url, "/apply-template", {"messages": prompt})["prompt"]
        except EndpointError as error:
            differing.append(f"{error}: {question}")
            continue
        bos = vocabulary.bos_token
        if served.removeprefix(bos) != question.removeprefix(bos):
            differing.append(question)
        elif _tokens(url, plain, parse_special=True) != expected:
            differing.append(text)
    return Comparison(compared, differing, changed)


def _tokens(
    url: str, text: str, *, parse_special: bool = False, add_special: bool = False
) -> list[int]:
    body = {"content": text, "add_special": add_special, "parse_special": parse_special}
    return post(url, "/tokenize", body)["tokens"]


def normalised(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """Return a text as the tokenizer normalises it, which llama.cpp leaves out."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    # llama.cpp itself writes SentencePiece's sign for a space, where that is all that is normalised.
    if normalizer is None or SPACE in normalizer.normalize_str(" "):
        return text
    return normalizer.normalize_str(text)
