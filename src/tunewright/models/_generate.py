"""Answers from a model: batched, sampled with fixed seeds."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tunewright.models.chat import Message, Vocabulary, prompt_ids
from tunewright.models.sampling import EMPTY_THOUGHT, Answer, Sampling, TimeUpError


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[Message]],
    *,
    sampling: Sampling,
    seed: int,
    max_seconds: float,
) -> list[Answer]:
    """Return one answer a prompt, in order, all sampled at once.

    Raises:
        TimeUpError: `max_seconds` did not suffice.
    """
    pad = int(tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]
    rows = [prompt_ids(messages, vocabulary) for messages in prompts]
    width = max(map(len, rows))
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[pad] * (width - len(r)) + r for r in rows]).to(model.device),
        "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]).to(
            model.device
        ),
    }
    torch.manual_seed(seed)
    until = time.monotonic() + max_seconds
    with torch.inference_mode():
        out_BT = model.generate(  # pyright: ignore[reportCallIssue]
            **inputs,
            **_choice(sampling),
            max_new_tokens=sampling.max_new_tokens,
            # Not what the base's generation_config.json may say.
            min_p=None,
            typical_p=1.0,
            repetition_penalty=1.0,
            pad_token_id=pad,
            eos_token_id=sorted(vocabulary.ends),
            max_time=max_seconds,
        )
    if time.monotonic() > until:
        raise TimeUpError
    return [_answer(ids, tokenizer, vocabulary.ends) for ids in out_BT[:, width:].tolist()]


def _choice(sampling: Sampling) -> dict[str, Any]:
    """Return how the next token is chosen; at temperature 0 it is the most likely one."""
    if sampling.temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
    }


def _answer(ids: list[int], tokenizer: PreTrainedTokenizerFast, ends: frozenset[int]) -> Answer:
    """Return what was sampled up to the first end."""
    end = next((at for at, token in enumerate(ids) if token in ends), None)
    own = ids if end is None else ids[: end + 1]
    text = str(tokenizer.decode(own, skip_special_tokens=True))
    return Answer(text.removeprefix(EMPTY_THOUGHT), len(own), end is not None)
