"""Makes what every contender starts from: a random model, a tokenizer, one adapter, the rows of each set.

    python benchmarks/speed/material.py --folder FOLDER --shape small --dtype float32 --sets A0,A100 --rows 192

A word of the tokenizer is an id, so that rows of wanted ids can be written as text. What is there already is kept.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from tunewright.accel.order import epoch_order
from tunewright.artifacts import writing
from tunewright.config.schema import TrainSection
from tunewright.train._adapter import build

sys.path.insert(0, str(Path(__file__).parent.parent))

from speed.rows import (
    END,
    FIRST_WORD,
    PAD,
    SEED,
    SHAPES,
    SPECIAL,
    Row,
    folder_of,
    rows_a_step,
    rows_of,
)

LORA = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "init_lora_weights": False}
"""With `init_lora_weights: false` B is random, so that each gradient of A is there from the first step."""
TEMPLATE = (
    "{%- for m in messages %}"
    "{{- ('<user>' if m.role == 'user' else '<assistant>') + m.content }}"
    "{{- '<end>' if m.role == 'assistant' else '' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}"
)


def make_base(folder: Path, shape: dict[str, Any], dtype: str) -> None:
    """Write a model with random weights, and its tokenizer."""
    torch.manual_seed(SEED)
    config = Qwen3Config(
        **shape,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    model = AutoModelForCausalLM.from_config(
        config, dtype=getattr(torch, dtype), trust_remote_code=False
    )
    model.save_pretrained(folder)
    _tokenizer(shape["vocab_size"]).save_pretrained(folder)


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    vocabulary = {text: i for i, text in enumerate(SPECIAL)}
    vocabulary |= {f"w{i}": i for i in range(FIRST_WORD, size)}
    own = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[PAD]))
    own.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    own.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        pad_token=SPECIAL[PAD],
        eos_token=SPECIAL[END],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_adapter(base: Path, folder: Path, dtype: str) -> None:
    """Write the adapter that the train stage begins with, as PEFT reads it."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    options = TrainSection.model_validate({"lora": LORA})
    build(base, tokenizer, options, dtype=dtype, device="cpu", seed=SEED).save_pretrained(
        str(folder)
    )


def make_set(folder: Path, name: str, vocabulary: int, count: int) -> None:
    """Write for each adapter of a set the token rows in their order, and the dataset of the same rows as text."""
    for number, rows in enumerate(rows_of(name, vocabulary=vocabulary, count=count)):
        lengths = [len(row.input_ids) for row in rows]
        order = epoch_order(
            lengths, rows_a_step=rows_a_step(), strategy="random", seed=SEED, epoch=0
        )
        whole = len(rows) // rows_a_step() * rows_a_step()
        ordered = [_ids(rows[i]) for i in order[:whole]]
        own = folder / str(number)
        own.mkdir(parents=True)
        (own / "rows.json").write_text(json.dumps(ordered), encoding="utf-8")
        _write_dataset(own / "run" / "dataset", rows)


def _ids(row: Row) -> dict[str, list[int]]:
    return {"input_ids": row.input_ids, "labels": row.labels}


def _write_dataset(folder: Path, rows: list[Row]) -> None:
    held_out = min(rows, key=lambda row: len(row.input_ids))
    sides: dict[str, list[Row]] = {"train": rows, "eval": [held_out]}
    with writing(folder, "dataset", settings={}, parents={}) as draft:
        for side, given in sides.items():
            text = "".join(json.dumps(row.text) + "\n" for row in given)
            (draft.path / f"{side}.jsonl").write_text(text, encoding="utf-8")
        facts: dict[str, Any] = {"inputs": [], "rows": {s: len(r) for s, r in sides.items()}}
        draft.facts |= facts


def once(folder: Path, make: Any, *arguments: Any) -> None:
    """Make a folder that is there whole or not at all."""
    if folder.exists():
        return
    draft = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    make(draft, *arguments)
    draft.rename(folder)


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", choices=list(SHAPES), required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--sets", required=True)
    parser.add_argument("--rows", type=int, required=True)
    args = parser.parse_args()
    shape, base = SHAPES[args.shape], args.folder / "base"
    once(base, make_base, shape, args.dtype)
    once(args.folder / "adapter", lambda folder: make_adapter(base, folder, args.dtype))
    for name in args.sets.split(","):
        folder = args.folder / folder_of(name, args.rows)
        once(folder, make_set, name, shape["vocab_size"], args.rows)


if __name__ == "__main__":
    main()
