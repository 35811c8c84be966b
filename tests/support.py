"""Paths and settings that several test files share."""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from tunewright.models.gguf_types import quantizer

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
    "train.eval_steps=4",
    "train.sample_prompts=1",
    "train.lora.r=4",
    "train.lora.lora_alpha=8",
    "compare.num_prompts=6",
    "compare.max_new_tokens=24",
    "compare.bootstrap_samples=100",
    "compare.min_words=100",
    "compare.batch_size=6",
]
"""Options that make a whole run take seconds."""

ODD_NAMES = (
    *("../x", "/etc", "a/../../b", "..\\x", "C:x", "\\\\srv\\x", "a\0b", "a" * 300, "CON", "nul.txt"),
    *("a.", "a ", "\u0251gent", "-rf", "$(id)", ";rm", "", ".", "..", ".tmp-1"),
)  # fmt: skip
"""No names of runs, agents, versions or aliases (RELIABILITY.md S6)."""

needs_kquants = pytest.mark.skipif(
    # In CI it is always there: a skip would hide that it was not installed.
    quantizer() is None and "CI" not in os.environ,
    reason="neither llama-cpp-python nor a llama-quantize is installed",
)


def shallow_base(folder: Path) -> Path:
    """Write the bundled base with the first of its layers only: it computes three times as fast, and knows little."""
    from safetensors.torch import load_file, save_file

    tiny = ROOT / "src" / "tunewright" / "models" / "assets" / "tiny"
    for file in tiny.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, folder / file.name)
    tensors = load_file(tiny / "model.safetensors")
    kept = {n: t for n, t in tensors.items() if ".layers." not in n or ".layers.0." in n}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    changed = config | {"num_hidden_layers": 1, "layer_types": config["layer_types"][:1]}
    (folder / "config.json").write_text(json.dumps(changed))
    return folder


def benchmark(name: str) -> ModuleType:
    """Return a script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
