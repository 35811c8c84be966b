"""Training as job launchers start it: from flags alone, the dataset made on the way."""

import json
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from tunewright import pipeline
from tunewright.artifacts import MANIFEST, Artifact
from tunewright.config.load import config_of_overrides
from tunewright.config.names import usable_name
from tunewright.config.overrides import Flag
from tunewright.config.paths import usable_path
from tunewright.config.schema import Config
from tunewright.config.sources import ELSEWHERE, source_path
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import SILENT, Listener
from tunewright.machine import process_count, process_rank

OPTIONS: Mapping[str, str] = {
    "agent": "publish.agent",
    "adapter_name": "publish.adapter",
    "adapter_version": "publish.version",
    "model_name_or_path": "model.model_name_or_path",
    "max_train_samples": "train.max_train_samples",
    "output_dir": "output_dir",
    "epochs": "train.num_train_epochs",
    "train_batch_size": "train.per_device_train_batch_size",
    "gradient_accumulation": "train.gradient_accumulation_steps",
    "adapter_r": "train.lora.r",
    "adapter_alpha": "train.lora.lora_alpha",
}
"""Flags of a job, and the options that they stand for."""

_MAGIC = re.compile(r"[*?\[]")
_STARS = re.compile(r"\*{2,}")


def job_overrides(flags: Mapping[str, Any]) -> list[Flag]:
    """Return the flags of a job that were given as overrides.

    `train_files` (paths and patterns) and `dataset_name` become the sources; `prompt_template` is a
    template with fields in braces, a text file that holds one, or a chat template.

    Raises:
        TunewrightError: E_NOT_FOUND, a pattern that matches nothing; E_CONFIG_VALUE, one that is none; each named.
    """
    found = [
        _flag(OPTIONS[name], value, name)
        for name, value in flags.items()
        if name in OPTIONS and value is not None
    ]
    sources = _sources(flags.get("train_files") or (), flags.get("dataset_name"))
    if sources:
        name = "train_files" if flags.get("train_files") else "dataset_name"
        found.append(_flag("prepare.source", sources, name))
    template = flags.get("prompt_template")
    if template is not None:
        found.append(_template(template))
    return found


def _flag(option: str, value: Any, name: str) -> Flag:
    return Flag(f"{option}={json.dumps(value)}", f"--{name.replace('_', '-')}")


def _sources(patterns: Sequence[str], dataset: str | None) -> list[str]:
    paths: list[str] = []
    problems: list[Problem] = []
    for pattern in patterns:
        try:
            paths += [path for path in _matched(pattern) if path not in paths]
        except TunewrightError as error:
            problems += error.problems
    if dataset is not None and not dataset.strip():
        message, fix = "The name of the dataset is empty.", "Name a dataset, or leave the flag out."
        problems.append(Problem("E_CONFIG_VALUE", message, "--dataset-name", fix))
    if problems:
        raise TunewrightError(problems)
    return paths if dataset is None else [*paths, source_path(dataset)]


def _matched(pattern: str) -> list[str]:
    """Return what a pattern matches in order; what is no pattern is taken as it is.

    Raises:
        TunewrightError: E_NOT_FOUND, it matches nothing. E_CONFIG_VALUE, it is none. E_NAME.
    """
    where = "--train-files"
    if not pattern.strip():
        message, fix = "The path is empty.", "Name a file, a folder or a pattern."
        raise failure("E_CONFIG_VALUE", message, where=where, fix=fix)
    if source_path(pattern).startswith(ELSEWHERE):
        return [source_path(pattern)]
    path = usable_path(pattern)
    if path.exists() or not _MAGIC.search(pattern):
        return [pattern]
    parts = [part if part == "**" else _STARS.sub("*", part) for part in path.parts]
    if list(path.parts) != parts:
        meant = Path(*(p if p == q else f"**/{q}" for p, q in zip(path.parts, parts, strict=True)))
        message = f"{pattern!a} is no pattern; `**` stands alone: {meant}."
        raise failure("E_CONFIG_VALUE", message, where=where, fix=f"--train-files '{meant}'")
    root = Path(path.anchor)
    matched = sorted(str(found) for found in root.glob(str(path.relative_to(path.anchor))))
    if not matched:
        fix = "Check the pattern; quote it if the shell is not to expand it."
        raise failure("E_NOT_FOUND", f"No file matches {pattern!a}.", where=where, fix=fix)
    return matched


def _template(given: str) -> Flag:
    """Return what `--prompt-template` sets: a template's text, or the name or file of a chat template."""
    if "{" in given and not given.endswith(".jinja"):
        return _flag("prepare.prompt_template", given, "prompt_template")
    path = usable_path(given)
    if path.suffix in (".txt", ".md", ".template") and path.is_file():
        try:
            text = path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            message, fix = f"{given!a} is not UTF-8.", "Save the file as UTF-8."
            raise failure("E_CONFIG_VALUE", message, where="--prompt-template", fix=fix) from error
        return _flag("prepare.prompt_template", text, "prompt_template")
    return _flag("model.chat_template", given, "prompt_template")


def job_config(flags: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Return the config of a job that has no config file; the run is named after agent and adapter.

    Raises:
        TunewrightError: E_CONFIG_VALUE, no data is named; else as job_overrides and load_config do.
    """
    parts = [flags[key] for key in ("agent", "adapter_name") if flags.get(key)]
    name = usable_name("-".join(parts)) if parts else None
    named = [_flag("name", name, "agent" if flags.get("agent") else "adapter_name")] if name else []
    return config_of_overrides([*named, *job_overrides(flags), *overrides], "train without CONFIG")


def train_job(
    config: Config,
    *,
    remake: bool,
    dry_run: bool = False,
    publish: bool = False,
    listener: Listener = SILENT,
    **options: Any,
) -> tuple[Artifact, list[pipeline.Outcome]]:
    """Return what training made, or its plan, and the outcomes of the stages after it.

    A dataset that is not there is made and checked first.

    Args:
        config: The job.
        remake: An outdated dataset is made again; false: it is refused.
        dry_run: Stop at the plan.
        publish: Go on: compare, merge, export, publish, report.
        listener: Is told the progress.
        options: What `run_stage` takes for the plan or the training.

    Raises:
        TunewrightError: As the stages do.
    """
    run_dir = Path(config.run_dir)
    with _alone(run_dir):
        if dry_run or remake or not (run_dir / "dataset" / MANIFEST).is_file():
            pipeline.run(config, until="check", listener=listener)
        if dry_run:
            return pipeline.run_stage(config, "plan", listener=listener, **options), []
    made = pipeline.run_stage(config, "train", listener=listener, **options)
    if not publish or process_rank():
        return made, []
    return made, pipeline.run(config, listener=listener)


@contextmanager
def _alone(run_dir: Path) -> Generator[None]:
    """Let the processes of a launcher through one by one: the first does the work, the others find it done."""
    if process_count() == 1:
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(run_dir / ".job.lock"):
        yield
