"""Predicted peak memory of a training step against what a process really takes.

Each case is a process of its own: libraries imported, resident memory read, then a random model of the given shape
is made and trained for a few steps on rows of unequal length. On a CUDA device the allocator's peak is read instead.
Run: python benchmarks/memory_fit.py [--device cpu|cuda] [--real] [--returning]; `--real` takes the real shapes, for a GPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations import replace_with_bnb_linear
from trl.trainer.utils import add_fused_lm_head

from tunewright.models.families import Shape, read_shape
from tunewright.train._heap import give_back
from tunewright.train.memory import Memory, training_memory
from tunewright.train.methods import Method

QWEN3 = {"vocab_size": 151936, "num_hidden_layers": 36, "num_attention_heads": 32, "head_dim": 128}
LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3-4B": (
        "qwen3",
        QWEN3 | {"hidden_size": 2560, "intermediate_size": 9728, "tie_word_embeddings": True},
    ),
    "Qwen3-8B": ("qwen3", QWEN3 | {"hidden_size": 4096, "intermediate_size": 12288}),
    "Llama-3.1-8B": ("llama", LLAMA | {"intermediate_size": 14336, "vocab_size": 128256}),
    "Mistral-7B": ("mistral", LLAMA | {"intermediate_size": 14336, "vocab_size": 32768}),
}
QWEN3_SMALL = {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768}
QWEN3_SMALL |= {"num_attention_heads": 4, "head_dim": 64, "tie_word_embeddings": True}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-24MB": ("qwen3", QWEN3_SMALL | {"num_hidden_layers": 6}),
    "qwen3-deep": ("qwen3", QWEN3_SMALL | {"num_hidden_layers": 18}),
    "llama-90MB": (
        "llama",
        {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6}
        | {"num_attention_heads": 8},
    ),
    "llama-wide": (
        "llama",
        {"vocab_size": 8192, "hidden_size": 1024, "intermediate_size": 2816}
        | {"num_hidden_layers": 3, "num_attention_heads": 16},
    ),
    "mistral-200MB": (
        "mistral",
        {"vocab_size": 16384, "hidden_size": 640, "intermediate_size": 1792, "num_hidden_layers": 7}
        | {"num_attention_heads": 10, "head_dim": 64},
    ),
}
TINY = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
TINY |= {"num_attention_heads": 2}
SMALL_CASES: list[dict[str, Any]] = [
    {"base": "qwen3-24MB", "rows": 2, "length": 256},
    {"base": "qwen3-24MB", "rows": 8, "length": 256},
    {"base": "qwen3-24MB", "rows": 4, "length": 512, "checkpointing": True},
    {"base": "llama-90MB", "rows": 1, "length": 512},
    {"base": "llama-90MB", "rows": 4, "length": 256},
    {"base": "llama-90MB", "rows": 4, "length": 256, "dtype": "bfloat16"},
    {"base": "llama-90MB", "rows": 4, "length": 256, "checkpointing": True},
    {"base": "mistral-200MB", "rows": 1, "length": 256},
    {"base": "mistral-200MB", "rows": 4, "length": 384},
    {"base": "mistral-200MB", "rows": 2, "length": 256, "dora": True},
    {"base": "mistral-200MB", "rows": 2, "length": 256, "load_in_4bit": True},
    {"base": "mistral-200MB", "rows": 4, "length": 256, "dtype": "bfloat16"},
    {"base": "mistral-200MB", "rows": 4, "length": 384, "checkpointing": True},
    {"base": "qwen3-deep", "rows": 4, "length": 256},
    {"base": "qwen3-deep", "rows": 4, "length": 512, "checkpointing": True},
    {"base": "llama-wide", "rows": 4, "length": 256},
    {"base": "llama-wide", "rows": 4, "length": 256, "checkpointing": True},
]
REAL_CASES: list[dict[str, Any]] = [
    {"base": base, "rows": rows, "length": length, "dtype": "bfloat16"}
    | {"load_in_4bit": quantised, "checkpointing": True}
    for base in REAL
    for quantised in (False, True)
    for rows, length in ((4, 512), (1, 2048), (2, 2048), (1, 4096))
]


def shape_of(base: str) -> tuple[Shape, Any]:
    """Return the shape of a base, and its config."""
    kind, sizes = (REAL | SMALL)[base]
    heads = {"num_key_value_heads": max(1, sizes["num_attention_heads"] // 4)}
    given = {"max_position_embeddings": 8192, "tie_word_embeddings": False} | heads | sizes
    config = AutoConfig.for_model(kind, **given)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return read_shape(Path(folder)), config


def predicted(case: dict[str, Any]) -> Memory:
    """Return what training should take in a case."""
    return training_memory(
        shape_of(case["base"])[0],
        method_of(case),
        rows=case["rows"],
        length=case["length"],
        checkpointing=case.get("checkpointing", False),
    )


def method_of(case: dict[str, Any]) -> Method:
    """Return how a case is trained."""
    return Method(
        case.get("dtype", "float32"),
        device=case.get("device", "cpu"),
        dora=case.get("dora", False),
        load_in_4bit=case.get("load_in_4bit", False),
    )


def measure(case: dict[str, Any]) -> dict[str, int]:
    """Return predicted and measured bytes of one case; to be run in a process of its own."""
    warnings.simplefilter("ignore")
    method, config = method_of(case), shape_of(case["base"])[1]
    memory = predicted(case)
    warm_up(method)
    cuda = method.device == "cuda"
    before = 0 if cuda else resident(reset=True)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    checkpointing = case.get("checkpointing", False)
    model = random_model(config, method, checkpointing=checkpointing)
    step(model, case["rows"], case["length"], method.device, checkpointing=checkpointing)
    measured = torch.cuda.max_memory_allocated() if cuda else peak() - before
    return {
        "predicted": memory.total,
        "live": memory.total - memory.allocator,
        "measured": measured,
    }


def warm_up(method: Method) -> None:
    """Train a tiny model, so that the code which libraries load when it is first used counts as libraries."""
    tiny = AutoConfig.for_model("llama", **TINY)
    step(random_model(tiny, method, checkpointing=True), 2, 16, method.device, checkpointing=True)


def random_model(config: Any, method: Any, *, checkpointing: bool) -> Any:
    """Return a model with random weights and an adapter on all linears, as training makes it."""
    dtype = getattr(torch, method.dtype)
    if method.load_in_4bit:
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        base = replace_with_bnb_linear(
            base, modules_to_not_convert=["lm_head"], quantization_config=quantisation
        )
        fill(base, dtype, method.device)
    else:
        with torch.device(method.device):
            base = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    base.config.use_cache = False
    base.requires_grad_(requires_grad=False)
    settings = LoraConfig(
        r=16, target_modules="all-linear", use_dora=method.dora, task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, settings).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    return model


def fill(base: Any, dtype: Any, device: str) -> None:
    """Give every module of a model without storage random weights, one at a time, 4-bit ones quantised."""
    for module in base.modules():
        if isinstance(module, Linear4bit):
            weight = torch.randn(module.weight.shape, dtype=dtype, device=device) * 0.02
            module.weight = Params4bit(
                weight, requires_grad=False, quant_type="nf4", compress_statistics=True
            ).to(device)
            continue
        for name, parameter in list(module.named_parameters(recurse=False)):
            random = torch.randn(parameter.shape, dtype=dtype, device=device) * 0.02
            setattr(module, name, torch.nn.Parameter(random, requires_grad=False))
        rotary = getattr(module, "inv_freq", None)
        if rotary is not None:
            inverse, _ = type(module).compute_default_rope_parameters(module.config)
            module.inv_freq = inverse.to(device)
            module.original_inv_freq = inverse.clone().to(device)
    base.tie_weights()


def step(model: Any, rows: int, length: int, device: str, *, checkpointing: bool) -> None:
    """Run three optimizer steps of two forward passes over rows of unequal length."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    vocabulary = model.get_base_model().config.vocab_size
    for _ in range(3):
        for _ in range(2):
            ids = torch.randint(0, vocabulary, (rows, length), device=device)
            mask = torch.ones_like(ids)
            mask[1:, length * 3 // 4 :] = 0
            out = model(
                input_ids=ids, attention_mask=mask, labels=ids, fused_lm_head=True, use_cache=False
            )
            give_back(device, saving=checkpointing)
            (-out.log_probs.sum() / (rows * length)).backward()
            give_back(device, saving=checkpointing)
        optimizer.step()
        optimizer.zero_grad()


def resident(*, reset: bool) -> int:
    """Return the resident memory of this process, and start its peak anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Return the peak of the resident memory of this process."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def run(case: dict[str, Any], *, returning: bool = False) -> dict[str, int]:
    """Return what `measure` finds in a process of its own.

    Args:
        case: Base, rows, length and method.
        returning: The C library gives freed memory back at once, which is slow, so that only what is live counts.
    """
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    limits = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "65536")
    environment = {**os.environ, **(limits if returning else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--returning", action="store_true", help="The C library returns memory.")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(json.loads(given.case))))
        return
    for case in REAL_CASES if given.real else SMALL_CASES:
        found = run({"device": given.device} | case, returning=given.returning)
        off = found["live" if given.returning else "predicted"] / found["measured"] - 1
        sizes = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in found.items())
        print(f"{off:+7.1%}  {sizes}  {case}", flush=True)


if __name__ == "__main__":
    main()
