"""What an engine is, which one serves what, and with how many tokens of context."""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tunewright.config.schema import Config
from tunewright.errors import CODES, Problem, TunewrightError
from tunewright.models.messages import Message
from tunewright.serve.servable import GgufModel, Servable

MIN_TEMPERATURE = 1e-4
EngineName = Literal["llama.cpp", "transformers", "vllm"]


@dataclass(frozen=True)
class Options:
    """How one answer is made.

    Attributes:
        max_tokens: Tokens at most.
        temperature: Divides the logits; under 0.0001: the most likely token each time.
        top_p: Probability mass sampled from.
        top_k: Most likely tokens sampled from; 0: all.
        seed: Of the sampling; None: another one each time.
        logprobs: How many alternatives to tell beside each token; None: no probabilities.
    """

    max_tokens: int
    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """The most likely token each time: logits divided by less than this are no numbers any more."""
        return self.temperature < MIN_TEMPERATURE


@dataclass(frozen=True)
class Likely:
    """A token and how likely it was.

    Attributes:
        text: Its own characters; those of an incomplete one are the replacement character.
        data: Its own bytes; None: they are no whole character.
        logprob: Natural logarithm of its probability, before temperature.
    """

    text: str
    data: bytes | None
    logprob: float


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        id: In the vocabulary.
        text: What it adds to the text; a character is added by its last byte.
        ends: It is the end of the answer.
        count: How many tokens it stands for: engines may tell those of one character together.
        likely: Itself, if probabilities were asked for.
        others: The most likely tokens at its place, the likeliest first.
    """

    id: int
    text: str
    ends: bool = False
    likely: Likely | None = None
    others: tuple[Likely, ...] = ()
    count: int = 1


class Engine(Protocol):
    """A model that answers, one request at a time."""

    @property
    def context(self) -> int:
        """Tokens of question and answer together."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens that the model knows."""
        ...

    def read(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens that the model reads before it answers a conversation.

        Raises:
            TunewrightError: E_TEMPLATE, the chat template cannot write it.
        """
        ...

    def read_text(self, text: str) -> list[int]:
        """Return the tokens of a text that is to be continued."""
        ...

    def answer(self, ids: Sequence[int], options: Options) -> Generator[Token]:
        """Give an answer token by token; closed early, no more of it is computed."""
        ...


@dataclass(frozen=True)
class Here:
    """What this machine has for serving.

    Attributes:
        vllm: The command `vllm` is installed.
        gpu: There is a GPU that computes.
    """

    vllm: bool
    gpu: bool


def chosen(
    asked: Literal["auto"] | EngineName, model: Servable, here: Here, unfit: Sequence[str] = ()
) -> tuple[EngineName, str]:
    """Return the engine that serves a model, and why.

    Args:
        asked: `serve.engine`.
        model: What is to be served.
        here: What there is for it.
        unfit: What of the model vLLM cannot serve.

    Raises:
        TunewrightError: E_ENGINE for everything that keeps the engine that was asked for from serving it.
    """
    of_file = isinstance(model, GgufModel)
    missing = [] if of_file else _missing_for_vllm(here, unfit)
    if asked == "auto":
        if of_file:
            return "llama.cpp", "it is a GGUF file"
        if not missing:
            return "vllm", "it is installed, and there is a GPU"
        return "transformers", f"vLLM cannot: {missing[0][0].rstrip('.')}"
    wrong: list[tuple[str, str]] = []
    if of_file and asked != "llama.cpp":
        wrong.append((f"A GGUF file is served by llama.cpp, not by {asked}.", _OTHER))
    elif not of_file and asked == "llama.cpp":
        wrong.append(("llama.cpp serves GGUF files, and this is none.", _EXPORT))
    elif asked == "vllm":
        wrong = missing
    if wrong:
        where = f"serve.engine, {model.path}"
        raise TunewrightError(
            Problem("E_ENGINE", message, where, fix or CODES["E_ENGINE"].fix)
            for message, fix in wrong
        )
    return asked, "it was asked for"


_OTHER = (
    "Leave `--engine` out, or serve adapter or merged model: `--what adapter`, `--what merged`."
)
_EXPORT = "Leave `--engine` out; or `tunewright export` makes a GGUF file of a run."


def _missing_for_vllm(here: Here, unfit: Sequence[str]) -> list[tuple[str, str]]:
    """Return what keeps vLLM from serving a model, each with what to do."""
    found: list[tuple[str, str]] = []
    if not here.vllm:
        found.append(("vLLM is not installed.", "pip install 'tunewright[vllm]'"))
    if not here.gpu:
        found.append(("There is no GPU here.", "Serve with `--engine transformers`."))
    found += [(f"{reason}.", "Merge it, and serve that: `--what merged`.") for reason in unfit]
    return found


def context_of(config: Config, folder: Path | None = None) -> int:
    """Return the tokens of context: as the options say, and not more than the model was made for."""
    wanted = config.serve.max_model_len or config.export.num_ctx
    if folder is None:
        return wanted
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return min(wanted, int(about.get("max_position_embeddings") or wanted))
