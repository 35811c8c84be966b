"""A base with a new adapter by Unsloth's loader, which brings its kernels; for those who have it installed."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from peft import PeftModel

from tunewright.config.schema import TrainSection


def load(
    base: Path, options: TrainSection, linears: Sequence[str], *, dtype: torch.dtype, seed: int
) -> PeftModel:
    """Return the base on the current GPU with a plain LoRA adapter; see Unsloth's `FastLanguageModel`.

    Recomputation is left to whoever trains it. In 4 bits it is NF4 with double quantisation.

    Args:
        base: Folder of the base.
        options: Of training.
        linears: Names of those that get an adapter.
        dtype: Of weights and activations: 16 bits.
        seed: Of the adapter's beginning.
    """
    # What it changes in Transformers and PEFT when it is imported is for this training alone.
    loader = import_module("unsloth").FastLanguageModel
    model, _ = loader.from_pretrained(
        model_name=str(base),
        max_seq_length=options.max_length,
        dtype=dtype,
        load_in_4bit=options.load_in_4bit,
        device_map={"": torch.cuda.current_device()},
        use_gradient_checkpointing=False,
        trust_remote_code=False,
    )
    tuned = loader.get_peft_model(
        model,
        r=options.lora.r,
        target_modules=list(linears),
        lora_alpha=options.lora.lora_alpha,
        lora_dropout=options.lora.lora_dropout,
        bias="none",
        use_gradient_checkpointing=False,
        random_state=seed,
        max_seq_length=options.max_length,
        use_rslora=options.lora.use_rslora,
    )
    if not isinstance(tuned, PeftModel):
        raise TypeError(f"expected an adapter, got {type(tuned).__name__}")
    return tuned
