"""What is written down while training goes on: metrics, progress, events, sample answers."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedTokenizerFast, TrainerCallback

from tunewright.events import Listener
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import Message, encode, question_and_answer
from tunewright.train._batches import is_out_of_memory
from tunewright.train.history import METRICS, PROGRESS, SAMPLES, clock
from tunewright.train.journal import Journal, keep, line_of
from tunewright.train.pace import Speed
from tunewright.train.timing import Limit

SAMPLE_TOKENS = 48
SAMPLE_SHARE = 0.05
"""Share of the time of a training that sample answers may take: beyond it, evaluations go without."""


class Metrics(TrainerCallback):
    """Writes what Trainer logs, and tells the listener.

    metrics.jsonl has no times, so that a training that was interrupted writes the same file as one
    that was not. progress.jsonl has the times, speed and memory, and what happened beside.
    """

    def __init__(
        self,
        folder: Path,
        listener: Listener,
        *,
        total_steps: int,
        device: str,
        limit: Limit | None = None,
        writes: bool = True,
    ) -> None:
        """Write into `folder`, which exists.

        Args:
            folder: `training/` of the run folder.
            listener: Told of each log, and once if the disk takes no more lines.
            total_steps: Optimizer steps in all.
            device: `cuda`, `mps` or `cpu`.
            limit: What the device could do at most; None: its share is not told.
            writes: False on every process but the first: rows are kept in memory only.
        """
        self._folder = folder
        self._listener = listener
        self._total = total_steps
        self._device = device
        self._writes = writes
        self._warned = False
        self._sampled: int | None = None
        self._rows: list[dict[str, Any]] = []
        self._latest: dict[str, Any] = {}
        self._journals = {
            name: Journal(folder / name, self._refused) for name in (METRICS, PROGRESS, SAMPLES)
        }
        self._speed = Speed(limit)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl, also those from before a resume."""
        return list(self._rows)

    @property
    def text(self) -> str:
        """What metrics.jsonl holds, or would hold had the disk taken every line."""
        return b"".join(map(line_of, self._rows)).decode()

    @property
    def speed(self) -> dict[str, float | None]:
        """Speeds over all that this process trained."""
        return self._speed.overall()

    def resume_at(self, step: int) -> None:
        """Take up the files of a training that goes on after `step`; what was logged later goes.

        To be called before each training: with 0 where there is no checkpoint.
        """
        told = {METRICS: step, SAMPLES: step, PROGRESS: None}
        for name, last in told.items():
            rows = self._taken_up(self._folder / name, last)
            if name == METRICS:
                self._rows = rows
                self._latest = {key: value for row in rows for key, value in row.items()}
            if name == SAMPLES and rows:
                self._sampled = rows[-1]["step"]
        if self._rows:
            self.event("resumed", f"training goes on after step {step}")

    def event(self, kind: str, text: str) -> None:
        """Write down that something happened: `kind` is one word, `text` is for people."""
        self._write(PROGRESS, {"time": time.time(), "event": kind, "text": text})

    def has_samples(self, step: int) -> bool:
        """Return whether answers of this step are written down."""
        return self._sampled == step

    def sample(self, step: int, prompt: str, answer: str) -> None:
        """Write down what the model answers."""
        self._sampled = step
        self._write(SAMPLES, {"step": step, "prompt": prompt, "answer": answer})

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock of the steps until the next log."""
        self._speed.begin()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep one row; one of a step that is there already is the same again."""
        # The last log is a summary of times, and of the steps of this process only.
        if "train_runtime" in logs:
            return
        self._speed.logged(logs)
        row = metrics_row(state.global_step, logs)
        if any(_same_kind(row, other) for other in self._rows[-2:]):
            return
        if "loss" in row:
            self._speed.counted(row, before=self._latest)
        self._rows.append(row)
        self._latest |= row
        self._write(METRICS, row)
        memory = memory_bytes(self._device)
        self._write(PROGRESS, self._progress(state.global_step, memory))
        self._listener.advanced(state.global_step, self._detail(state.global_step, memory))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell of the checkpoint."""
        self.event("checkpoint", f"checkpoint of step {state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what the disk has refused, if it takes it now."""
        for journal in self._journals.values():
            journal.flush()

    def _write(self, name: str, row: Mapping[str, Any]) -> None:
        if self._writes:
            self._journals[name].add(row)

    def _refused(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            reason = error.strerror or error
            self._listener.said(
                f"The metrics cannot be written ({reason}): training goes on, they are kept in memory."
            )

    def _taken_up(self, file: Path, last: int | None) -> list[dict[str, Any]]:
        """Return the rows of a file up to a step, and leave only these in it."""

        def wanted(row: Mapping[str, Any]) -> bool:
            return last is None or (isinstance(row.get("step"), int) and row["step"] <= last)

        try:
            return keep(file, wanted, writes=self._writes)
        except OSError as error:
            self._refused(error)
            return keep(file, wanted, writes=False)

    def _progress(self, step: int, memory: int) -> dict[str, Any]:
        return {
            "step": step,
            "time": time.time(),
            "seconds": round(self._speed.seconds, 3),
            "tokens_per_second": self._speed.tokens_per_second,
            "executed_tokens_per_second": self._speed.executed_tokens_per_second,
            "share_of_limit": self._speed.share_of_limit,
            "memory_bytes": memory,
            "steps": self._total,
            "device": self._device,
        }

    def _detail(self, step: int, memory: int) -> str:
        left = self._speed.seconds_left(step, self._total)
        speed, ran = self._speed.tokens_per_second, self._speed.executed_tokens_per_second
        share = self._speed.share_of_limit
        # The first come first: a narrow terminal cuts the end off.
        texts = (
            "" if left is None else f"{clock(left)} left",
            self._last("loss", "loss {:.2f}"),
            self._last("eval_loss", "eval {:.2f}"),
            "" if speed is None else f"{speed:,.0f} tok/s",
            "" if ran is None else f"{ran:,.0f} run",
            "" if share is None else f"{share:.0%} of 4N",
            f"{memory / 1e9:.1f} GB",
            self._last("learning_rate", "lr {:.1e}"),
        )
        return ", ".join(text for text in texts if text)

    def _last(self, name: str, form: str) -> str:
        """Return the last value of a figure, written."""
        return form.format(self._latest[name]) if name in self._latest else ""


class Samples(TrainerCallback):
    """Lets the model answer held-out prompts at each evaluation; see `held_out`.

    Answers are greedy, so that no random number is drawn and training is the same without them. They take a
    twentieth of the time at most, the first and the last ones aside. Only for training in one process.
    """

    def __init__(
        self,
        metrics: Metrics,
        prompts: Sequence[Sequence[Message]],
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int | None = None,
    ) -> None:
        """Ask `prompts`.

        Args:
            metrics: Takes the answers.
            prompts: See `held_out`.
            tokenizer: With its chat template.
            max_length: A prompt of more tokens is left out; unset: one that fills the model's context.
        """
        self._metrics = metrics
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary_of(tokenizer)
        self._prompts = [
            (
                messages[-1]["content"],
                encode(messages, self._vocabulary, add_generation_prompt=True).input_ids,
            )
            for messages in prompts
        ]
        self._max_length = max_length
        self._began = time.monotonic()
        self._spent = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Answer, and write the answers down."""
        if args.world_size > 1 or self._metrics.has_samples(state.global_step):
            return
        started = time.monotonic()
        is_last = state.global_step >= state.max_steps
        if not is_last and self._spent > SAMPLE_SHARE * (started - self._began):
            return
        try:
            for prompt, ids in self._short_enough(model.config.max_position_embeddings):
                self._metrics.sample(state.global_step, prompt, self._answer(model, ids))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._prompts = []
            self._metrics.event("samples", "no more sample answers: they do not fit in memory")
        self._spent += time.monotonic() - started

    def _short_enough(self, context: int) -> list[tuple[str, list[int]]]:
        """Return the prompts that fit with their answer; the others are left out from here on, and it is told."""
        limit = min(self._max_length or context, context - SAMPLE_TOKENS)
        before = len(self._prompts)
        self._prompts = [(prompt, ids) for prompt, ids in self._prompts if len(ids) <= limit]
        left_out = before - len(self._prompts)
        if left_out:
            text = (
                f"{left_out} of {before} prompts are not asked: they have more than {limit} tokens"
            )
            self._metrics.event("samples", text)
        return self._prompts

    def _answer(self, model: Any, ids: list[int]) -> str:
        """Return the greedy answer; the model is left in the mode that it was in."""
        was_training = model.training
        inputs = torch.tensor([ids]).to(model.device)
        model.eval()
        try:
            with torch.no_grad():
                out_BT = model.generate(
                    input_ids=inputs,
                    attention_mask=torch.ones_like(inputs),
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    max_new_tokens=SAMPLE_TOKENS,
                    use_cache=True,
                    pad_token_id=self._tokenizer.pad_token_id,
                    eos_token_id=sorted(self._vocabulary.ends),
                )
        finally:
            model.train(was_training)
        text = self._tokenizer.decode(out_BT[0, len(ids) :], skip_special_tokens=True)
        return str(text)


def held_out(
    conversations: Sequence[Sequence[Message]], *, count: int = 2
) -> list[Sequence[Message]]:
    """Return the prompts that `Samples` asks: different ones, spread evenly over the held-out side."""
    prompts = [question_and_answer(conversation)[0] for conversation in conversations]
    different = list({str(prompt): prompt for prompt in prompts}.values())
    chosen = min(count, len(different))
    return [different[index * len(different) // chosen] for index in range(chosen)]


def metrics_row(step: int, logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a log is the same in each training with the same inputs: all but the times."""
    row: dict[str, Any] = {"step": step, "epoch": logs.get("epoch")}
    times = ("_runtime", "_per_second", "total_flos")
    return row | {key: value for key, value in logs.items() if not key.endswith(times)}


def memory_bytes(device: str) -> int:
    """Return the peak memory of this process on its device; on a CPU, what it holds now."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if device == "mps":
        return torch.mps.driver_allocated_memory()
    with suppress(psutil.Error):
        return psutil.Process().memory_info().rss
    return 0


def _same_kind(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two rows tell of the same step, and both or none of an evaluation."""
    return row["step"] == other["step"] and ("eval_loss" in row) == ("eval_loss" in other)
