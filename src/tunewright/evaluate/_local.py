"""Models that are loaded here: their answers, and their losses on rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tunewright.evaluate.perplexity import RowLoss
from tunewright.events import Listener
from tunewright.models import _place
from tunewright.models._generate import generate
from tunewright.models._load import load_tuned
from tunewright.models._place import adapter_switched
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models.chat import Message, Vocabulary, encode
from tunewright.models.sampling import Answer, Sampling

MAX_TOKENS = 2048
"""Of all rows that run at once: more would not be faster, and take memory."""
MAX_LOGITS = 2**26
"""Numbers: what their logits take at most, 256 MB."""


@dataclass(frozen=True)
class LabelledRow:
    """A row to lose on.

    Attributes:
        ids: Token ids.
        labels: Positions whose tokens are to be foretold, in order; at least one, the first is 1 or more.
        cut: There was more than is read.
    """

    ids: Sequence[int]
    labels: Sequence[int]
    cut: bool = False


@dataclass(frozen=True)
class Local:
    """A model of this process; of a base with an adapter, either.

    Attributes:
        name: What it is, in words.
        model: In evaluation mode.
        tokenizer: The one that was trained with.
        vocabulary: The same for chat.py.
        sampling: How it answers.
        adapted: The adapter is on; of no matter for a model without one.
    """

    name: str
    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    sampling: Sampling
    adapted: bool = True

    def answer(
        self, prompts: Sequence[Sequence[Message]], *, seed: int, max_seconds: float
    ) -> list[Answer]:
        """Return one answer a prompt, sampled all at once.

        Raises:
            TimeUpError: `max_seconds` did not suffice.
        """
        with adapter_switched(self.model, on=self.adapted):
            return generate(
                self.model,
                self.tokenizer,
                self.vocabulary,
                prompts,
                sampling=self.sampling,
                seed=seed,
                max_seconds=max_seconds,
            )

    def losses(
        self, rows: Sequence[LabelledRow], advanced: Callable[[int], None] = lambda done: None
    ) -> list[float]:
        """Return the summed negative log likelihood, nats, of the labels of each row.

        Rows of like length run at once, filled up at their ends. No token sees what comes after it, so that
        what they are filled with cannot change a figure by more than rounding.

        Args:
            rows: What to lose on.
            advanced: Is told of the rows that are done.
        """
        found = [0.0] * len(rows)
        done = 0
        budget = min(MAX_TOKENS, MAX_LOGITS // self.model.config.vocab_size)
        with torch.inference_mode(), adapter_switched(self.model, on=self.adapted):
            for batch in batches([len(row.ids) for row in rows], budget):
                for index, loss in zip(batch, self._losses([rows[n] for n in batch]), strict=True):
                    found[index] = loss
                done += len(batch)
                advanced(done)
        return found

    def _losses(self, rows: Sequence[LabelledRow]) -> list[float]:
        longest = max(len(row.ids) for row in rows)
        where = self.model.device
        ids_BT = torch.zeros((len(rows), longest), dtype=torch.long)
        for index, row in enumerate(rows):
            ids_BT[index, : len(row.ids)] = torch.tensor(row.ids)
        first = min(row.labels[0] for row in rows)
        last = max(row.labels[-1] for row in rows)
        kept_K = torch.arange(first - 1, last, device=where)
        ids_BT = ids_BT.to(where)
        logits_BKV = self.model(input_ids=ids_BT, logits_to_keep=kept_K, use_cache=False).logits
        losses: list[float] = []
        for index, row in enumerate(rows):
            at_L = torch.tensor(row.labels, device=where)
            logits_LV = logits_BKV[index, at_L - first].float()
            loss = torch.nn.functional.cross_entropy(
                logits_LV, ids_BT[index, at_L], reduction="sum"
            )
            losses.append(float(loss))
        return losses


def load_pair(
    base: Path, adapter: Path, *, sampling: Sampling, names: tuple[str, str], **options: Any
) -> tuple[Local, Local]:
    """Return base and tuned model: one in memory, on which the adapter is switched off and on.

    Raises:
        TunewrightError: E_MODEL, one of them cannot be loaded.
    """
    tokenizer = load_tokenizer(adapter)
    model = load_tuned(base, adapter, **options)
    vocabulary = vocabulary_of(tokenizer)
    off, on = (
        Local(name, model, tokenizer, vocabulary, sampling, adapted=adapted)
        for name, adapted in zip(names, (False, True), strict=True)
    )
    return off, on


def load_alone(
    folder: Path, tokenizer: Path, *, sampling: Sampling, name: str, **options: Any
) -> Local:
    """Return a model without an adapter, which reads as the tokenizer of another folder may.

    Raises:
        TunewrightError: E_MODEL, it cannot be loaded.
    """
    model, reads = _place.load_alone(folder, tokenizer, **options)
    return Local(name, model, reads, vocabulary_of(reads), sampling)


def put_on(side: Local, checkpoint: Path) -> None:
    """Give a side the adapter of a checkpoint of the same training.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, it is not one of this adapter.
    """
    _place.put_on(side.model, checkpoint)


def row_losses(
    base: Local,
    tuned: Local,
    rows: Sequence[Sequence[Message]],
    *,
    max_length: int,
    what: str,
    listener: Listener,
    known: Sequence[RowLoss] = (),
) -> list[RowLoss]:
    """Return what base and tuned model lose on the label tokens of each row that has any.

    What the base loses is taken from `known` where that is given: losses on the same rows.
    """
    given = list(labelled(rows, tuned.vocabulary, max_length).values())
    return _losses_of(base, tuned, given, what=what, listener=listener, known=known)


def labelled(
    rows: Sequence[Sequence[Message]], vocabulary: Vocabulary, max_length: int
) -> dict[int, LabelledRow]:
    """Return the rows that have a label token within `max_length`, by their number."""
    found: dict[int, LabelledRow] = {}
    for number, row in enumerate(rows):
        encoded = encode(row, vocabulary)
        ids, mask = encoded.input_ids[:max_length], encoded.mask[:max_length]
        labels = [at for at in range(1, len(ids)) if mask[at]]
        if labels:
            found[number] = LabelledRow(ids, labels, len(encoded.input_ids) > max_length)
    return found


def text_losses(
    base: Local, tuned: Local, texts: Sequence[str], *, listener: Listener
) -> list[RowLoss]:
    """Return what base and tuned model lose on plain texts, without template or end."""
    vocabulary = tuned.vocabulary
    opening = [vocabulary.special[vocabulary.bos_token]] if vocabulary.adds_bos else []
    encoded = (opening + [token for token, _, _ in vocabulary.tokenize(text)] for text in texts)
    rows = [LabelledRow(ids, range(1, len(ids))) for ids in encoded]
    return _losses_of(base, tuned, rows, what="neutral texts", listener=listener)


def _losses_of(
    base: Local,
    tuned: Local,
    rows: Sequence[LabelledRow],
    *,
    what: str,
    listener: Listener,
    known: Sequence[RowLoss] = (),
) -> list[RowLoss]:
    """Return the losses of both on the same rows."""

    def lost(side: Local) -> list[float]:
        listener.started("compare", len(rows), f"{what}, {side.name}")
        return side.losses(rows, lambda done: listener.advanced(done, "perplexity"))

    of_base = [row.base for row in known] if known else lost(base)
    return [
        RowLoss(before, after, len(row.labels))
        for before, after, row in zip(of_base, lost(tuned), rows, strict=True)
    ]


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return the numbers of the rows that run at once, longest first: as many as fit `budget` tokens when filled up.

    A row that is longer than the budget runs alone.
    """
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if found and lengths[found[-1][0]] * (len(found[-1]) + 1) <= budget:
            found[-1].append(index)
        else:
            found.append([index])
    return found
