"""Contender: Axolotl, on a GPU only, by its Python entry points and a plugin that brings the clock."""

import json
from pathlib import Path
from typing import Any

from axolotl.cli.args import TrainerCliArgs
from axolotl.cli.config import load_cfg
from axolotl.cli.train import do_train
from axolotl.integrations.base import BasePlugin
from worker import Course, Job, Meter, Task, arguments, read_rows, run

MOST_TOKENS = 4096
OWN_NAMES = {
    "per_device_train_batch_size": "micro_batch_size",
    "lr_scheduler_type": "lr_scheduler",
}
UNKNOWN = ("report_to", "disable_tqdm")


class Clock(BasePlugin):
    """Gives the trainer the meter of the training that is to run: Axolotl makes its plugins by name."""

    meter: Meter

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Meter]:
        """Return the meter."""
        del cfg, trainer
        return [Clock.meter]


def train(task: Task, job: Job, course: Course) -> None:
    """Train one adapter; the rows are tokens already."""
    Clock.meter = Meter(course, job.out)
    run_folder = Path(job.run)
    rows = [{**row, "attention_mask": [1] * len(row["labels"])} for row in read_rows(job)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run_folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    given = {
        OWN_NAMES.get(name, name): value
        for name, value in arguments(task, job).items()
        if name not in UNKNOWN
    }
    given |= {
        "base_model": task.base,
        "adapter": "lora",
        "lora_model_dir": task.adapter,
        # An empty type: the rows are tokens.
        "datasets": [{"path": str(run_folder / "rows.jsonl"), "ds_type": "json", "type": ""}],
        "dataset_prepared_path": str(run_folder / "prepared"),
        "sequence_len": MOST_TOKENS,
        "sample_packing": False,
        "curriculum_sampling": True,
        "optimizer": "adamw_torch_fused",
        "bf16": task.dtype == "bfloat16",
        "tf32": False,
        "plugins": ["with_axolotl.Clock"],
    }
    file = run_folder / "axolotl.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(given), encoding="utf-8")
    do_train(load_cfg(str(file)), TrainerCliArgs())


if __name__ == "__main__":
    # The plugin is looked up in the module of this name, which must not be another copy of this one.
    import with_axolotl

    run(with_axolotl.train)
