"""What each type of GGUF file costs and changes: python benchmarks/quantisation.py [--run RUN] [--write].

The bundled base is fine-tuned by the demo (or RUN, the folder of a finished one, is taken) and exported in
every type; so are random models of each family that llama.cpp computes. K-quants are left out by name
where nothing makes them. `--write` puts the table into docs/guides/which-quantisation.md.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import torch
from pages import fill
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tunewright import load_config, merge, prepare, train
from tunewright.config.schema import QuantizationType
from tunewright.events import SILENT
from tunewright.export import _export, _proof
from tunewright.export._gguf import Card
from tunewright.export._weights import layout_of, prove_weights
from tunewright.export._writing import way_of
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.gguf_types import K_QUANTS, quantizer

GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "which-quantisation.md"
POSITIONS = 128
NO_LIMIT = _proof.Limits(float("inf"), float("inf"), 0.0, float("inf"))
SIZES = {
    "vocab_size": 4096,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.08,
    "bos_token_id": None,
    "eos_token_id": 4095,
    "pad_token_id": 4093,
}
FAMILIES = {
    "Qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 64}),
    "Llama": (LlamaForCausalLM, LlamaConfig, {}),
    "Qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "Mistral": (MistralForCausalLM, MistralConfig, {"head_dim": 64, "sliding_window": None}),
}


@dataclass(frozen=True)
class Figures:
    """What was measured of a file.

    Attributes:
        type_name: Of the file.
        facts: As the export writes them.
        error: Largest error of a weight, as a share of what its type may bring.
        gates: Those that are no matter of degree and failed.
    """

    type_name: str
    facts: dict[str, Any]
    error: float
    gates: list[str]


def random_model(folder: Path, family: str, seed: int) -> Path:
    """Return the folder of a random model with the bundled tokenizer."""
    model_class, config_class, options = FAMILIES[family]
    torch.manual_seed(seed)
    model_class(config_class(**SIZES, **options)).to(torch.bfloat16).save_pretrained(folder)
    tiny = resources.files("tunewright.models") / "assets" / "tiny"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    return folder


def demo(run: Path) -> tuple[Path, Path]:
    """Return the merged model and the held-out rows of the demo, which is run if it was not."""
    config = load_config("preset:demo", [f"output_dir={run}"])
    if not (run / "merged" / "manifest.json").is_file():
        dataset = prepare(config)
        merge(config, train(config, dataset), dataset)
    return run / "merged", run / "dataset" / "eval.jsonl"


def measure(model: Path, held_out: Path, types: list[str], folder: Path) -> Iterator[Figures]:
    """Give the figures of a model in each type."""
    tokenizer = load_tokenizer(model)
    way = way_of(model, tokenizer, Card("m"), None)
    evidence = _proof.gather_evidence(way, tokenizer, held_out, turns=None)
    job = _export._Job(way, "m", folder, SILENT)
    _export._write_files(job, types)
    for name in types:
        file = job.file(name)
        facts, gates = _proof.prove(file, name, evidence, NO_LIMIT, SILENT)
        failed = [gate["gate"] for gate in gates if not gate["passed"]]
        error = prove_weights(file, layout_of(file), model, way.ours[0]).error
        file.unlink()
        yield Figures(name, facts, error, failed)


def row(label: str, figures: Figures) -> str:
    """Return a line of the table."""
    facts = figures.facts
    change = facts["perplexity"] / facts["merged_perplexity"] - 1
    cells = (
        label,
        figures.type_name,
        f"{facts['bits_per_weight']:.2f}",
        f"{facts['mean_kl']:.1e}",
        f"{facts['max_kl']:.1e}",
        f"{facts['top1_agreement']:.1%}",
        f"{change:+.3%}",
        f"{figures.error:.2f}",
        ", ".join(figures.gates) or "-",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print and, if asked, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    _proof.POSITIONS = POSITIONS
    _proof.ROWS = 16
    types = [t for t in get_args(QuantizationType) if t not in K_QUANTS or quantizer()]
    left_out = sorted(set(get_args(QuantizationType)) - set(types))
    if left_out:
        print(f"Left out, nothing makes them here: {', '.join(left_out)}")
    lines = [
        "| model | type | bits a weight | mean KL | max KL | same top token | perplexity | error | failed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, held_out = demo((options.run or folder / "demo").absolute())
        models = {"demo": model}
        for family in FAMILIES:
            for seed in range(options.seeds):
                place = folder / f"{family}-{seed}"
                models[f"random {family} {seed}"] = random_model(place, family, seed)
        for label, place in models.items():
            for figures in measure(place, held_out, types, folder):
                lines.append(row(label, figures))
                print(lines[-1], flush=True)
    if options.write:
        fill(GUIDE, "quantisation", "\n".join(lines))


if __name__ == "__main__":
    main()
