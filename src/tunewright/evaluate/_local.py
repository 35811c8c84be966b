"""What needs the models themselves: answers, and losses on rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerFast

from tunewright.evaluate.perplexity import RowLoss
from tunewright.events import Listener
from tunewright.models._generate import Sampling, generate
from tunewright.models._load import device, load_tokenizer, load_tuned, vocabulary_of
from tunewright.models.chat import Message, Vocabulary, encode


@dataclass(frozen=True)
class Pair:
    """Base and tuned model in one: the adapter can be switched off.

    Attributes:
        model: The base with the adapter, float32.
        tokenizer: The one that was trained with.
        vocabulary: The same for chat.py.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary


def load_pair(base: Path, adapter: Path) -> Pair:
    """Return the base with the adapter on the best device here.

    Raises:
        TunewrightError: E_MODEL, one of them cannot be loaded.
    """
    tokenizer = load_tokenizer(adapter)
    model = load_tuned(base, adapter).to(device())
    return Pair(model, tokenizer, vocabulary_of(tokenizer))


def answers(
    pair: Pair, prompts: Sequence[Sequence[Message]], *, sampling: Sampling, listener: Listener
) -> tuple[list[str], list[str]]:
    """Return the answers of base and tuned model, sampled with the same seeds."""
    listener.started("compare", 2 * len(prompts), "answers")

    def write(offset: int, who: str) -> list[str]:
        return generate(
            pair.model,
            pair.tokenizer,
            pair.vocabulary,
            prompts,
            sampling=sampling,
            advanced=lambda done: listener.advanced(offset + done, who),
        )

    with pair.model.disable_adapter():
        base = write(0, "base")
    return base, write(len(prompts), "tuned")


def token_counts(pair: Pair, texts: Sequence[str]) -> list[int]:
    """Return the number of tokens of each text."""
    return [len(pair.vocabulary.tokenize(text)) for text in texts]


def row_losses(
    pair: Pair, rows: Sequence[Sequence[Message]], *, max_length: int, listener: Listener
) -> list[RowLoss]:
    """Return what base and tuned model lose on the label tokens of each row that has any.

    A row at a time: padding cannot change a figure, and only the logits of labels are computed.
    """
    listener.started("compare", len(rows), "rows")
    losses: list[RowLoss] = []
    for done, row in enumerate(rows, 1):
        encoded = encode(row, pair.vocabulary)
        ids, mask = encoded.input_ids[:max_length], encoded.mask[:max_length]
        labels = [at for at in range(1, len(ids)) if mask[at]]
        if labels:
            with pair.model.disable_adapter():
                base = _loss(pair.model, ids, labels)
            losses.append(RowLoss(base, _loss(pair.model, ids, labels), len(labels)))
        listener.advanced(done, "perplexity")
    return losses


def _loss(model: PeftModel, ids: list[int], labels: list[int]) -> float:
    """Return the summed negative log likelihood of the tokens at the positions `labels`."""
    ids_1T = torch.tensor([ids], device=model.device)
    at_L = torch.tensor(labels, device=model.device)
    with torch.inference_mode():
        logits_LV = model(input_ids=ids_1T, logits_to_keep=at_L - 1).logits[0]
        loss = torch.nn.functional.cross_entropy(
            logits_LV.float(), ids_1T[0, at_L], reduction="sum"
        )
    return float(loss)
