"""Answers from a model: batched, sampled with fixed seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tunewright.models.chat import Message, Vocabulary, encode

EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        max_new_tokens: Tokens of an answer at most.
        temperature: Divides the logits.
        top_p: Probability mass sampled from.
        batch_size: Answers generated at once.
        seed: The batch that starts at row i is sampled with seed + i.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    batch_size: int
    seed: int


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[Message]],
    *,
    sampling: Sampling,
    advanced: Callable[[int], None],
) -> list[str]:
    """Return one answer a prompt, in order."""
    pad = int(tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]
    answers: list[str] = []
    for start in range(0, len(prompts), sampling.batch_size):
        rows = [
            encode(messages, vocabulary, add_generation_prompt=True).input_ids
            for messages in prompts[start : start + sampling.batch_size]
        ]
        width = max(map(len, rows))
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([[pad] * (width - len(r)) + r for r in rows]).to(
                model.device
            ),
            "attention_mask": torch.tensor(
                [[0] * (width - len(r)) + [1] * len(r) for r in rows]
            ).to(model.device),
        }
        torch.manual_seed(sampling.seed + start)
        with torch.inference_mode():
            out_BT = model.generate(  # pyright: ignore[reportCallIssue]
                **inputs,
                do_sample=True,
                max_new_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=0,
                pad_token_id=pad,
                eos_token_id=sorted(vocabulary.ends),
            )
        texts = tokenizer.batch_decode(out_BT[:, width:], skip_special_tokens=True)
        # Qwen3's template puts an empty thought before an answer; a model trained on it writes it, too.
        answers += [text.removeprefix(EMPTY_THOUGHT) for text in texts]
        advanced(len(answers))
    return answers
