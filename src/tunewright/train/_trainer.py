"""The training loop: TRL's, with exact order, resume, out-of-memory and divergence handling. Alone knows TRL."""

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tunewright.accel._step import Totals
from tunewright.train._adapter import adapter_state, load_adapter_state
from tunewright.train._averages import TOKENS, Entries, add, kept, put_back, weigh
from tunewright.train._batches import Batch, does_not_fit, is_out_of_memory, parts_of
from tunewright.train._course import Course, Order, Rules, Snapshot
from tunewright.train._fast import Fast, labels_of, mean_of
from tunewright.train._flow import Beginning, Flow
from tunewright.train._heap import give_back
from tunewright.train._processes import of_every_process
from tunewright.train._rows import IGNORED
from tunewright.train._state import (
    load_optimizer_state,
    load_random_state,
    optimizer_state,
    random_state,
)
from tunewright.train.schedule import best_of


class Trainer(SFTTrainer):
    """TRL's trainer with our order, evaluation and checkpoints.

    Its own checkpoints are pickled and its own order depends on the size of a forward pass, so both are replaced
    by way of the methods that Transformers names for it.
    """

    def __init__(
        self,
        model: PeftModel,
        arguments: SFTConfig,
        rows: Sequence[Batch],
        eval_rows: Sequence[Batch],
        *,
        rules: Rules,
        callbacks: Sequence[TrainerCallback],
        processing_class: Any,
        fast: Fast | None = None,
    ) -> None:
        self.rules = rules
        self._fast = fast
        self.course = Course()
        self._resumed: Snapshot | None = None
        self._step_batches: list[Batch] = []
        self._micro = 0
        # Empty rows fill the last step of an epoch, so that all processes and batches have as many.
        empty = {"input_ids": [processing_class.pad_token_id], "labels": [IGNORED]}
        self._rows = len(rows)
        self._eval_rows = sorted(eval_rows, key=lambda row: len(row["input_ids"]), reverse=True)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list([*rows, *[empty] * (len(rules.order) - len(rows))]),
            processing_class=processing_class,
            callbacks=[Flow(rules.schedule), Beginning(self), *callbacks],
        )
        for unwanted in (PrinterCallback, ProgressCallback):
            self.remove_callback(unwanted)

    def resume(self, snapshot: Snapshot, inexact: Sequence[str]) -> None:
        """Go on from a snapshot at the next call of `train`; `inexact` as in `Course`."""
        course = snapshot.documents["course"]
        self.course = Course(
            evaluations=[(step, loss) for step, loss in course["evaluations"]],
            rows_at_once=course["rows_at_once"],
            eval_rows_at_once=course["eval_rows_at_once"],
            checked=course["checked"],
            executed=course["executed"],
            labels=course["labels"],
            norms=course["norms"],
            inexact=inexact,
        )
        self._resumed = snapshot
        self.rules.watchdog.resumed(self.course.evaluations)
        self.rules.watchdog.checkpoint = snapshot.step

    def run(self, checkpoint: str | None = None) -> None:
        """Train to the end; `checkpoint` is the folder of the snapshot given to `resume`.

        Raises:
            TunewrightError: E_DIVERGED; E_OOM, one row alone does not fit.
        """
        self.train(resume_from_checkpoint=checkpoint)

    # The rows, and how they are run

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        del train_dataset
        return self.rules.order

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> Any:
        """Keep the batches of the step, which are run again if memory runs out in one of them."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_batches, self._micro = batches, 0
        return batches, items

    def training_step(
        self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Run one batch forward and backward; in halves where it does not fit."""
        micro, self._micro = self._micro, self._micro + 1
        counted, entries = self._total_train_tokens, kept(self._metrics["train"])
        fits = True
        while True:
            rows = self.course.rows_at_once or len(inputs["input_ids"])
            try:
                if not fits:
                    self._redo(model, micro, num_items_in_batch)
                    put_back(self._metrics["train"], entries)
                    self._total_train_tokens = counted
                loss = self._forward_backward(model, inputs, num_items_in_batch, rows)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                rows = min(rows, len(inputs["input_ids"]))
            # Out of the handler: the error held the tensors of the failed attempt.
            fits = False
            self.course.rows_at_once = self._halved(rows, "training")
            put_back(self._metrics["train"], entries)
        step = self.state.global_step + 1
        self.rules.watchdog.loss(float(loss), step, self._rows_of(micro))
        return loss

    def _redo(self, model: torch.nn.Module, micro: int, items: Any) -> None:
        """Run the batches of this step that were done already again: their gradient is half overwritten."""
        model.zero_grad()
        for batch in self._step_batches[:micro]:
            rows = self.course.rows_at_once or len(batch["input_ids"])
            self._forward_backward(model, batch, items, rows)

    def _forward_backward(
        self, model: torch.nn.Module, inputs: Batch, items: Any, rows: int
    ) -> torch.Tensor:
        if self._fast is not None and self._fast.holds(inputs, self.course):
            return self._accelerated(self._fast, model, inputs, int(items), rows)
        if self._fast is not None:
            rows = min(rows, self._fast.rows_at_once(len(inputs["input_ids"])))
        total = torch.zeros((), device=self.args.device)
        for part in parts_of(inputs, rows):
            total += super().training_step(model, part, items)
            give_back(self.args.device, saving=self.rules.saving)
        return total

    def _accelerated(
        self, fast: Fast, model: torch.nn.Module, inputs: Batch, items: int, rows: int
    ) -> torch.Tensor:
        if not model.training:
            model.train()
        totals = fast.train(inputs, items, most_rows=rows, saving=self.rules.saving)
        self._total_train_tokens += totals.tokens
        self.course.executed += totals.executed
        self.course.labels += totals.labels
        self._count(totals)
        self._entries["num_tokens"] = [self._total_train_tokens]
        self._entries["num_executed_tokens"] = [self.course.executed]
        self._entries["num_label_tokens"] = [self.course.labels]
        return mean_of(totals, items, self.args.device)

    def _count(self, totals: Totals) -> None:
        """Add to the averages what TRL would have."""
        labels = totals.labels
        add(self._entries, entropy=totals.entropy, correct=totals.correct, tokens=labels)

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """Return the loss, and remember of how many tokens the averages are that TRL makes on the way."""
        tokens = (inputs["labels"][:, 1:] != IGNORED).sum()
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        # As TRL counts: those of all processes.
        every = cast("torch.Tensor", self.accelerator.gather_for_metrics(tokens))
        self._entries.setdefault(TOKENS, []).append(int(every.sum()))
        # Before the backward pass, which begins with the largest blocks.
        give_back(self.args.device, saving=self.rules.saving)
        return loss

    def _halved(self, rows: int, where: str) -> int:
        """Return half the rows of a forward pass.

        Raises:
            TunewrightError: E_OOM, it is one row already, or other processes would wait for this one.
        """
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        step = self.state.global_step + 1
        if rows <= 1 or self.args.world_size > 1:
            given = self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps
            raise does_not_fit(rows, where, step, given)
        half = -(-rows // 2)
        self.rules.said(
            "oom",
            f"Memory ran out in {where} at step {step}: {half} rows at a time from here, with as much more "
            "accumulation. The rows of a step and their weights stay.",
        )
        return half

    def _rows_of(self, micro: int) -> list[int]:
        """Return the row numbers of a batch of the current step."""
        size, world = self.args.per_device_train_batch_size, self.args.world_size
        start = (micro * world + self.args.process_index) * size
        rows = self.rules.order.rows(self.state.global_step)[start : start + size]
        return [row for row in rows if row < self._rows]

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        norm = cast("torch.Tensor", super()._clip_grad_norm(model))
        step = self.state.global_step
        rows = [row for row in self.rules.order.rows(step) if row < self._rows]
        self.rules.watchdog.norm(float(norm), step + 1, rows, self.course.norms)
        return norm

    # Evaluation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the mean loss a token over all held-out rows, however they are batched."""
        del args, kwargs
        was_training, began = self._tuned.training, time.monotonic()
        self._tuned.eval()
        found = self._evaluated()
        found["eval_runtime"] = time.monotonic() - began
        self.course.evaluations.append((self.state.global_step, found["eval_loss"]))
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self._tuned.train(was_training)
        self.rules.watchdog.evaluation(self.course.evaluations)
        if self.rules.schedule.is_over(self.course.evaluations):
            self.control.should_training_stop = True
        if self.state.global_step and best_of(self.course.evaluations)[0] == self.state.global_step:
            self.control.should_save = True
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and stop a run whose loss has gone wrong."""
        weigh(self._entries)
        super().log(logs, start_time)
        if "loss" in logs and self.course.evaluations:
            first = self.course.evaluations[0][1]
            self.rules.watchdog.trained(logs["loss"], self.state.global_step, first)

    def _evaluated(self) -> dict[str, float]:
        world, rank = self.args.world_size, self.args.process_index
        size = self.args.per_device_eval_batch_size
        batches = [self._eval_rows[i : i + size] for i in range(0, len(self._eval_rows), size)]
        own = batches[rank::world]
        # Every process runs as many batches: those without one of their own run the first, for nothing.
        nothing = [row | {"labels": [IGNORED] * len(row["labels"])} for row in batches[0]]
        own += [nothing] * (-(-len(batches) // world) - len(own))
        loss, tokens = 0.0, 0
        for batch in own:
            inputs = self._prepare_inputs(self.data_collator(batch))
            loss += self._eval_loss(inputs)
            tokens += labels_of(inputs)
        totals = torch.tensor([loss, float(tokens)], dtype=torch.float64)
        if world > 1:
            totals = torch.tensor(gather_object([totals.tolist()]), dtype=torch.float64).sum(0)
        return {"eval_loss": float(totals[0] / totals[1])}

    def _eval_loss(self, inputs: Batch) -> float:
        """Return the summed loss of a batch."""
        one = torch.ones((), device=self.args.device)
        while True:
            rows = self.course.eval_rows_at_once or len(inputs["input_ids"])
            entries = kept(self._metrics["eval"])
            try:
                if self._fast is not None and self._fast.holds(inputs, self.course):
                    found = self._fast.measure(inputs, most_rows=rows, saving=self.rules.saving)
                    self._count(found)
                    return found.loss
                parts = list(parts_of(inputs, rows))
                with torch.no_grad():
                    losses = [
                        float(
                            self.compute_loss(
                                cast("torch.nn.Module", self.model_wrapped),
                                dict(p),
                                num_items_in_batch=one,
                            )
                        )
                        for p in parts
                    ]
                return sum(losses) / self.args.world_size
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                rows = min(rows, len(inputs["input_ids"]))
            self.course.eval_rows_at_once = self._halved(rows, "an evaluation")
            put_back(self._metrics["eval"], entries)

    # Checkpoints

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        del trial
        adapter = adapter_state(self.accelerator.unwrap_model(model))
        # DeepSpeed shards its optimizer in a way of its own: such a run has weights to keep, no state to resume.
        sharded = self.is_deepspeed_enabled
        optimizer, groups = ({}, {}) if sharded else optimizer_state(self._inner_optimizer)
        tensors, generators = of_every_process(*random_state())
        losses = gather_object([float(cast("torch.Tensor", self._tr_loss))])
        if not self.args.should_save:
            return
        course = asdict(self.course) | {
            "next_rows": self.rules.order.rows(self.state.global_step),
            "num_tokens": self._total_train_tokens,
            "losses": losses,
            "last_logged": self._globalstep_last_logged,
            "metrics": kept(self._metrics["train"]),
        }
        self.rules.save(
            Snapshot(
                step=self.state.global_step,
                tensors={"adapter_model": adapter, "optimizer": optimizer, "rng_state": tensors},
                documents={
                    "trainer_state": asdict(self.state)
                    | {"log_history": [], "stateful_callbacks": {}},
                    "optimizer": groups,
                    "scheduler": self._scheduler.state_dict(),
                    "rng_state": generators,
                    "course": course,
                },
            )
        )

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        del resume_from_checkpoint
        tensors = dict(self._snapshot.tensors["adapter_model"])
        load_adapter_state(self.accelerator.unwrap_model(model or self.model), tensors)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        documents = self._snapshot.documents
        tensors = dict(self._snapshot.tensors["optimizer"])
        load_optimizer_state(self._inner_optimizer, tensors, documents["optimizer"])
        self._scheduler.load_state_dict(documents["scheduler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        rank = f"{self.args.process_index}/"
        generators = self._snapshot.documents["rng_state"]
        tensors = {
            name.removeprefix(rank): tensor
            for name, tensor in self._snapshot.tensors["rng_state"].items()
            if name.startswith(rank)
        }
        # Resumed on more processes, which is allowed only on request, the new ones start as they are.
        if tensors:
            load_random_state(tensors, generators[rank])

    @property
    def _entries(self) -> Entries:
        """What TRL averages in the present mode."""
        return self._metrics["train" if self._tuned.training else "eval"]

    @property
    def _tuned(self) -> torch.nn.Module:
        return cast("torch.nn.Module", self.model)

    @property
    def _scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        return cast("torch.optim.lr_scheduler.LRScheduler", self.lr_scheduler)

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer itself: accelerate's wrapper has no state of its own."""
        return cast("Any", self.optimizer).optimizer

    @property
    def _snapshot(self) -> Snapshot:
        if self._resumed is None:
            raise TypeError("nothing to resume from was given")
        return self._resumed

    @property
    def course_tokens(self) -> int:
        """Tokens that went through the model in training, of all processes."""
        return int(self._total_train_tokens)

    @property
    def measured_gain(self) -> float | None:
        """Times as fast as the plain path on a few rows; None: not compared in this process."""
        return self._fast.gain if self._fast else None

    def restore_course(self) -> None:
        """Set the sums that the next row of the log is made of."""
        if self._resumed is None:
            return
        course = self._resumed.documents["course"]
        self._total_train_tokens = course["num_tokens"]
        # The log has the mean over all processes.
        losses, world = course["losses"], self.args.world_size
        same = len(losses) == world
        self._tr_loss += losses[self.args.process_index] if same else sum(losses) / len(losses)
        self._globalstep_last_logged = course["last_logged"]
        put_back(self._metrics["train"], course["metrics"])
