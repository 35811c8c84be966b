"""Workers as processes: started, watched, heard."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PEERS = Path(__file__).parent.parent / "peers"
POLL_SECONDS = 0.25
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}


class Failed(Exception):
    """A process that did not end well; says why in one line."""


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Attributes:
        memory_bytes: Resident.
        seconds: In all.
    """

    memory_bytes: int
    seconds: float


def environment(threads: int, *, own: bool) -> dict[str, str]:
    """Return the variables of a process; `own`: it runs in the environment of Tunewright."""
    # Our sources are not for the libraries of others.
    kept = {name: value for name, value in os.environ.items() if own or name != "PYTHONPATH"}
    return {**kept, **QUIET, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def run(
    command: Sequence[str], folder: Path, limits: Limits, variables: Mapping[str, str]
) -> tuple[str, float]:
    """Run a process and return the last line that it has printed, and its seconds.

    Args:
        command: Program and arguments.
        folder: For what it prints.
        limits: Beyond them it is ended.
        variables: Its environment.

    Raises:
        Failed: It ended with an error, or was ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out, err, began = folder / "stdout", folder / "stderr", time.monotonic()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=dict(variables))
        try:
            why = _watched(process, limits)
        finally:
            process.kill()
            process.wait()
    seconds = time.monotonic() - began
    if why:
        raise Failed(why)
    if process.returncode:
        said = err.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Failed(f"it ended with exit code {process.returncode}: {said[-1][:300]}")
    lines = out.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "", seconds


def _watched(process: "subprocess.Popen[bytes]", limits: Limits) -> str:
    """Wait for the end of a process; return why it has to be ended before."""
    end = time.monotonic() + limits.seconds
    while process.poll() is None:
        if time.monotonic() > end:
            return f"it took more than {limits.seconds:.0f} s"
        try:
            resident = psutil.Process(process.pid).memory_info().rss
        except psutil.Error:
            resident = 0
        if resident > limits.memory_bytes:
            return f"it needs more than {limits.memory_bytes / 1e9:.1f} GB of memory"
        time.sleep(POLL_SECONDS)
    return ""


def work(
    python: Path, script: str, task: Mapping[str, Any], folder: Path, limits: Limits
) -> dict[str, Any]:
    """Run a worker and return what it tells.

    Args:
        python: Interpreter of its environment.
        script: File in peers/.
        task: Fields of `worker.Task` but `started`.
        folder: For task and output.
        limits: Of the process.

    Raises:
        Failed: See `run`; or it has told nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "task.json"
    file.write_text(json.dumps({**task, "started": time.time()}), encoding="utf-8")
    own = str(python) == sys.executable
    variables = environment(task["threads"], own=own)
    line, _ = run([str(python), str(PEERS / script), str(file)], folder, limits, variables)
    try:
        return json.loads(line)
    except ValueError as error:
        raise Failed(f"it ended without figures: {line[:200]}") from error
