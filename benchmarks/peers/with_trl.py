"""Contender: TRL's SFTTrainer."""

from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer
from worker import Course, Job, Meter, Task, arguments, read_rows, run, trained_model


def train(task: Task, job: Job, course: Course) -> None:
    """Train one adapter; the rows are tokens already."""
    SFTTrainer(
        model=trained_model(task),
        args=SFTConfig(
            **arguments(task, job),
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
