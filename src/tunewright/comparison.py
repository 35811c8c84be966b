"""Comparisons beside a run's own: of a checkpoint, a merged model, a GGUF file, or two endpoints."""

import re
from collections.abc import Sequence
from pathlib import Path

from tunewright import pipeline
from tunewright.artifacts import MANIFEST, Artifact
from tunewright.config.addresses import fault_of_endpoint
from tunewright.config.load import config_of_source
from tunewright.config.names import usable_name
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.evaluate import (
    Endpoints,
    GgufFile,
    ModelFolder,
    Other,
    compare,
)
from tunewright.evaluate.verdict import FAULTS
from tunewright.events import SILENT, Listener
from tunewright.targets import config_of, is_described

ADAPTER = "adapter"
_LOWER = "Train longer, add text, or raise `train.lora.r`; or ask for less: `--set compare.fail_under=null` asks for nothing."
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def compare_any(
    target: str,
    overrides: Sequence[str] = (),
    *,
    tuned: str = ADAPTER,
    endpoints: Endpoints | None = None,
    listener: Listener = SILENT,
) -> Artifact:
    """Return the evaluation of what is named.

    Args:
        target: A config or a run; with endpoints also a file of prompts.
        overrides: `key=value` over the config.
        tuned: `adapter`, `checkpoint-N`, `merged`, an exported type such as `Q8_0`, a GGUF file or a model folder.
            Only the adapter's evaluation is that of the run; others are written to its `comparisons/`.
        endpoints: Compared in place of base and tuned.
        listener: Told how far it is.

    Raises:
        TunewrightError: E_USAGE, the choices do not go together. E_NOT_FOUND, there is no such model.
            E_ARTIFACT_MISSING, what is to be compared is not made yet; else as `compare`.
    """
    described = is_described(target)
    if not described and not Path(target).is_file():
        message = "There is no such config, run, or file of prompts."
        if Path(target).is_dir():
            message = "The folder is not a run: it has no run.yaml."
        raise failure("E_NOT_FOUND", message, where=target)
    problems = _misuse(overrides, described=described, tuned=tuned, endpoints=endpoints)
    if problems:
        raise TunewrightError(problems)
    if not described:
        own = (f"compare.prompts_file={target}", f"name={_name(target)}")
        config = config_of_source(target, [*own, *overrides])
        return compare(config, None, None, other=endpoints, listener=listener)
    config = config_of(target, overrides, note=listener.said)
    if tuned == ADAPTER and endpoints is None:
        return pipeline.run_stage(config, "compare", listener=listener)
    what = "two endpoints" if endpoints else tuned
    with pipeline.logged(config, f"compare of {what}", listener) as log:
        return _beside(config, tuned, endpoints, log.listener)


def _beside(
    config: Config, tuned: str, endpoints: Endpoints | None, listener: Listener
) -> Artifact:
    """Return the evaluation of something else than a run's own adapter."""
    if endpoints:
        return compare(config, _dataset(config, listener), None, other=endpoints, listener=listener)
    found = pipeline.loaded(config, ["dataset", "adapter"], listener=listener)
    other = _other(config, tuned, found["adapter"], listener)
    return compare(config, found["dataset"], found["adapter"], other=other, listener=listener)


def require_gates(made: Artifact) -> None:
    """Refuse an evaluation of which a gate has failed; the error's details are the evaluation.

    Raises:
        TunewrightError: E_GATE_VERDICT.
    """
    failed = [gate["gate"] for gate in made.facts["gates"] if not gate["passed"]]
    if failed:
        verdict = made.facts["verdict"]
        message = f"The verdict is {verdict}; failed: {'; '.join(failed)}."
        fix = made.facts["advice"] if verdict in FAULTS else _LOWER
        problem = Problem("E_GATE_VERDICT", message, str(made.path), fix)
        details = {"path": str(made.path), "kind": made.kind, "facts": made.facts}
        raise TunewrightError([problem], details)


def _misuse(
    overrides: Sequence[str], *, described: bool, tuned: str, endpoints: Endpoints | None
) -> list[Problem]:
    """Return a problem for everything that does not go together."""
    problems: list[Problem] = []
    if endpoints and tuned != ADAPTER:
        message = "Endpoints are compared with each other: --tuned names nothing then."
        problems.append(Problem("E_USAGE", message, "--tuned", "Leave one of them out."))
    prompts = [override for override in overrides if override.startswith("compare.prompts_file=")]
    if not described and prompts:
        message = "Prompts are named twice: as what is compared, and as more prompts."
        problems.append(Problem("E_USAGE", message, "--prompts", "Put them into one file."))
    if not described and endpoints is None:
        message = "A file of prompts can be compared on endpoints only."
        fix = "Give --baseline-url and --tuned-url, or name a config or a run."
        problems.append(Problem("E_USAGE", message, "tunewright compare", fix))
    if endpoints:
        for flag, url in (
            ("--baseline-url", endpoints.baseline_url),
            ("--tuned-url", endpoints.tuned_url),
        ):
            fault = fault_of_endpoint(url)
            if fault:
                problems.append(Problem("E_USAGE", "This is no endpoint.", flag, f"Give {fault}."))
    return problems


def _name(target: str) -> str:
    """Return the name of what has no config: that of its file."""
    return usable_name(Path(target).stem) or "prompts"


def _dataset(config: Config, listener: Listener) -> Artifact | None:
    folder = Path(config.run_dir) / "dataset"
    if not (folder / MANIFEST).is_file():
        listener.said(
            f"There is no dataset in {config.run_dir}: only prompts of your own are asked, and there is no score."
        )
        return None
    return pipeline.loaded(config, ["dataset"], listener=listener)["dataset"]


def _other(config: Config, tuned: str, adapter: Artifact, listener: Listener) -> Other:
    """Return what a name stands for.

    Raises:
        TunewrightError: E_NOT_FOUND, for nothing; E_ARTIFACT_MISSING, it is not made yet.
    """
    step = _CHECKPOINT.fullmatch(tuned)
    if step:
        return pipeline.checkpoint_of(config, adapter, int(step[1]))
    if tuned == "merged":
        return ModelFolder(
            pipeline.loaded(config, ["merged"], listener=listener)["merged"].path, tuned
        )
    path = Path(tuned)
    if path.suffix == ".gguf" and path.is_file():
        return GgufFile(path, path.stem)
    if (path / "config.json").is_file():
        return ModelFolder(path, path.name)
    there = " Nothing is exported yet."
    if (Path(config.run_dir) / "exported" / MANIFEST).is_file():
        exported = pipeline.loaded(config, ["exported"], listener=listener)["exported"]
        files = exported.facts["files"]
        if tuned in files:
            return GgufFile(exported.path / files[tuned]["file"], tuned)
        there = f" Exported are {', '.join(files)}."
    raise failure(
        "E_NOT_FOUND",
        f"'{tuned}' is no model that can be compared.{there}",
        where="--tuned",
        fix="Name `adapter`, `checkpoint-N`, `merged`, an exported type, a .gguf file, or a model folder.",
    )
