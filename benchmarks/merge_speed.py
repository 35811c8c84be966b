"""Time and memory of merging a model of 3 GB, against copying its files and against PEFT.

    python benchmarks/merge_speed.py [--layers N] [--repeat N] [--out FILE] [--docs docs/performance.md]

The base is a random Llama in bfloat16, in shards of 200 MB, with an adapter of rank 16 on every linear; it is
made in a temporary folder and removed. Each measurement is a process of its own; of several the fastest counts. What
is imported is not timed, what is written is not waited for to reach the disk. `--docs` puts the table into a page
between the lines `<!-- merge:start -->` and `<!-- merge:end -->`.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pages import fill

RANK, ALPHA = 16, 32
SHARD_BYTES = 200_000_000
LAYERS = 23
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


def _tensors(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, heads = CONFIG["hidden_size"], CONFIG["intermediate_size"], 512
    yield "model.embed_tokens.weight", (CONFIG["vocab_size"], width)
    for number in range(layers):
        stem = f"model.layers.{number}."
        for name, rows in (("q", width), ("k", heads), ("v", heads), ("o", width)):
            yield f"{stem}self_attn.{name}_proj.weight", (rows, width)
        yield f"{stem}mlp.gate_proj.weight", (inner, width)
        yield f"{stem}mlp.up_proj.weight", (inner, width)
        yield f"{stem}mlp.down_proj.weight", (width, inner)
        yield f"{stem}input_layernorm.weight", (width,)
        yield f"{stem}post_attention_layernorm.weight", (width,)
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (CONFIG["vocab_size"], width)


def make(folder: Path, layers: int) -> None:
    """Write base and adapter."""
    import torch
    from safetensors.torch import save_file

    base, adapter = folder / "base", folder / "adapter"
    base.mkdir()
    adapter.mkdir()
    torch.manual_seed(0)
    pool = 0.02 * torch.randn(2**26 + 2**16)
    values = pool.bfloat16()
    shards: list[dict[str, Any]] = [{}]
    size, deltas = 0, {}
    for count, (name, shape) in enumerate(_tensors(layers)):
        length = torch.Size(shape).numel()
        tensor = values[count * 64 : count * 64 + length].view(shape).clone()
        if size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
        if "_proj" in name:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            deltas[f"{stem}.lora_A.weight"] = pool[: RANK * shape[1]].view(RANK, -1).clone()
            deltas[f"{stem}.lora_B.weight"] = pool[: RANK * shape[0]].view(-1, RANK).clone()
    where: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(tensors, base / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": where}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    save_file(deltas, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA,
        "target_modules": names, "base_model_name_or_path": "base", "inference_mode": True,
    }  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(settings))


def copy(folder: Path) -> Callable[[], object]:
    """Return what copies the base's files."""

    def run() -> None:
        for file in sorted((folder / "base").iterdir()):
            shutil.copyfile(file, folder / "out" / file.name)

    return run


def merge(folder: Path) -> Callable[[], object]:
    """Return what merges as `tunewright merge` does."""
    from tunewright.events import SILENT
    from tunewright.merge._merge import merge_folder

    return lambda: merge_folder(folder / "base", folder / "adapter", folder / "out", SILENT)


def proof(folder: Path) -> Callable[[], object]:
    """Return what holds the merged tensors against PEFT, after merging them."""
    from tunewright.merge._proof import tensor_differences

    def run() -> None:
        wrong = tensor_differences(folder / "base", folder / "adapter", folder / "out")
        if wrong:
            raise SystemExit(f"{len(wrong)} tensors differ, the first is {wrong[0]}")

    return run


def peft(folder: Path) -> Callable[[], object]:
    """Return what loads, merges and saves as PEFT's documentation shows."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def run() -> None:
        base = AutoModelForCausalLM.from_pretrained(
            folder / "base", dtype=torch.bfloat16, trust_remote_code=False
        )
        merged = PeftModel.from_pretrained(base, str(folder / "adapter")).merge_and_unload()
        merged.save_pretrained(folder / "out", max_shard_size=SHARD_BYTES)

    return run


MEASUREMENTS: dict[str, tuple[Callable[[Path], Callable[[], object]], str]] = {
    "copy": (copy, "copying the base's files"),
    "merge": (merge, "merging"),
    "proof": (proof, "its proof, tensor by tensor"),
    "peft": (peft, "PEFT: load, merge_and_unload, save"),
}


def child(name: str, folder: Path) -> None:
    """Run one measurement in this process and print its seconds."""
    if name != "proof":
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()
    run = MEASUREMENTS[name][0](folder)
    os.sync()
    start = time.perf_counter()
    run()
    print(json.dumps({"seconds": round(time.perf_counter() - start, 2)}))


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run one measurement in a process of its own; return its figures and peak memory."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", name, "--folder", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stdout = process.stdout.read() if process.stdout else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} ended with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    figures = json.loads(stdout.splitlines()[-1])
    return figures | {"peak_memory_mb": round(usage.ru_maxrss * unit / 1e6)}


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    found = results["measurements"]
    base = found["copy"]["seconds"]
    lines = [
        f"{results['bytes'] / 1e9:.2f} GB in {results['shards']} shards, an adapter of rank {RANK}; measured on "
        f"{results['machine']}.",
        "",
        "| what | time | of copying | peak memory |",
        "|---|---|---|---|",
    ]
    for name, figures in found.items():
        times = figures["seconds"] / base
        lines.append(
            f"| {MEASUREMENTS[name][1]} | {figures['seconds']:.1f} s | {times:.1f}x | "
            f"{figures['peak_memory_mb']:,} MB |"
        )
    return "\n".join(lines)


def _machine() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    memory, python = f"{pages / 2**30:.0f} GB", f"Python {platform.python_version()}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, {memory}, {python}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the base; 23 give 3 GB")
    parser.add_argument("--repeat", type=int, default=1, help="times that each is measured")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("--docs", type=Path, help="put the table into this page")
    parser.add_argument("--child", choices=list(MEASUREMENTS), help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.folder, args.layers)
        return
    if args.child:
        child(args.child, args.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak memory counts from its parent's.
        command = [sys.executable, __file__, "--make", "--layers", str(args.layers)]
        subprocess.run([*command, "--folder", str(folder)], check=True)
        rounds = [
            {kind: measured(kind, folder) for kind in MEASUREMENTS} for _ in range(args.repeat)
        ]
        shards = sorted((folder / "base").glob("*.safetensors"))
        results = {
            "machine": _machine(),
            "bytes": sum(shard.stat().st_size for shard in shards),
            "shards": len(shards),
            "measurements": {
                kind: min((one[kind] for one in rounds), key=lambda figures: figures["seconds"])
                for kind in MEASUREMENTS
            },
        }
    text = json.dumps(results, indent=1)
    print(text, "\n", table(results), sep="\n")
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    if args.docs:
        fill(args.docs, "merge", table(results))


if __name__ == "__main__":
    main()
