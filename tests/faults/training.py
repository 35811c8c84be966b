"""A training of seconds: fifty steps of a random model of 180,000 parameters, dropout on."""

import json
import shutil
from pathlib import Path

STEPS = 50
OPTIONS = (
    "name=short",
    "prepare.eval_split=0.2",
    "train.max_length=48",
    f"train.max_steps={STEPS}",
    "train.per_device_train_batch_size=1",
    "train.gradient_accumulation_steps=2",
    "train.learning_rate=2e-3",
    "train.eval_steps=10",
    "train.save_steps=5",
    "train.sample_prompts=0",
    "train.early_stopping_patience=null",
    "train.train_sampling_strategy=group_by_length",
    "train.dtype=float32",
    "train.lora.r=2",
    "train.lora.lora_dropout=0.2",
)


def make_base(folder: Path, kind: str = "qwen3") -> Path:
    """Return a random model with the bundled base's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tunewright.models._folders import resolve_model

    tiny = resolve_model("tunewright/tiny")
    torch.manual_seed(0)
    shape = AutoConfig.for_model(
        kind,
        vocab_size=4096,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=json.loads((tiny / "config.json").read_text())["eos_token_id"],
    )
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    for file in tiny.glob("*token*"):
        shutil.copyfile(file, folder / file.name)
    for file in tiny.glob("*.jinja"):
        shutil.copyfile(file, folder / file.name)
    return folder


def make_rows(file: Path, count: int = 30) -> Path:
    """Return a file of rows of different length."""
    words = [
        "rain",
        "field",
        "lamp",
        "stone",
        "river",
        "morning",
        "coat",
        "letter",
        "road",
        "window",
        "garden",
        "winter",
    ]
    rows = [
        {
            "prompt": f"Tell me of {words[n % 12]} number {n}.",
            "completion": " ".join(words[(n * k + k) % 12] for k in range(3 + n % 9)) + ".",
        }
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def options(root: Path, run: Path) -> list[str]:
    """Return the options of a run in `run`, its base and rows in `root`."""
    return [
        f"model.model_name_or_path={root / 'base'}",
        f"prepare.source={root / 'rows.jsonl'}",
        f"output_dir={run}",
        *OPTIONS,
    ]


def make(root: Path) -> Path:
    """Return a run folder with its dataset, nothing trained yet."""
    from tunewright import prepare
    from tunewright.config.load import config_of_source

    make_base(root / "base")
    make_rows(root / "rows.jsonl")
    (root / "run.yaml").write_text("prepare: {source: rows.jsonl}\n")
    prepare(config_of_source(str(root / "rows.jsonl"), options(root, root / "run")))
    return root / "run"


def train_in(root: Path, run: Path, *more: str) -> int:
    """Train as the command does: what it says on stderr, its exit code; the dataset is copied when missing."""
    from tunewright.cli import main

    if not (run / "dataset").exists():
        shutil.copytree(root / "run" / "dataset", run / "dataset")
    flags = [word for option in options(root, run) for word in ("--set", option)]
    return main(["train", str(root / "run.yaml"), *flags, *more])


def result(run: Path) -> dict[str, bytes]:
    """Return what a training must give however often it is interrupted: adapter, last state, metrics."""
    last = run / "training" / "checkpoints" / f"checkpoint-{STEPS}"
    names = ("adapter_model", "optimizer", "rng_state")
    files = [last / f"{name}.safetensors" for name in names]
    documents = ("optimizer", "scheduler", "course", "rng_state", "trainer_state")
    files += [last / f"{name}.json" for name in documents]
    files += [run / "adapter" / "adapter_model.safetensors", run / "adapter" / "metrics.jsonl"]
    files += [run / "training" / "metrics.jsonl"]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def killed_at(root: Path, run: Path, step: int) -> int:
    """Train, and die in this step, after the gradient is there and before it is used."""
    import os
    import signal

    from tunewright.train._trainer import Trainer

    clip = Trainer._clip_grad_norm

    def clip_or_die(self: Trainer, model: object) -> object:
        if self.state.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return clip(self, model)

    Trainer._clip_grad_norm = clip_or_die
    return train_in(root, run)
