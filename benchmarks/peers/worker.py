"""What every contender's process has in common: its task, its clock, what it tells.

A worker is started with a file of JSON (`Task`) and prints one line of JSON at its end. It may run under other
versions of the libraries than the rest, so that it uses only what they have had for long.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, TrainerCallback

ROWS_A_STEP = int(os.environ.get("TRAIN_SPEED_ROWS_A_STEP", "8"))
NO_CLIPPING = 1e9
"""The norm is computed and told, and nothing is ever scaled down to it."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        rows: File of its token rows, in their order.
        run: Folder that it may write into.
        out: File for what the adapter has become; empty: it is not kept.
    """

    rows: str
    run: str
    out: str


@dataclass(frozen=True)
class Task:
    """What a contender is to do.

    Attributes:
        base: Folder of the model.
        adapter: Folder of the adapter to begin with.
        jobs: Trainings, one after the other.
        steps: Of each.
        dtype: float32 or bfloat16, of the base.
        learning_rate: The same in all steps.
        seed: Of what is random.
        threads: Of torch.
        started: Unix time at which the process was started.
        flags: Of this contender.
    """

    base: str
    adapter: str
    jobs: Sequence[Job]
    steps: int
    dtype: str
    learning_rate: float
    seed: int
    threads: int
    started: float
    flags: Mapping[str, Any] = field(default_factory=dict)


def read_task() -> Task:
    """Return the task that the process was started with, and take its number of threads."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    task = Task(**given | {"jobs": [Job(**job) for job in given["jobs"]]})
    torch.set_num_threads(task.threads)
    return task


def read_rows(job: Job) -> list[dict[str, list[int]]]:
    """Return the token rows of a job."""
    return json.loads(Path(job.rows).read_text(encoding="utf-8"))


@dataclass
class Course:
    """What one training was like.

    Attributes:
        losses: Of each step.
        norm: Gradient norm of the first step.
        ends: Unix time at the end of each step, that of the beginning first.
        busy: Processor seconds at the same times.
        executed: Tokens that went through the embedding in training up to the same times.
    """

    losses: list[float] = field(default_factory=list[float])
    norm: float | None = None
    ends: list[float] = field(default_factory=list[float])
    busy: list[float] = field(default_factory=list[float])
    executed: list[int] = field(default_factory=list[int])

    def mark(self) -> None:
        """Note that a step, or the beginning, is over."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.time())
        self.busy.append(time.process_time())
        self.executed.append(Counted.tokens)


class Counted:
    """Counts tokens where they enter the model: padding is among them, a prefix that is shared counts once."""

    tokens = 0

    @classmethod
    def install(cls) -> None:
        """Begin to count."""
        plain = torch.nn.Embedding.forward

        def forward(self: torch.nn.Embedding, input: torch.Tensor) -> torch.Tensor:
            if self.training:
                cls.tokens += input.numel()
            return plain(self, input)

        torch.nn.Embedding.forward = forward


class Meter(TrainerCallback):
    """Fills a course; for trainers of Transformers and its kin."""

    def __init__(self, course: Course, out: str) -> None:
        self._course, self._out = course, out

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._course.mark()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the end of a step."""
        self._course.mark()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note loss and norm."""
        if "loss" not in logs:
            return
        self._course.losses.append(float(logs["loss"]))
        if self._course.norm is None:
            self._course.norm = float(logs["grad_norm"])

    def on_train_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Keep the adapter."""
        if self._out:
            keep_adapter(model, self._out)


def keep_adapter(model: Any, out: str) -> None:
    """Write what is trained, by the names of PEFT's files, in float32."""
    state = get_peft_model_state_dict(model)
    save_file({name: x.detach().float().contiguous().clone() for name, x in state.items()}, out)


def peak_memory() -> int:
    """Return the most bytes that this process has had resident; with a GPU, those that torch has had there."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage, it does not begin with what the parent had.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run(train: Callable[[Task, Job, Course], None]) -> None:
    """Run the task of this process and print what it was like."""
    task = read_task()
    Counted.install()
    courses: list[Course] = []
    for job in task.jobs:
        courses.append(Course())
        train(task, job, courses[-1])
    told = {
        "courses": [asdict(course) for course in courses],
        "cold_start_seconds": courses[0].ends[1] - task.started,
        "whole_seconds": time.time() - task.started,
        "peak_memory_bytes": peak_memory(),
        "versions": versions(),
    }
    sys.stdout.flush()
    print("\n" + json.dumps(told), flush=True)


def versions() -> dict[str, str]:
    """Return the versions of what is loaded here."""
    names = ("torch", "transformers", "peft", "trl", "llamafactory", "unsloth", "axolotl")
    loaded = {name: sys.modules.get(name) for name in names}
    return {n: str(m.__version__) for n, m in loaded.items() if m and hasattr(m, "__version__")}


def trained_model(task: Task) -> Any:
    """Return the base with the adapter, as PEFT's documentation shows."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = AutoModelForCausalLM.from_pretrained(
        task.base, dtype=getattr(torch, task.dtype), trust_remote_code=False
    )
    base.config.use_cache = False
    return PeftModel.from_pretrained(base, task.adapter, is_trainable=True).to(device)


def arguments(task: Task, job: Job) -> dict[str, Any]:
    """Return what each trainer of Transformers and its kin is told: the same mathematics, nothing beside it.

    Flags of the contender come last: `micro` is the number of rows of a forward pass.
    """
    flags = dict(task.flags)
    micro = flags.pop("micro", ROWS_A_STEP)
    return {
        "output_dir": job.run,
        "max_steps": task.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": ROWS_A_STEP // micro,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": NO_CLIPPING,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "seed": task.seed,
        "bf16": False,
        **flags,
    }
