"""Tiny random models with an adapter whose B is not zero, rows of which some begin alike, and the plain path.

The plain path here is Transformers' own: one row at a time, all logits, its cross entropy.
"""

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.accel.layout import IGNORED, Row
from tunewright.accel.techniques import Ways

KINDS = ("qwen3", "llama", "mistral")
WORDS = 300
LOSS, GRADIENT = 1e-6, 1e-5
OFF = Ways(
    label_only_head=False,
    packing=False,
    length_bucketing=False,
    shared_prefix=False,
    fused_lora=False,
    tokens_a_pass=10_000,
    rows_a_pass=3,
)


def make_model(
    kind: str, *, tied: bool = True, dtype: torch.dtype = torch.float32, dropout: float = 0.0
):
    """Return a random model with an adapter on every linear."""
    torch.manual_seed(0)
    shape = AutoConfig.for_model(
        kind,
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        pad_token_id=0,
    )
    base = AutoModelForCausalLM.from_config(shape, dtype=dtype, attn_implementation="sdpa")
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", lora_dropout=dropout))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.train()


def make_rows(prefix: int = 30, seed: int = 0) -> list[Row]:
    """Return eight rows; six share `prefix` tokens, three of these 20 more, and one has two answers."""
    dice = torch.Generator().manual_seed(seed)

    def some(count: int) -> list[int]:
        return torch.randint(1, WORDS, (count,), generator=dice).tolist()

    common, more = some(prefix), some(20)
    starts = [common] * 3 + [common + more] * 3 + [[], some(5)]
    rows = []
    for at, start in enumerate(starts):
        tokens = start + some(8 + 5 * at)
        learned = len(start) + 4
        labels = [IGNORED] * learned + tokens[learned:]
        if at == 1:
            labels[-4:-2] = [IGNORED] * 2
        rows.append(Row(tokens, labels))
    return rows


def labels_of(rows) -> int:
    return sum(label != IGNORED for row in rows for label in row.labels[1:])


def plain(model, rows, labels=None) -> tuple[float, torch.Tensor]:
    total = 0.0
    for row in rows:
        logits = model(input_ids=torch.tensor([row.tokens]), use_cache=False).logits[0]
        loss = cross_entropy(
            logits[:-1].float(), torch.tensor(row.labels[1:]), ignore_index=IGNORED, reduction="sum"
        )
        (loss / (labels or labels_of(rows))).backward()
        total += float(loss.detach())
    return total / (labels or labels_of(rows)), gradient_of(model)


def gradient_of(model) -> torch.Tensor:
    parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    found = torch.cat(parts).clone()
    model.zero_grad()
    return found
