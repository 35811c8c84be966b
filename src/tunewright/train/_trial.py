"""One optimizer step on the longest rows, to measure what the rest is estimated from."""

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from trl.trainer.utils import add_fused_lm_head

from tunewright.accel import Choice, Ways
from tunewright.accel._recompute import recompute
from tunewright.accel._step import Steps
from tunewright.accel.layout import Row
from tunewright.config.schema import Config
from tunewright.models._folders import resolve_model
from tunewright.train._adapter import build
from tunewright.train._heap import give_back
from tunewright.train._speed import checkpointing_of, ways_of

EVERY_S = 0.01
"""Seconds between looks at the resident memory."""


@dataclass(frozen=True)
class Trial:
    """What a step took.

    Attributes:
        seconds: A forward and backward pass over the longest rows, the second time.
        tokens: Their tokens; in the plain path padding is among them.
        memory_bytes: Peak of the device's memory from the loading of the model on.
    """

    seconds: float
    tokens: int
    memory_bytes: int


def run_trial(
    config: Config,
    choices: Mapping[str, Choice],
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Mapping[str, Any]],
    *,
    device: str,
) -> Trial:
    """Return what one optimizer step over the longest rows takes; the weights are fetched and loaded.

    Raises:
        TunewrightError: E_HUB, E_MODEL, E_CONFIG_VALUE: as training would.
    """
    base = resolve_model(config.model.model_name_or_path, config.model.revision)
    micro = int(choices["per_device_train_batch_size"].value)
    longest = sorted(rows, key=lambda row: -len(row["input_ids"]))[:micro]
    with _peak(device) as peak:
        model = build(
            base,
            tokenizer,
            config.train,
            dtype=choices["dtype"].value,
            device=device,
            seed=config.seed,
            attention=choices["attn_implementation"].value,
            extra_special_tokens=config.model.extra_special_tokens,
            calibration=longest,
        ).train()
        inner = model.get_base_model()
        if not isinstance(inner, PreTrainedModel):
            raise TypeError(f"expected a model of Transformers, got {type(inner).__name__}")
        ways = ways_of(choices)
        if ways.plain:
            add_fused_lm_head(inner, outputs=("log_probs", "entropy", "is_top1"))
        checkpointing = checkpointing_of(choices)
        if checkpointing:
            recompute(model, selective=checkpointing == "selective")
        batch = _batch(longest, tokenizer, device)
        optimizer = _optimizer(model, choices["optim"].value, config)
        run = _plain(model, batch) if ways.plain else _accelerated(model, ways, longest)
        seconds = [_timed(run, device, saving=bool(checkpointing)) for _ in range(2)][-1]
        optimizer.step()
        optimizer.zero_grad()
        _timed(run, device, saving=bool(checkpointing))
    tokens = batch["input_ids"].numel() if ways.plain else int(batch["attention_mask"].sum())
    return Trial(seconds, tokens, peak[0])


def _batch(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerFast, device: str
) -> dict[str, torch.Tensor]:
    collate = DataCollatorForSeq2Seq(tokenizer, padding=True)
    found = collate([{name: row[name] for name in ("input_ids", "labels")} for row in rows])
    return {name: tensor.to(device) for name, tensor in found.items()}


def _optimizer(model: torch.nn.Module, name: str, config: Config) -> torch.optim.Optimizer:
    arguments = TrainingArguments(
        output_dir=str(Path(config.run_dir)), optim=name, report_to="none", use_cpu=True
    )
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    # No learning rate: weights are not to change, only states to be made.
    trained = [p for p in model.parameters() if p.requires_grad]
    return kind(trained, **(settings | {"lr": 0.0}))


Run = Callable[[Callable[[], None]], None]
"""A forward and a backward pass; what is given is called before and after the backward one."""


def _plain(model: PeftModel, batch: Mapping[str, torch.Tensor]) -> Run:
    def run(between: Callable[[], None]) -> None:
        found = model(**batch, fused_lm_head=True, use_cache=False)
        loss = -found.log_probs.sum() / batch["labels"].numel()
        between()
        loss.backward()
        between()

    return run


def _accelerated(model: PeftModel, ways: Ways, rows: Sequence[Mapping[str, Any]]) -> Run:
    # Kernels that have to be compiled are tried at the first step, not here.
    steps = Steps(model, replace(ways, liger_kernel=False, torch_compile=False))
    given = [Row(row["input_ids"], row["labels"]) for row in rows]
    labels = sum(len(row.labels) for row in given)

    def run(between: Callable[[], None]) -> None:
        steps.train(given, labels, between=between)

    return run


def _timed(run: Run, device: str, *, saving: bool) -> float:
    """Return the seconds of a run, as training makes it where it saves memory."""
    start = time.perf_counter()
    run(lambda: give_back(device, saving=saving))
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@contextmanager
def _peak(device: str) -> Generator[list[int]]:
    """Give a list whose first number is the peak of memory once the block has ended."""
    found = [0]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield found
        found[0] = torch.cuda.max_memory_allocated()
        return
    process, over = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def look() -> None:
        while not over.wait(EVERY_S):
            found[0] = max(found[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
