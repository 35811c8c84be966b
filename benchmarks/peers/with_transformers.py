"""Contender: Transformers' own Trainer with PEFT."""

from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Trainer, TrainingArguments
from worker import Course, Job, Meter, Task, arguments, read_rows, run, trained_model


def train(task: Task, job: Job, course: Course) -> None:
    """Train one adapter."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(task.base)
    Trainer(
        model=trained_model(task),
        args=TrainingArguments(**arguments(task, job), train_sampling_strategy="sequential"),
        train_dataset=Dataset.from_list(read_rows(job)),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[Meter(course, job.out)],
    ).train()


if __name__ == "__main__":
    run(train)
