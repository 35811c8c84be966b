"""Models that are loaded here: their answers, and their losses on rows."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tunewright.config.schema import TrainSection
from tunewright.errors import failure
from tunewright.evaluate.perplexity import RowLoss
from tunewright.events import Listener
from tunewright.models._generate import generate
from tunewright.models._load import (
    device,
    fit_rows,
    in_4_bits,
    load_model,
    load_tokenizer,
    load_tuned,
    vocabulary_of,
)
from tunewright.models._weights import ADAPTER, SETTINGS
from tunewright.models.chat import Message, Vocabulary, encode
from tunewright.models.sampling import Answer, Sampling


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
        with self._as_it_is():
            return generate(
                self.model,
                self.tokenizer,
                self.vocabulary,
                prompts,
                sampling=self.sampling,
                seed=seed,
                max_seconds=max_seconds,
            )

    def loss(self, ids: Sequence[int], labels: Sequence[int]) -> float:
        """Return the summed negative log likelihood, nats, of the tokens at the positions `labels`."""
        ids_1T = torch.tensor([list(ids)], device=self.model.device)
        at_L = torch.tensor(list(labels), device=self.model.device)
        with torch.inference_mode(), self._as_it_is():
            logits_LV = self.model(input_ids=ids_1T, logits_to_keep=at_L - 1).logits[0]
            loss = torch.nn.functional.cross_entropy(
                logits_LV.float(), ids_1T[0, at_L], reduction="sum"
            )
        return float(loss)

    @contextmanager
    def _as_it_is(self) -> Generator[None]:
        if self.adapted or not isinstance(self.model, PeftModel):
            yield
            return
        with self.model.disable_adapter():
            yield


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
    reads = load_tokenizer(tokenizer)
    model = load_model(folder, **options)
    if (tokenizer / SETTINGS).is_file():
        fit_rows(model, tokenizer)
    return Local(name, model, reads, vocabulary_of(reads), sampling)


def put_on(side: Local, checkpoint: Path) -> None:
    """Give a side the adapter of a checkpoint of the same training.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, it is not one of this adapter.
    """
    file = checkpoint / ADAPTER
    own = get_peft_model_state_dict(side.model, save_embedding_layers=False)
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise failure("E_ARTIFACT_INVALID", f"It cannot be read: {error}.", where=file) from error
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in tensors.items()}:
        message = "The checkpoint's tensors are not those of the adapter."
        fix = "It is of another training; or of one that began with PiSSA or OLoRA, whose checkpoints change the base."
        raise failure("E_ARTIFACT_INVALID", message, where=file, fix=fix)
    set_peft_model_state_dict(side.model, tensors)


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

    What the base loses is taken from `known` where that is given: losses on the same rows. A row at a time: padding cannot change a figure, and only the logits of labels are computed.
    """
    listener.started("compare", len(rows), what)
    losses: list[RowLoss] = []
    for done, row in enumerate(rows, 1):
        encoded = encode(row, tuned.vocabulary)
        ids, mask = encoded.input_ids[:max_length], encoded.mask[:max_length]
        labels = [at for at in range(1, len(ids)) if mask[at]]
        if labels:
            of_base = known[len(losses)].base if known else base.loss(ids, labels)
            losses.append(RowLoss(of_base, tuned.loss(ids, labels), len(labels)))
        listener.advanced(done, "perplexity")
    return losses


def text_losses(
    base: Local, tuned: Local, texts: Sequence[str], *, listener: Listener
) -> list[RowLoss]:
    """Return what base and tuned model lose on plain texts, without template or end."""
    vocabulary = tuned.vocabulary
    opening = [vocabulary.special[vocabulary.bos_token]] if vocabulary.adds_bos else []
    listener.started("compare", len(texts), "neutral texts")
    losses: list[RowLoss] = []
    for done, text in enumerate(texts, 1):
        ids = opening + [token for token, _, _ in vocabulary.tokenize(text)]
        labels = range(1, len(ids))
        losses.append(RowLoss(base.loss(ids, labels), tuned.loss(ids, labels), len(labels)))
        listener.advanced(done, "neutral text")
    return losses


def loading(folder: Path, options: TrainSection) -> dict[str, Any]:
    """Return how a model is loaded: in 4 bits where it was trained so, else in 16 on a GPU, else in 32.

    Where 32 bits would take more than half of the free memory, it is 16 bits on a CPU, too.
    """
    where = device()
    dtype = "float32"
    if where == "cuda":
        dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    elif 2 * weights_bytes(folder) > psutil.virtual_memory().available // 2:
        dtype = "bfloat16"
    how: dict[str, Any] = {"dtype": dtype, "device_map": {"": where}}
    if options.load_in_4bit:
        how["quantization_config"] = in_4_bits(
            options.bnb_4bit_quant_type,
            compute_dtype=dtype,
            double_quantisation=options.bnb_4bit_use_double_quant,
        )
    return how


def weights_bytes(folder: Path) -> int:
    """Return the size of a model's weights as they are stored."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
