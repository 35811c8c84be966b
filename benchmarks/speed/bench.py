"""One shape and set: who is held against whom, and who takes turns."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file
from speed.contenders import CONTENDERS, FRUGAL, PLAIN, Contender, Flags
from speed.environments import interpreter
from speed.figures import REFUSED, Round, needed_flops, round_of, summary
from speed.parity import TOLERANCES, Tensors, Trained, faults
from speed.processes import Failed, Limits, work
from speed.rows import (
    ADAPTERS,
    ROWS,
    ROWS_EACH,
    SEED,
    SHAPES,
    Work,
    read_rows,
    rows_a_step,
    work_of,
)

LEARNING_RATE = 1e-3
PARITY_STEPS, TRIAL_STEPS = 20, 2


@dataclass(frozen=True)
class Bench:
    """One shape and set.

    Attributes:
        shape: Name.
        name: Of the set.
        base: Folder of the model.
        adapter: Folder of the adapter that all begin with.
        rows: Folder of the rows of each adapter.
        scratch: Folder for what processes write.
        args: Of the command.
        limits: Of each process.
    """

    shape: str
    name: str
    base: Path
    adapter: Path
    rows: Path
    scratch: Path
    args: argparse.Namespace
    limits: Limits

    @property
    def jobs(self) -> int:
        """Adapters that are trained."""
        return ADAPTERS if self.name == "C" else 1

    @property
    def most_steps(self) -> int:
        """Whole steps that the rows are enough for."""
        return (ROWS_EACH if self.name == "C" else ROWS) // rows_a_step()

    @property
    def steps(self) -> int:
        """Steps that are timed."""
        return min(self.args.steps, self.most_steps - 1)

    @property
    def parity_steps(self) -> int:
        """Steps that are compared: never fewer than run in a round."""
        wanted = self.args.parity_steps
        if wanted is None:
            cheap = self.shape == "small" and self.name != "B"
            wanted = PARITY_STEPS if cheap else 0
        return min(max(wanted, self.steps + 1), self.most_steps)

    def told(self, who: str, contender: Contender, flags: Flags, steps: int, keep: str) -> Any:
        """Run a contender and return what it tells; `keep` names files for its adapters, if it is given.

        Raises:
            Failed: It cannot be run, or ended badly.
        """
        if contender.gpu and not has_gpu():
            raise Failed("It needs a GPU, and there is none.")
        try:
            python = interpreter(contender.environment, self.args.cache)
        except RuntimeError as error:
            raise Failed(f"Its environment cannot be made: {error}") from error
        jobs: list[dict[str, str]] = []
        for number in range(self.jobs):
            folder = self.scratch / who / str(number)
            if not folder.exists():
                # Each has folders of its own: what is there of one would be in another's way.
                shutil.copytree(self.rows / str(number) / "run", folder)
            out = str(self.scratch / f"{keep}-{number}.safetensors") if keep else ""
            rows = self.rows / str(number) / "rows.json"
            jobs.append({"rows": str(rows), "run": str(folder), "out": out})
        task = {
            "base": str(self.base),
            "adapter": str(self.adapter),
            "jobs": jobs,
            "steps": steps,
            "dtype": self.args.dtype,
            "learning_rate": LEARNING_RATE,
            "seed": SEED,
            "threads": self.args.threads,
            "flags": dict(flags),
        }
        return work(python, contender.script, task, self.scratch / f"{who}-process", self.limits)

    def trained(self, told: Mapping[str, Any], keep: str) -> list[Trained]:
        """Return what of each training is compared."""
        return [
            Trained(
                course["losses"],
                course["norm"],
                load_file(self.scratch / f"{keep}-{number}.safetensors"),
            )
            for number, course in enumerate(told["courses"])
        ]


def has_gpu() -> bool:
    """Return whether there is an NVIDIA driver."""
    return shutil.which("nvidia-smi") is not None


def say(text: str) -> None:
    """Print how far it is."""
    print(text, file=sys.stderr, flush=True)


def chosen(bench: Bench, who: str, contender: Contender) -> tuple[Flags, dict[str, float]]:
    """Return the fastest variant of a contender, and the seconds a step of each.

    Raises:
        Failed: None can be run.
    """
    if len(contender.variants) == 1:
        return contender.variants[0], {}
    seconds: dict[str, float] = {}
    why, steps = "", min(TRIAL_STEPS, bench.steps)
    fitting = [one for one in contender.variants if one.get("micro", 1) <= rows_a_step()]
    if rows_a_step() == 1:
        # One row has no padding that other variants could leave out.
        fitting = [one for one in fitting if "micro" in one]
    for flags in (*fitting, contender.frugal):
        if flags is None or (flags is contender.frugal and seconds):
            continue
        try:
            told = bench.told(who, contender, flags, steps + 1, "")
        except Failed as error:
            why = str(error)
            continue
        seconds[json.dumps(flags)] = round_of(told).seconds / steps
        say(f"  {who} {json.dumps(flags)}: {seconds[json.dumps(flags)]:.2f} s a step")
    if not seconds:
        raise Failed(why)
    return json.loads(min(seconds, key=lambda name: seconds[name])), seconds


def judged(
    bench: Bench, who: str, contender: Contender, reference: Sequence[Trained], start: Tensors
) -> tuple[Flags, dict[str, Any]]:
    """Return the flags that a contender is to run with, and how its parity was; it raises if there is none.

    Raises:
        Failed: It cannot be run, or does not do the same.
    """
    flags, trials = chosen(bench, who, contender)
    own = bench.trained(bench.told(who, contender, flags, bench.parity_steps, who), who)
    wrong = [
        fault
        for mine, wanted in zip(own, reference, strict=True)
        for fault in faults(mine, wanted, start, TOLERANCES[bench.args.dtype])
    ]
    if wrong:
        raise Failed(f"It does not do the same: {'; '.join(dict.fromkeys(wrong))}.")
    told = {"flags": dict(flags), "seconds_a_step_of_variants": trials}
    return flags, told | {"losses": list(own[0].losses), "gradient_norm": own[0].norm}


def measured(bench: Bench, contenders: Mapping[str, Contender], gflops: float) -> dict[str, Any]:
    """Return the result of a shape and set.

    Raises:
        Failed: The reference itself cannot be run.
    """
    reference = _reference(bench)
    start = load_file(bench.adapter / "adapter_model.safetensors")
    found: dict[str, dict[str, Any]] = {}
    running: dict[str, Flags] = {}
    for who, contender in contenders.items():
        try:
            running[who], found[who] = judged(bench, who, contender, reference, start)
            say(f"  {who}: the same, {json.dumps(found[who]['flags'])}")
        except Failed as error:
            found[who] = {"status": REFUSED, "reason": str(error)}
            say(f"  {who}: {error}")
    rounds: dict[str, list[Round]] = {who: [] for who in running}
    for number in range(bench.args.rounds):
        for who, flags in running.items():
            try:
                told = bench.told(who, contenders[who], flags, bench.steps + 1, "")
            except Failed as error:
                found[who] |= {"reason": f"Round {number + 1}: {error}"}
                continue
            rounds[who].append(round_of(told))
            found[who]["versions"] = told["versions"]
            say(
                f"  round {number + 1}, {who}: {rounds[who][-1].seconds / bench.steps:.2f} s a step"
            )
    done = _work(bench)
    rank = json.loads((bench.adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    flops = needed_flops(SHAPES[bench.shape], done, rank)
    for who, several in rounds.items():
        given = summary(several, done, flops, gflops) if several else {"status": REFUSED}
        found[who] |= given
    facts = {
        "shape": bench.shape,
        "set": bench.name,
        "steps": bench.steps,
        "rounds": bench.args.rounds,
        "rows_a_step": rows_a_step(),
    }
    facts |= {"dtype": bench.args.dtype, "threads": bench.args.threads, "gflops": gflops}
    facts |= {
        "tolerances": asdict(TOLERANCES[bench.args.dtype]),
        "parity_steps": bench.parity_steps,
    }
    return {**facts, "tokens": done.tokens, "labels": done.labels, "contenders": found}


def _reference(bench: Bench) -> list[Trained]:
    """Return what plain Transformers trains; with gradient checkpointing, which is the same, where it lacks memory."""
    who, plain, steps = "reference", CONTENDERS[PLAIN], bench.parity_steps
    try:
        told = bench.told(who, plain, {}, steps, who)
    except Failed as error:
        say(f"  {who}: {error}; with gradient checkpointing")
        told = bench.told(who, plain, FRUGAL, steps, who)
    return bench.trained(told, who)


def _work(bench: Bench) -> Work:
    files = [bench.rows / str(number) / "rows.json" for number in range(bench.jobs)]
    each = [work_of(read_rows(file), 2, bench.steps + 1, rows_a_step()) for file in files]
    return reduce(add, each)
