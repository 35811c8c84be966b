"""The stages as the fault tests run them: on a small run, and computing once what takes seconds."""

import functools
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import SAMPLES, SMALL

from tunewright.artifacts import Kind, load_artifact
from tunewright.config.load import dump_config, load_config

ROWS = 24
STAGES: dict[str, Kind] = {
    "prepare": "dataset",
    "check": "check",
    "plan": "plan",
    "compare": "evaluation",
    "merge": "merged",
    "export": "exported",
    "publish": "published",
}
"""All but train, which has its own tests, and what each makes."""
OPTIONS = [
    "prepare.eval_split=0.3",
    "train.num_train_epochs=1",
    "compare.num_prompts=4",
    "compare.max_new_tokens=8",
    "export.quantization=[Q8_0]",
    "publish.agent=tests",
]


def write_rows(file: Path) -> Path:
    """Return the file of a few rows that the run is made of, after writing it."""
    lines = (SAMPLES / "shell-helper.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def describe(folder: Path, rows: Path) -> Path:
    """Return the config file of a small run in this folder, after writing it."""
    places = [
        f"prepare.source={rows}",
        f"output_dir={folder / 'run'}",
        f"publish.store={folder / 'store'}",
    ]
    config = load_config("preset:demo", [*SMALL, *OPTIONS, *places])
    file = folder / "run.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    return file


def command_line(stage: str, folder: Path) -> list[str]:
    """Return the command that makes a stage of the run in this folder."""
    return [stage, str(folder / "run.yaml"), *(["--force"] if stage == "publish" else [])]


def quick(arguments: list[str], kept: Path, free_bytes: int | None = None) -> int:
    """Run a command, with what models compute taken from `kept` where it is there already.

    Every file is written as ever; only the numbers in them come from before.

    Args:
        arguments: Of the command.
        kept: Folder outside the run.
        free_bytes: What the disk says that it has left; None: the truth.
    """
    from tunewright.cli import main
    from tunewright.evaluate import _compare
    from tunewright.export import _export
    from tunewright.merge import _merge

    for module, names, is_value in (
        (_compare, ("_compared",), True),
        (_export, ("_proven",), True),
        (_merge, ("prove",), True),
        (_export, ("gather_evidence",), False),
    ):
        for name in names:
            setattr(module, name, _kept(getattr(module, name), kept, is_value=is_value))
    if free_bytes is not None:
        usage = shutil._ntuple_diskusage(2**40, 2**40, free_bytes)
        setattr(shutil, "disk_usage", lambda _: usage)  # noqa: B010 - another signature
    return main(arguments)


def _kept(function: Callable[..., Any], folder: Path, *, is_value: bool) -> Callable[..., Any]:
    """Return a function that computes each of its calls in turn once; what is no value is only skipped."""
    count = 0

    @functools.wraps(function)
    def stand_in(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        file = folder / f"{function.__name__}-{count}"
        if file.exists():
            return pickle.loads(file.read_bytes())
        value = function(*arguments, **options)
        file.write_bytes(pickle.dumps(value if is_value else None))
        return value

    return stand_in


def digests(folder: Path, stage: str) -> dict[str, str]:
    """Return the SHA-256 of every file that a stage has made, after checking each.

    What is published has no files of its own: those in the store count.
    """
    made = load_artifact(folder / "run" / STAGES[stage], STAGES[stage], verify=True)
    if stage != "publish":
        return dict(made.files)
    from tunewright.publish.versions import store

    names = [made.facts[key] for key in ("agent", "adapter", "version")]
    files = store.show(folder / "store", *names)["files"]
    return {name: entry["sha256"] for name, entry in files.items()}
