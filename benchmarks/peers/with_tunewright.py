"""Contender: Tunewright's train stage, by its Python API, from text.

It tokenises by itself, so that its rows are held against those of the others first. It evaluates and saves at the
end in any case: that is after the last step that is measured. One short held-out row is evaluated before the first.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast
from worker import NO_CLIPPING, ROWS_A_STEP, Course, Job, Task, read_rows, run

from tunewright import train as stage
from tunewright.accel.order import epoch_order
from tunewright.artifacts import load_artifact
from tunewright.config.schema import Config
from tunewright.train._rows import token_rows

LORA = ("r", "lora_alpha", "lora_dropout")
PASS_ROWS = min(2, ROWS_A_STEP)
"""Rows of a pass by default; how many there really are is the plan's."""


class Clock:
    """Listener that marks the first report of each step; an evaluation reports the same step again."""

    def __init__(self, course: Course) -> None:
        self._course, self._next = course, 0

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """Start the clock."""

    def said(self, text: str) -> None:
        """Nothing to note."""

    def advanced(self, done: int, detail: str) -> None:
        """Mark the step."""
        if done == self._next:
            self._course.mark()
            self._next += 1


def configured(task: Task, job: Job) -> Config:
    """Return the config of one training: defaults but for what the protocol lays down."""
    adapter = json.loads((Path(task.adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    base = json.loads((Path(task.base) / "config.json").read_text(encoding="utf-8"))
    return Config.model_validate(
        {
            "name": "speed",
            "output_dir": job.run,
            "seed": task.seed,
            "prepare": {"source": "rows"},
            "model": {"model_name_or_path": task.base},
            "train": {
                "max_length": base["max_position_embeddings"],
                "max_steps": task.steps,
                "per_device_train_batch_size": PASS_ROWS,
                "gradient_accumulation_steps": ROWS_A_STEP // PASS_ROWS,
                "learning_rate": task.learning_rate,
                "lr_scheduler_type": "constant",
                "warmup_steps": 0,
                "max_grad_norm": NO_CLIPPING,
                "train_sampling_strategy": "random",
                "eval_steps": task.steps,
                "early_stopping_patience": None,
                "sample_prompts": 0,
                "dtype": task.dtype,
                **task.flags,
                "lora": {n: adapter[n] for n in LORA} | {"init_lora_weights": False},
            },
        }
    )


def require_same_rows(task: Task, job: Job, config: Config) -> None:
    """End the process if the stage would train on other rows than the others, or in another order."""
    lines = (Path(job.run) / "dataset" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(task.base)
    own = token_rows([json.loads(line) for line in lines], tokenizer, config.train)
    order = epoch_order(
        [len(row["input_ids"]) for row in own],
        rows_a_step=ROWS_A_STEP,
        strategy="random",
        seed=task.seed,
        epoch=0,
    )
    for place, (number, wanted) in enumerate(zip(order, read_rows(job), strict=False)):
        if any(own[number][name] != ids for name, ids in wanted.items()):
            raise SystemExit(f"row {place} of the order is another one than that of the others")


def train(task: Task, job: Job, course: Course) -> None:
    """Train one adapter."""
    config = configured(task, job)
    for name in ("training", "adapter"):
        shutil.rmtree(Path(job.run) / name, ignore_errors=True)
    if job.out:
        require_same_rows(task, job, config)
    made = stage(
        config, load_artifact(Path(job.run) / "dataset", "dataset"), listener=Clock(course)
    )
    rows: list[dict[str, Any]] = [
        json.loads(line)
        for line in (made.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    trained = [row for row in rows if "loss" in row]
    course.losses = [row["loss"] for row in trained]
    course.norm = trained[0]["grad_norm"]
    if job.out:
        save_file(load_file(made.path / "adapter_model.safetensors"), job.out)


if __name__ == "__main__":
    run(train)
