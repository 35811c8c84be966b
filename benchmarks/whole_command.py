"""Whole commands: `tunewright train`, `trl sft`, LLaMA-Factory's `train`, on the same short rows and the bundled base.

    python benchmarks/whole_command.py [--rounds N] [--threads N] [--only ours,trl] [--docs docs/performance.md]

400 conversations of two turns, cut from the bundled manuscript; 50 steps of 8, rank 16 on every linear, float32,
learning rate 1e-3, constant. Each tokenises, shuffles, loads and saves as it does by itself. Told are the seconds
of the command, those of training (first to last step, evaluation at the end not counted), those until the first step is
logged, and the loss that the adapter has afterwards on the answers of all rows, each with the token that ends it: the
losses that the commands log are of different tokens. Commands take turns.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from speed.environments import interpreter
from speed.figures import filled
from speed.machine import CACHE, machine, several
from speed.processes import Failed, environment
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS, STEPS = 400, 50
WORDS = (16, 60)
RATE, RANK, ALPHA = 1e-3, 16, 32


@dataclass(frozen=True)
class Whole:
    """One command.

    Attributes:
        seconds: From start to end.
        training: From the beginning of the first step to the end of the last.
        first_step: From the start to the log of the first step.
        loss: Of the adapter that it left, on all rows; in nats a token.
    """

    seconds: float
    training: float
    first_step: float
    loss: float


def conversations() -> list[tuple[str, str]]:
    """Return question and answer of each row: a sentence's beginning and what follows it."""
    folder = resources.files("tunewright.data") / "samples" / "manuscript"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    words = " ".join(file.read_text(encoding="utf-8") for file in files).split()
    found: list[tuple[str, str]] = []
    low, high = WORDS
    for number in range(ROWS):
        start = number * (len(words) - 2 * high) // ROWS
        length = low + number * 7 % (high - low)
        middle = start + length // 2
        question = f"Go on in the author's voice: {' '.join(words[start:middle])}"
        found.append((question, " ".join(words[middle : start + length])))
    return found


def base(cache: Path) -> str:
    """Return the folder of the bundled base in float32: LLaMA-Factory computes in what a base is stored in."""
    made = cache / "material" / "tiny-float32"
    if not made.exists():
        tiny = Path(str(resources.files("tunewright.models") / "assets" / "tiny"))
        building = made.with_suffix(".new")
        shutil.copytree(tiny, building, dirs_exist_ok=True)
        tensors = load_file(tiny / "model.safetensors")
        save_file(
            {n: t.float() for n, t in tensors.items()},
            building / "model.safetensors",
            {"format": "pt"},
        )
        config = json.loads((building / "config.json").read_text(encoding="utf-8"))
        (building / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
        building.rename(made)
    return str(made)


def ours(folder: Path, rows: Sequence[tuple[str, str]], cache: Path) -> list[str]:
    """Return the command of Tunewright."""
    file = folder / "rows.jsonl"
    lines = [json.dumps({"prompt": question, "completion": answer}) for question, answer in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "model.model_name_or_path": base(cache),
        "train.max_steps": STEPS,
        "train.per_device_train_batch_size": 8,
        "train.gradient_accumulation_steps": 1,
        "train.learning_rate": RATE,
        "train.lr_scheduler_type": "constant",
        "train.warmup_steps": 0,
        "train.train_sampling_strategy": "random",
        "train.eval_steps": STEPS,
        "train.sample_prompts": 0,
        "train.dtype": "float32",
        "train.lora.r": RANK,
        "train.lora.lora_alpha": ALPHA,
        "prepare.eval_split": 0.02,
    }
    given = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    own = [str(Path(sys.executable).parent / "tunewright"), "train", "--train-files", str(file)]
    return [*own, "--output-dir", str(folder / "run"), *given]


def trl(folder: Path, rows: Sequence[tuple[str, str]], cache: Path) -> list[str]:
    """Return the command of TRL."""
    data = folder / "data"
    data.mkdir()
    lines = [
        json.dumps(
            {
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": answer}],
            }
        )
        for question, answer in rows
    ]
    (data / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = {
        "dataset_name": data,
        "model_name_or_path": base(cache),
        "dtype": "float32",
        "bf16": False,
        "use_peft": True,
        "lora_r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "lora_target_modules": "all-linear",
        **_trainer(folder),
    }
    given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return [str(Path(sys.executable).parent / "trl"), "sft", *given]


def llamafactory(folder: Path, rows: Sequence[tuple[str, str]], cache: Path) -> list[str]:
    """Return the command of LLaMA-Factory."""
    listed = [{"instruction": question, "input": "", "output": answer} for question, answer in rows]
    (folder / "rows.json").write_text(json.dumps(listed), encoding="utf-8")
    information = {"rows": {"file_name": "rows.json"}}
    (folder / "dataset_info.json").write_text(json.dumps(information), encoding="utf-8")
    flags = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": base(cache),
        "infer_dtype": "float32",
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "template": "chatml",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "cutoff_len": 1024,
        **_trainer(folder),
    }
    file = folder / "config.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(flags), encoding="utf-8")
    python = interpreter("llamafactory", cache)
    return [str(python), "-m", "llamafactory.cli", "train", str(file)]


def _trainer(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "out"),
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
    }


COMMANDS: dict[str, Callable[[Path, Sequence[tuple[str, str]], Path], list[str]]] = {
    "ours": ours,
    "trl": trl,
    "llamafactory": llamafactory,
}


def timed(name: str, threads: int, cache: Path) -> Whole:
    """Run a command in a folder of its own and return how long it took.

    Raises:
        Failed: It cannot be run, or ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="whole-command-") as scratch:
        folder = Path(scratch)
        try:
            command = COMMANDS[name](folder, conversations(), cache)
        except RuntimeError as error:
            raise Failed(f"its environment cannot be made: {error}") from error
        variables = environment(threads, own=name != "llamafactory") | {"PYTHONUNBUFFERED": "1"}
        # What is logged goes by way of the libraries' own messages.
        variables.pop("TRANSFORMERS_VERBOSITY")
        started, heard = time.time(), list[tuple[float, str]]()
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=variables,
            text=True,
            errors="replace",
        ) as process:
            heard += [(time.time(), line.strip()) for line in process.stdout or ()]
        seconds = time.time() - started
        if process.returncode:
            said = heard[-1][1] if heard else "it said nothing"
            raise Failed(f"it ended with exit code {process.returncode}: {said[:300]}")
        if name == "ours":
            training, first = _of_journal(folder / "run" / "training" / "progress.jsonl")
            loss = loss_on_rows(base(cache), folder / "run" / "adapter")
        else:
            training, first = of_log(heard)
            loss = loss_on_rows(base(cache), folder / "out")
        return Whole(seconds, training, first - started, loss)


def loss_on_rows(model_folder: str, adapter: Path | None) -> float:
    """Return the mean loss on the answers of all rows, each with the token that ends it; in nats a token."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model_folder, trust_remote_code=False)
    model: Any = AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32, trust_remote_code=False
    )
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    total, count = 0.0, 0
    for question, answer in conversations():
        asked = [{"role": "user", "content": question}]
        start: str = tokenizer.apply_chat_template(
            asked, tokenize=False, add_generation_prompt=True
        )
        ends = answer + str(tokenizer.eos_token)
        ids, known = (
            tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            for text in (start + ends, start)
        )
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, known.shape[1] - 1 : -1]
        learned = ids[0, known.shape[1] :]
        total += float(cross_entropy(logits, learned, reduction="sum"))
        count += len(learned)
    return total / count


def _of_journal(file: Path) -> tuple[float, float]:
    """Return the seconds of training, and the Unix time at which the first step was over."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    steps = [row for row in lines if "step" in row]
    ends = {row["step"]: row["time"] for row in reversed(steps)}
    return ends[max(ends)] - ends[0], ends[min(step for step in ends if step)]


def of_log(heard: Sequence[tuple[float, str]]) -> tuple[float, float]:
    """Return what `_of_journal` does, of a log that has a dictionary for each step, as Transformers prints it.

    Args:
        heard: Unix time and text of each line.

    Raises:
        ValueError: There is no step in it, or no summary.
    """
    rows = [(when, row) for when, line in heard if (row := _dictionary(line))]
    steps = [when for when, row in rows if "loss" in row]
    summaries = [float(row["train_runtime"]) for _, row in rows if "train_runtime" in row]
    if not (steps and summaries):
        raise ValueError("the log has no step or no summary")
    return summaries[-1], steps[0]


def _dictionary(line: str) -> dict[str, Any]:
    start, end = line.find("{'"), line.rfind("}")
    try:
        return ast.literal_eval(line[start : end + 1]) if 0 <= start < end else {}
    except (ValueError, SyntaxError):
        return {}


def table(results: Mapping[str, Sequence[Whole]]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"{ROWS} rows, {STEPS} steps of 8; median of {len(next(iter(results.values())))} rounds.",
        "",
        "| command | in all | until the first step | training | rows a second | loss on all rows |",
        "|---|---|---|---|---|---|",
    ]
    for name, several_runs in results.items():
        whole, first, training, loss = (
            median(values)
            for values in zip(
                *((r.seconds, r.first_step, r.training, r.loss) for r in several_runs),
                strict=True,
            )
        )
        lines.append(
            f"| {name} | {whole:.1f} s | {first:.1f} s | {training:.1f} s | {STEPS * 8 / training:.1f} | {loss:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=several(list(COMMANDS)), default=list(COMMANDS))
    parser.add_argument("--cache", type=Path, default=CACHE, help="environments of peers")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--docs", type=Path, help="put the table into this page")
    args = parser.parse_args()
    results: dict[str, list[Whole]] = {name: [] for name in args.only}
    for _ in range(args.rounds):
        for name in [name for name in args.only if name in results]:
            try:
                results[name].append(timed(name, args.threads, args.cache))
                print(f"{name}: {results[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
            except Failed as error:
                # Who fails once gets no figure, and the others go on.
                del results[name]
                print(f"{name}: no figure, {error}", file=sys.stderr, flush=True)
    if not results:
        raise SystemExit("no command could be run")
    before = loss_on_rows(base(args.cache), None)
    text = f"Measured on {machine()}, {args.threads} threads. {table(results)}"
    text += f"\n\nThe loss on all rows before training: {before:.3f}."
    print(text)
    if args.json:
        given = {name: [asdict(one) for one in runs] for name, runs in results.items()}
        text_of_json = json.dumps({"machine": machine(), "commands": given}, indent=1)
        args.json.write_text(text_of_json + "\n", encoding="utf-8")
    if args.docs:
        page = args.docs.read_text(encoding="utf-8")
        args.docs.write_text(filled(page, text, "whole-command"), encoding="utf-8")


if __name__ == "__main__":
    main()
