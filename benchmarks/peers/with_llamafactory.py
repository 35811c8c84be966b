"""Contender: LLaMA-Factory, in an environment of its own.

The flag `packed` gives it the rows of a step as one, with a block mask, as its `neat_packing` makes them: by itself it
would put other rows together.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from llamafactory.train.tuner import run_exp
from worker import ROWS_A_STEP, Course, Job, Meter, Task, arguments, read_rows, run

IGNORED = -100


def train(task: Task, job: Job, course: Course) -> None:
    """Train one adapter; the rows are tokens already."""
    flags = arguments(task, job)
    packed = flags.pop("packed", False)
    if packed:
        flags |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    tokens = f"{job.run}/tokens-{'packed' if packed else 'plain'}"
    if not Path(tokens).exists():
        rows = [{**row, "attention_mask": [1] * len(row["labels"])} for row in read_rows(job)]
        DatasetDict({"train": Dataset.from_list(_packed(rows) if packed else rows)}).save_to_disk(
            tokens
        )
    given = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": task.base,
        "adapter_name_or_path": task.adapter,
        "finetuning_type": "lora",
        "template": "empty",
        "dataset": "rows",
        "tokenized_path": tokens,
        "disable_shuffling": True,
        "neat_packing": packed,
        "cutoff_len": 1 << 17,
        "infer_dtype": task.dtype,
        "overwrite_output_dir": True,
        **flags,
    }
    run_exp(given, callbacks=[Meter(course, job.out)])


def _packed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of each step as one: the mask has the number of the row, each begins unpredicted."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), ROWS_A_STEP):
        one: dict[str, Any] = {"input_ids": [], "labels": [], "attention_mask": []}
        for number, row in enumerate(rows[start : start + ROWS_A_STEP], 1):
            one["input_ids"] += row["input_ids"]
            one["labels"] += [IGNORED, *row["labels"][1:]]
            one["attention_mask"] += [number] * len(row["input_ids"])
        found.append(one)
    return found


if __name__ == "__main__":
    run(train)
