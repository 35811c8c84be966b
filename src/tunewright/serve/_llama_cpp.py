"""The engine for GGUF files: llama.cpp in this process, given tokens and asked for tokens.

Its own chat routes stay unused: they render what a request says of the chat template.
"""

import http.client
import json
import secrets
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunewright.errors import failure
from tunewright.models._llama import endpoint, post, requested
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models.chat import Message, Vocabulary, prompt_ids
from tunewright.models.gguf_check import require_gguf
from tunewright.models.gguf_file import read_layout
from tunewright.serve.engine import Likely, Options, Token

ALL_F32 = 0
"""`general.file_type` of a file whose weights are in 32 bits."""
CONTROL = 3
"""Type of a token that the model's makers, and not a text, put in."""
TOKENS, KINDS = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
TEMPLATE = "tokenizer.chat_template"
RANDOM_SEED = 2**32 - 1
"""What llama.cpp reads as: another seed each time. Source: `LLAMA_DEFAULT_SEED` in llama.h."""


@dataclass(frozen=True)
class LlamaCpp:
    """A GGUF file that llama.cpp has loaded.

    Attributes:
        url: Of llama.cpp's own server, which only this process can use.
        key: That it asks for.
        vocabulary: Of the tokenizer.
        vocabulary_size: Number of tokens that the model knows.
        context: Tokens of question and answer together.
    """

    url: str
    key: str
    vocabulary: Vocabulary
    vocabulary_size: int
    context: int

    def read(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens that the model reads before it answers; see `Engine`."""
        if not self.vocabulary.template:
            message = "The GGUF file has no chat template; it can continue texts."
            raise failure("E_TEMPLATE", message, where=TEMPLATE)
        return prompt_ids(messages, self.vocabulary)

    def read_text(self, text: str) -> list[int]:
        """Return the tokens of a text that is to be continued."""
        return prompt_ids([Message(role="assistant", content=text)], self.vocabulary)

    def answer(self, ids: Sequence[int], options: Options) -> Generator[Token]:
        """Give an answer token by token; see `Engine`."""
        told = 0
        with requested(self.url, "/completion", _body(ids, options), self.key) as response:
            for event in _events(response):
                if "error" in event:
                    raise RuntimeError(str(event["error"].get("message", "llama.cpp failed")))
                count = event["tokens_predicted"] - told
                told += count
                token = _token(event, count, self.vocabulary.ends, options.logprobs or 0)
                if token.count or token.text or token.ends:
                    yield token
                if token.ends:
                    return


def _body(ids: Sequence[int], options: Options) -> dict[str, Any]:
    """Return the request: nothing but what was asked for has a say in what is sampled."""
    reproducible = options.greedy or options.seed is not None
    return {
        "prompt": list(ids),
        "stream": True,
        "return_tokens": True,
        "n_predict": options.max_tokens,
        "temperature": 0 if options.greedy else options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "samplers": ["temperature", "top_k", "top_p"],
        "n_probs": 0 if options.logprobs is None else max(1, options.logprobs),
        # What is computed in other batches is rounded otherwise.
        "cache_prompt": not reproducible,
        **({} if options.seed is None else {"seed": options.seed % RANDOM_SEED}),
    }


def _events(response: http.client.HTTPResponse) -> Generator[dict[str, Any]]:
    """Give the JSON values of a stream of server-sent events."""
    for line in response:
        name, _, data = line.decode().partition(": ")
        if name in ("data", "error") and data.strip() != "[DONE]":
            event = json.loads(data)
            yield event if name == "data" else {"error": event}


def _token(event: dict[str, Any], count: int, ends: frozenset[int], others: int) -> Token:
    ids: list[int] = event.get("tokens") or [-1]
    last = event.get("stop", False) and event.get("stop_type") in ("eos", "word")
    if not ends.isdisjoint(ids):
        return Token(ids[-1], "", ends=True, count=count)
    told = event.get("completion_probabilities")
    likely = _likely(told[0]) if told else None
    best = tuple(map(_likely, told[0]["top_logprobs"][:others])) if told else ()
    return Token(ids[-1], event["content"], last, likely, best, count)


def _likely(one: dict[str, Any]) -> Likely:
    data = bytes(one["bytes"])
    return Likely(one["token"], data, one["logprob"])


@contextmanager
def loaded(file: Path, tokenizer: Path | None, context: int) -> Generator[LlamaCpp]:
    """Give the engine of a GGUF file; it ends with the block.

    Args:
        file: The GGUF file.
        tokenizer: Folder with the tokenizer's files from training; None: the file's own are used.
        context: Tokens of question and answer at most; less where the model was made for less.

    Raises:
        TunewrightError: E_NOT_FOUND, there is no such file. E_GGUF_INVALID, E_ARTIFACT_INVALID, it is
            damaged, or no model; see `endpoint`.
    """
    if not file.is_file():
        raise failure("E_NOT_FOUND", "There is no such GGUF file.", where=file)
    # llama.cpp and we trust what a file says only after a process of its own has looked at it.
    require_gguf(file)
    try:
        with file.open("rb") as stream:
            facts = cast("dict[str, Any]", read_layout(stream, {TOKENS, KINDS, TEMPLATE}).metadata)
        longest = int(facts[f"{facts['general.architecture']}.context_length"])
        tokens: list[str] = facts[TOKENS]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        message = f"The GGUF file cannot be used: {reason}."
        raise failure("E_ARTIFACT_INVALID", message, where=file) from error
    context = min(context, longest)
    key = secrets.token_urlsafe(32)
    exact = facts.get("general.file_type") == ALL_F32
    with endpoint(file, ctx=context, key=key, exact=exact, own_template=False) as url:
        own = vocabulary_of(load_tokenizer(tokenizer)) if tokenizer else _own(url, key, facts)
        yield LlamaCpp(url, key, own, len(tokens), context)


def _own(url: str, key: str, facts: dict[str, Any]) -> Vocabulary:
    """Return the vocabulary of the file itself, tokenised by llama.cpp."""
    tokens: list[str] = facts[TOKENS]
    kinds: list[int] = facts.get(KINDS, [])
    special = {
        t: i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=False)) if kind == CONTROL
    }

    def ids_of(text: str, *, begin: bool = False) -> list[int]:
        body = {"content": text, "add_special": begin, "parse_special": False}
        return post(url, "/tokenize", body, key)["tokens"]

    def named(name: str) -> str:
        index = facts.get(f"tokenizer.ggml.{name}_token_id")
        return tokens[index] if isinstance(index, int) and index < len(tokens) else ""

    bos, eos = named("bos"), named("eos")
    special |= {text: tokens.index(text) for text in (bos, eos) if text}
    return Vocabulary(
        template=facts.get(TEMPLATE, ""),
        tokenize=lambda text: [(token, 0, 0) for token in ids_of(text)],
        special=special,
        bos_token=bos,
        eos_token=eos,
        adds_bos=bool(bos) and ids_of("x", begin=True)[:1] == [special[bos]],
    )
