"""Paths and settings that several test files share."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "src" / "tunewright" / "data" / "samples"
SHARED = ROOT.parent / "shared" / "corpora" / "british-fiction"
SMALL = [
    "prepare.min_tokens=60",
    "prepare.max_tokens=130",
    "prepare.eval_split=0.2",
    "train.max_length=160",
    "train.num_train_epochs=2",
    "train.per_device_train_batch_size=8",
    "train.gradient_accumulation_steps=1",
    "train.learning_rate=3e-3",
    "train.lora.r=4",
    "train.lora.lora_alpha=8",
    "compare.num_prompts=6",
    "compare.max_new_tokens=24",
    "compare.bootstrap_samples=100",
    "compare.min_words=100",
    "compare.batch_size=6",
]
"""Options that make a whole run take seconds."""


def benchmark(name: str) -> ModuleType:
    """Return a script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
