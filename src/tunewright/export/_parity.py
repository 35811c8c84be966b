"""Proof that a GGUF file tokenises, renders and computes as the merged model does."""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerFast
from typing_extensions import TypedDict

from tunewright.errors import TunewrightError
from tunewright.export._perplexity import Perplexity, Token
from tunewright.export.sentencepiece import SPACE
from tunewright.models._llama import EndpointError, post, requested
from tunewright.models._load import load_model
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import Message, encode, is_raw, render
from tunewright.models.tokens import Encoded

FULL_VOCABULARY = 8192
"""Tokens: up to this size the whole distribution is compared, above it the TOP and a rest."""
TOP = 1000
_DOUBLINGS = 3
"""How often the tokens of a perplexity are doubled, at most."""
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
    """A place in the answer of a held-out row.

    Attributes:
        prefix: Token ids up to it.
        next: The token that follows in the row.
        log_p: The merged model's log-probability of each next token.
    """

    prefix: list[int]
    next: int
    log_p: np.ndarray


@dataclass(frozen=True)
class Places:
    """Where a GGUF file is held against the merged model.

    Attributes:
        positions: For the whole distribution.
        more: Other tokens of the same answers, for the perplexity alone, in batches to be read one after the other.
    """

    positions: list[Position]
    more: list[list[Token]]


@dataclass(frozen=True)
class Divergence:
    """How far the GGUF's next-token distributions are from the merged model's.

    Attributes:
        mean_kl: Nats.
        max_kl: Nats.
        top1_agreement: Share of positions with the same most likely token.
        positions: Number of positions.
        perplexity: Of the tokens that follow.
    """

    mean_kl: float
    max_kl: float
    top1_agreement: float
    positions: int
    perplexity: Perplexity


def hard_texts(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return the bundled texts on which tokenizers differ, and the tokenizer's own added tokens."""
    source = resources.files("tunewright.export") / "hard_texts.json"
    texts: list[str] = json.loads(source.read_text(encoding="utf-8"))
    added = [t.content for t in tokenizer.added_tokens_decoder.values()]
    if len(added) > 2 * ENDS_OF_ADDED:
        # The template's are among the first, a user's own among the last.
        added = added[:ENDS_OF_ADDED] + added[-ENDS_OF_ADDED:]
    return texts + [f"a {token} b{token}{token}c" for token in added]


def places_of(model: Path, rows: Sequence[Encoded], *, count: int, max_prefix: int) -> Places:
    """Return up to `count` positions spread over the answers of the rows, with the model's answer in float32.

    Only what training counts is asked for: what a template writes a model never has to predict, and the tiny
    probabilities that it has for it move far with every rounding. A prefix that several rows share counts once.
    """
    network = load_model(model, "float32")
    positions: list[Position] = []
    others: list[Token] = []
    taken: set[tuple[int, ...]] = set()
    for number, row in enumerate(rows):
        each = math.ceil((count - len(positions)) / (len(rows) - number))
        ids, answered = _stretch(row, max_prefix, each)
        new = [end for end in answered if tuple(ids[:end]) not in taken]
        if not new:
            continue
        taken.update(tuple(ids[:end]) for end in new)
        picked = np.linspace(0, len(new) - 1, min(each, len(new))).round().astype(int)
        chosen = {new[index] for index in picked}
        with torch.inference_mode():
            logits_TV = network(torch.tensor([ids[: new[-1]]])).logits[0]
        for end in new:
            log_p = logits_TV[end - 1].double().log_softmax(-1).numpy()
            if end in chosen:
                positions.append(Position(ids[:end], ids[end], log_p))
            else:
                others.append(Token(ids[:end], ids[end], float(log_p[ids[end]])))
    return Places(positions, _batches(others, count))


def _batches(tokens: Sequence[Token], count: int) -> list[list[Token]]:
    """Return tokens drawn from all of them, each time so many that what was read before is doubled.

    Those of a batch are in order: llama.cpp keeps what it has read of a row.
    """
    drawn = random.Random(0).sample(range(len(tokens)), len(tokens))
    starts = [count * (2**k - 1) for k in range(_DOUBLINGS + 1)]
    batches = [sorted(drawn[start:end]) for start, end in pairwise(starts)]
    return [[tokens[number] for number in batch] for batch in batches if batch]


def _stretch(row: Encoded, max_prefix: int, places: int) -> tuple[list[int], list[int]]:
    """Return the ids of the part of a row that is read, and where in them the tokens of answers are.

    It is the row's beginning, unless its first answer comes so late that places would be missing.
    """
    if 1 not in row.mask:
        return [], []
    start = max(0, row.mask.index(1) + places - max_prefix)
    ids, mask = (
        list(values[start : start + max_prefix + 1]) for values in (row.input_ids, row.mask)
    )
    return ids, [end for end in range(1, len(ids)) if mask[end]]


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
        positions=len(kls),
        perplexity=Perplexity(log_ps, log_qs),
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
