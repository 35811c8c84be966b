"""The engine for adapters and merged models: Transformers, token by token, so that an answer can be streamed and ended."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tunewright.config.schema import Config
from tunewright.models._folders import resolve_model
from tunewright.models._load import load_tuned
from tunewright.models._place import adapter_switched, load_alone, loading, put_on
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models.chat import Message, Vocabulary, prompt_ids
from tunewright.serve.engine import Likely, Options, Token, context_of
from tunewright.serve.servable import AdapterModel

UNKNOWN = "\ufffd"
"""What stands for bytes that are no whole character."""


@dataclass(frozen=True)
class Local:
    """A model of this process; of a base with an adapter, either.

    Attributes:
        model: In evaluation mode.
        tokenizer: The one that was trained with.
        vocabulary: The same for chat.py.
        context: Tokens of question and answer together.
        adapted: The adapter is on; of no matter for a model without one.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    context: int
    adapted: bool = True

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens that the model knows."""
        return self.model.get_input_embeddings().get_parameter("weight").shape[0]

    def read(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens that the model reads before it answers; see `Engine`."""
        return prompt_ids(messages, self.vocabulary)

    def read_text(self, text: str) -> list[int]:
        """Return the tokens of a text that is to be continued."""
        return prompt_ids([Message(role="assistant", content=text)], self.vocabulary)

    def answer(self, ids: Sequence[int], options: Options) -> Generator[Token]:
        """Give an answer token by token; see `Engine`."""
        dice = torch.Generator(self.model.device)
        if options.seed is None:
            dice.seed()
        else:
            dice.manual_seed(options.seed)
        stream = DecodeStream(skip_special_tokens=True)
        told, written, state = "", list[int](), None
        step = list(ids)
        for left in range(options.max_tokens - 1, -1, -1):
            logits_V, state = self._next(step, state)
            token = picked(logits_V, options, dice)
            written.append(token)
            ends = token in self.vocabulary.ends
            stream, text = self._text(stream, written)
            if ends or not left:
                text += self._rest(written, told + text)
            told += text
            yield Token(token, text, ends, *self._likely(logits_V, token, options))
            if ends:
                return
            step = [token]

    def _next(self, ids: Sequence[int], state: Any) -> tuple[torch.Tensor, Any]:
        """Return the logits after these tokens, and what the model keeps of all before."""
        with torch.inference_mode(), adapter_switched(self.model, on=self.adapted):
            out = self.model(
                input_ids=torch.tensor([list(ids)], device=self.model.device),
                past_key_values=state,
                use_cache=True,
                logits_to_keep=1,
            )
        return out.logits[0, -1].float(), out.past_key_values

    def _text(self, stream: DecodeStream, written: Sequence[int]) -> tuple[DecodeStream, str]:
        """Return what the last token adds to the text, and the stream that reads the next one."""
        *before, token = written
        own = self.tokenizer.backend_tokenizer
        try:
            return stream, stream.step(own, token) or ""
        except Exception as error:
            # Tokenizers has no type for it: decoders that change what they have told cannot go on.
            if "Invalid prefix" not in str(error):
                raise
        # The token before keeps the space that begins this one.
        stream = DecodeStream(before[-1:], skip_special_tokens=True)
        return stream, stream.step(own, token) or ""

    def _rest(self, written: Sequence[int], told: str) -> str:
        """Return what the whole text has beyond what was told: characters that stay incomplete."""
        whole = str(self.tokenizer.decode(list(written), skip_special_tokens=True))
        return whole.removeprefix(told) if whole.startswith(told) else ""

    def _likely(
        self, logits_V: torch.Tensor, token: int, options: Options
    ) -> tuple[Likely | None, tuple[Likely, ...]]:
        if options.logprobs is None:
            return None, ()
        logs_V = torch.log_softmax(logits_V, dim=-1)
        best = torch.topk(logs_V, min(options.logprobs, logs_V.shape[0])).indices.tolist()
        own, *others = (self._one(int(i), float(logs_V[i])) for i in (token, *best))
        return own, tuple(others)

    def _one(self, token: int, logprob: float) -> Likely:
        # A text's first token loses the space before it; the second of two has it.
        once, twice = (str(self.tokenizer.decode([token] * n)) for n in (1, 2))
        text = twice.removeprefix(once) if twice.startswith(once) else once
        return Likely(text, None if UNKNOWN in text else text.encode(), logprob)


def load_adapted(config: Config, model: AdapterModel) -> Local:
    """Return a base with an adapter.

    Raises:
        TunewrightError: E_MODEL, E_ARTIFACT_INVALID, E_NOT_FOUND: it cannot be loaded.
    """
    base = resolve_model(model.base, model.revision)
    options = config.train.model_copy(update={"load_in_4bit": model.in_4_bits})
    tuned = load_tuned(base, model.path, **loading(base, options))
    if model.checkpoint:
        put_on(tuned, model.checkpoint)
    tokenizer = load_tokenizer(model.path)
    return Local(tuned, tokenizer, vocabulary_of(tokenizer), context_of(config, base))


def load_as_it_is(config: Config, folder: Path, tokenizer: Path) -> Local:
    """Return a model without an adapter, which reads as the tokenizer of another folder may.

    Raises:
        TunewrightError: As `load_adapted`.
    """
    resolve_model(str(folder))
    options = config.train.model_copy(update={"load_in_4bit": False})
    own, reads = load_alone(folder, tokenizer, **loading(folder, options))
    return Local(own, reads, vocabulary_of(reads), context_of(config, folder))


def picked(logits_V: torch.Tensor, options: Options, dice: torch.Generator) -> int:
    """Return the next token: the most likely one, or one that is sampled.

    Temperature comes first, then `top_k`, then `top_p`: the order of Transformers.

    Source: nucleus sampling, Holtzman et al. 2020, https://arxiv.org/abs/1904.09751
    """
    if options.greedy:
        return int(logits_V.argmax())
    scaled_V, order_V = torch.sort(logits_V / options.temperature, descending=True)
    if options.top_k:
        scaled_V = scaled_V[: options.top_k]
    probabilities_K = torch.softmax(scaled_V, dim=-1)
    before_K = probabilities_K.cumsum(dim=-1) - probabilities_K
    probabilities_K = probabilities_K.masked_fill(before_K >= options.top_p, 0)
    return int(order_V[torch.multinomial(probabilities_K, 1, generator=dice)])
