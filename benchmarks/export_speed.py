"""Time and memory of writing a GGUF file, against copying the same bytes and against a model held whole.

    python benchmarks/export_speed.py [--gigabytes 3] [--type F16] [--dir DIR] [--docs docs/performance.md]

Makes a random Llama in bfloat16 in shards of 200 MB, then copies its files, writes it as GGUF, and writes it
by way of a dictionary of all its tensors, each in a process of its own with one thread; all end
with the bytes on the disk. Prints JSON and a table; `--docs` puts the table into a page between the lines `<!-- export:start -->` and
`<!-- export:end -->`. The goals: at most 3 times the time of copying, less than 1.2 GB of memory.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from pages import fill
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tunewright.export._gguf import Card
from tunewright.export._writing import way_of, write
from tunewright.models._tokenizer import load_tokenizer

SHARD_BYTES = 200_000_000
WAYS = {
    "copy": "copying the files",
    "stream": "`export`, {type}",
    "whole": "all tensors in memory, {type}",
}
CONFIG: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}


def make_model(folder: Path, size_bytes: int) -> None:
    """Write a random Llama of about a size, with the bundled tokenizer."""
    per_layer = 2 * (2 * 2048 * 2048 + 2 * 512 * 2048 + 3 * 2048 * 8192)
    layers = max(1, (size_bytes - 4 * 32000 * 2048) // per_layer)
    config = LlamaConfig(**CONFIG, num_hidden_layers=layers)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {n: tuple(p.shape) for n, p in LlamaForCausalLM(config).named_parameters()}
    torch.manual_seed(0)
    pending: dict[str, torch.Tensor] = {}
    shard = held = 0
    for name, shape in shapes.items():
        tensor = torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)
        if pending and held + tensor.nbytes > SHARD_BYTES:
            save_file(pending, folder / f"model-{shard:05d}.safetensors")
            pending, held, shard = {}, 0, shard + 1
        pending[name] = tensor
        held += tensor.nbytes
    save_file(pending, folder / f"model-{shard:05d}.safetensors")
    tiny = resources.files("tunewright.models") / "assets" / "tiny"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((tiny / name).read_bytes())


def copy(model: Path, out: Path, type_name: str) -> None:
    """Copy the weights."""
    for file in sorted(model.glob("*.safetensors")):
        shutil.copyfile(file, out / file.name)


def stream(model: Path, out: Path, type_name: str) -> None:
    """Write the GGUF file as `tunewright export` does."""
    way = way_of(model, load_tokenizer(model), Card("benchmark"), None)
    write(way, out / "m.gguf", type_name, lambda done, name: None)


def whole(model: Path, out: Path, type_name: str) -> None:
    """Write the same tensors after all were read and encoded."""
    tensors: dict[str, Any] = {}
    for file in sorted(model.glob("*.safetensors")):
        tensors |= load_file(file)
    writer = GGUFWriter(out / "m.gguf", "llama")
    for name, tensor in tensors.items():
        type_ = GGMLQuantizationType.F32 if tensor.dim() == 1 else GGMLQuantizationType[type_name]
        writer.add_tensor(name, quantize(tensor.float().numpy(), type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measured(way: str, model: Path, type_name: str) -> dict[str, Any]:
    """Return seconds and peak memory of a way, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=model.parent) as out:
        command = [sys.executable, __file__, "--child", way, str(model), out, type_name]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def child(way: str, model: Path, out: Path, type_name: str) -> None:
    """Take a way, put what it wrote onto the disk, and print what it took."""
    torch.set_num_threads(1)
    started, busy = time.monotonic(), time.process_time()
    {"copy": copy, "stream": stream, "whole": whole}[way](model, out, type_name)
    written = time.monotonic() - started
    for file in out.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    found = {
        "seconds": round(time.monotonic() - started, 1),
        "seconds_before_sync": round(written, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
        "peak_memory_mb": round(peak / 1e6),
        "megabytes": round(sum(file.stat().st_size for file in out.iterdir()) / 1e6),
    }
    sys.stdout.write(json.dumps(found))


def table(results: dict[str, Any], type_name: str) -> str:
    """Return the results as Markdown."""
    lines = [
        f"Measured on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        "| what | written | time | times copying | processor time | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    base = results["copy"]["seconds"]
    for way, found in results.items():
        lines.append(
            f"| {WAYS[way].format(type=type_name)} | {found['megabytes']:,} MB | {found['seconds']} s "
            f"| {found['seconds'] / base:.1f} | {found['processor_seconds']} s | {found['peak_memory_mb']:,} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description="Time and memory of writing a GGUF file.")
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--type", default="F16")
    parser.add_argument("--dir", type=Path, help="folder with room for twice the model")
    parser.add_argument("--docs", type=Path, help="put the table into this page")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        model = Path(folder) / "model"
        model.mkdir()
        # In a process of its own, because a child's peak memory is at least its parent's when it starts.
        command = [sys.executable, __file__, "--make", str(model), str(args.gigabytes)]
        subprocess.run(command, check=True)
        os.sync()
        results = {way: measured(way, model, args.type) for way in WAYS}
    text = table(results, args.type)
    sys.stdout.write(json.dumps(results, indent=1) + "\n\n" + text + "\n")
    if args.docs:
        fill(args.docs, "export", text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
    elif sys.argv[1:2] == ["--make"]:
        make_model(Path(sys.argv[2]), round(float(sys.argv[3]) * 1e9))
    else:
        main()
