"""Contender: Unsloth, on a GPU only. Its import comes first: it changes the libraries that follow."""

from unsloth import FastLanguageModel  # isort: skip

from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer
from worker import Course, Job, Meter, Task, arguments, read_rows, run

MOST_TOKENS = 4096


def train(task: Task, job: Job, course: Course) -> None:
    """Train one adapter; the rows are tokens already."""
    # Given an adapter, it loads the base that is named there, and goes on with the adapter.
    model, _ = FastLanguageModel.from_pretrained(
        model_name=task.adapter,
        max_seq_length=MOST_TOKENS,
        dtype=task.dtype,
        load_in_4bit=False,
        use_gradient_checkpointing=task.flags.get("gradient_checkpointing", "unsloth"),
    )
    FastLanguageModel.for_training(model)
    SFTTrainer(
        model=model,
        args=SFTConfig(
            **arguments(task, job) | {"bf16": task.dtype == "bfloat16"},
            train_sampling_strategy="sequential",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(read_rows(job)),
        processing_class=PreTrainedTokenizerFast.from_pretrained(task.base),
        callbacks=[Meter(course, job.out)],
    ).train()


if __name__ == "__main__":
    run(train)
