"""Several agents on one base: a stage for each of them, what became of each, and how they compare.

An agent that fails does not stop the others; what was wrong is told at the end, of all of them at once.
"""

import json
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock

from tunewright import jobs, pipeline
from tunewright.artifacts import Artifact, Kind, fsync, load_artifact, make_key
from tunewright.comparison import require_gates
from tunewright.config.schema import Config
from tunewright.config.team import Team
from tunewright.config.text import dumped
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.evaluate import compare_agents, cross_settings
from tunewright.events import SILENT, Listener, Named
from tunewright.machine import process_rank
from tunewright.models import weights_kept
from tunewright.publish import is_published
from tunewright.publish.versions.layout import store_root, version_path
from tunewright.pushing import push_after_run, require_ready
from tunewright.serve.starting import lines_of_agents
from tunewright.targets import TEAM_FILE

SUMMARY = "agents.json"
CROSS = "cross"
PHASES: tuple[pipeline.Stage, ...] = ("check", "plan", "train", "compare")
"""Stages to which all agents are brought before any goes on."""
ON_THE_BASE = ("train", "compare")
"""Stages in which agents share the weights of the base."""

T = TypeVar("T")


@dataclass(frozen=True)
class Result(Generic[T]):
    """What became of an agent.

    Attributes:
        made: What the work returned; None: it failed.
        error: What was wrong; None: nothing.
    """

    made: T | None
    error: TunewrightError | None = None


def only(team: Team, agents: Sequence[str]) -> Team:
    """Return a team with the named agents; all, where none is named.

    Raises:
        TunewrightError: E_NOT_FOUND for every name that is none of its agents.
    """
    known = ", ".join(team.configs)
    problems = [
        Problem("E_NOT_FOUND", f"There is no agent '{name}'.", "--agent", f"There are: {known}.")
        for name in agents
        if name not in team.configs
    ]
    if problems:
        raise TunewrightError(problems)
    chosen = {n: config for n, config in team.configs.items() if not agents or n in agents}
    return replace(team, configs=chosen)


def each(
    team: Team,
    work: Callable[[Config, Listener], T],
    *,
    looks: bool = False,
    listener: Listener = SILENT,
) -> dict[str, Result[T]]:
    """Return what became of each agent; one that fails does not stop the others.

    Args:
        team: The agents.
        work: What is done for each.
        looks: It only looks: the options are not kept as those of the agents.
        listener: Told how far it is.
    """
    if not looks or not (Path(team.run_dir) / TEAM_FILE).is_file():
        _remember(team)
    found: dict[str, Result[T]] = {}
    for agent, config in team.configs.items():
        named = Named(listener, agent)
        try:
            found[agent] = Result(work(config, named))
        except TunewrightError as error:
            named.said(f"failed: {error.problems[0].message}")
            found[agent] = Result(None, error)
    return found


def run_stage(
    team: Team, stage: pipeline.Stage, *, listener: Listener = SILENT, **options: Any
) -> dict[str, Result[Artifact]]:
    """Return what one stage makes for each agent; plan and training make a dataset that is not there.

    A comparison with a failed gate counts as failed, as its command does. After comparing, the agents are
    compared with each other; that failing is a result named `cross`.

    Args:
        team: The agents.
        stage: Its name.
        listener: Told how far it is.
        options: As pipeline.run_stage takes them.
    """

    def work(config: Config, named: Listener) -> Artifact:
        if stage in ("plan", "train"):
            dry_run = stage == "plan"
            return jobs.train_job(config, remake=False, dry_run=dry_run, listener=named, **options)[
                0
            ]
        made = pipeline.run_stage(config, stage, listener=named, **options)
        if stage == "compare":
            require_gates(made)
        return made

    with weights_kept() if stage in ON_THE_BASE else nullcontext():
        found = each(team, work, looks=stage in pipeline.ASIDE, listener=listener)
    well = {a: config for a, config in team.configs.items() if found[a].error is None}
    crossed = stage == "compare" and len(well) == len(team.configs)
    return found | (_cross(team, listener) if crossed else {})


def run(
    team: Team,
    *,
    until: pipeline.Stage | None = None,
    start: pipeline.Stage | None = None,
    only: Sequence[pipeline.Stage] = (),
    decider: pipeline.Decider = pipeline.SAFE,
    listener: Listener = SILENT,
) -> dict[str, Result[list[pipeline.Outcome]]]:
    """Return the outcomes of all stages of each agent, up to `until`; finished ones are skipped.

    All agents are brought to the same stage before any goes on, so that the weights of the base are read once
    for all trainings, and once for all comparisons. Once all are compared, they are compared with each other;
    that failing is a result named `cross`.

    Args:
        team: The agents.
        until: The last stage.
        start: As of pipeline.run; each agent is then gone through at once.
        only: Likewise.
        decider: Answers what only the user can know, for each agent; what is asked begins with its name.
        listener: Told how far it is.

    Raises:
        TunewrightError: E_USAGE, the choice of stages contradicts itself.
    """
    stages, anew = pipeline.chosen(until=until, start=start, only=only)
    phases: list[pipeline.Stage | None] = [
        phase for phase in PHASES if phase in stages and phase != until and not anew
    ]
    phases.append(until)
    uploads = not until and not only
    found: dict[str, Result[list[pipeline.Outcome]]] = {}
    crossed: dict[str, Result[Any]] = {}
    going, asked = team, {c.run_dir: a for a, c in team.configs.items()}
    for phase in phases:

        def work(
            config: Config, named: Listener, phase: pipeline.Stage | None = phase
        ) -> list[pipeline.Outcome]:
            if uploads:
                require_ready(config)
            asking = pipeline.OfAgent(asked[config.run_dir], decider)
            made = pipeline.run(
                config, until=phase, start=start, only=only, decider=asking, listener=named
            )
            if phase is None and uploads:
                push_after_run(config, listener=named)
            if phase == until == "compare":
                require_gates(made[-1].artifact)
            return made

        with weights_kept() if phase in ON_THE_BASE or anew else nullcontext():
            told = _Changes(listener, {one for result in found.values() for one in _done(result)})
            made = each(going, work, listener=told)
        for agent, result in made.items():
            found[agent] = _joined(found.get(agent), result)
        well = {a: config for a, config in going.configs.items() if made[a].error is None}
        going = replace(going, configs=well)
        if phase == "compare" or (anew and "compare" in stages):
            crossed |= _cross(going, listener)
    return found | crossed


def train_and_run(
    team: Team, *, listener: Listener = SILENT, **options: Any
) -> Mapping[str, Result[Any]]:
    """Return what became of each agent that is trained with these options, and then goes through all stages.

    One whose training fails goes no further. Of the processes of a launcher the first one goes on alone.

    Args:
        team: The agents.
        listener: Told how far it is.
        options: `resume`, `restart`, `allow_inexact`, as train takes them.
    """
    trained = run_stage(team, "train", listener=listener, **options)
    well = {a: config for a, config in team.configs.items() if trained[a].error is None}
    if process_rank() or not well:
        return trained
    return trained | run(replace(team, configs=well), listener=listener)


def _done(result: Result[list[pipeline.Outcome]]) -> list[str]:
    return [one.stage for one in result.made or ()]


class _Changes:
    """A listener that is not told again which stages an earlier phase has done."""

    def __init__(self, listener: Listener, stages: Set[str]) -> None:
        self._listener = listener
        self._known = tuple(f"{stage}: {pipeline.SKIPPED}" for stage in stages)

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """Pass it on."""
        self._listener.started(stage, total, unit)

    def advanced(self, done: int, detail: str) -> None:
        """Pass it on."""
        self._listener.advanced(done, detail)

    def said(self, text: str) -> None:
        """Pass it on if it is new."""
        if not text.endswith(self._known or ("\0",)):
            self._listener.said(text)


def _joined(
    before: Result[list[pipeline.Outcome]] | None, now: Result[list[pipeline.Outcome]]
) -> Result[list[pipeline.Outcome]]:
    """Return an agent's outcomes after one more phase: what was made in an earlier one was not skipped."""
    refused = now.error if isinstance(now.error, pipeline.EndedError) else None
    new = list(refused.outcomes) if refused else now.made or []
    old = {one.stage: one for one in (before.made or [] if before else [])}
    fresh = [old.pop(one.stage, one) for one in new]
    return Result(fresh or list(old.values()), now.error)


def _cross(team: Team, listener: Listener) -> dict[str, Result[Any]]:
    """Compare the agents with each other, and return the failure if it is one."""
    try:
        if not process_rank():
            cross(team, listener=listener)
    except TunewrightError as error:
        return {CROSS: Result(None, error)}
    return {}


def cross(team: Team, *, listener: Listener = SILENT) -> Artifact | None:
    """Return how each agent's adapter does on every agent's data; None where fewer than two are trained.

    One that was made from the same datasets and adapters is taken as it is.

    Raises:
        TunewrightError: As evaluate.compare_agents does.
    """
    ready, datasets, adapters = _ready(team)
    if len(ready) < 2:
        return None
    path = Path(team.run_dir) / CROSS
    return current_cross(team) or compare_agents(ready, datasets, adapters, path, listener=listener)


def current_cross(team: Team) -> Artifact | None:
    """Return the comparison of agents with each other that is there, if it is of what they are now."""
    ready, datasets, adapters = _ready(team)
    digests = {f"{agent}/dataset": one.digest for agent, one in datasets.items()}
    digests |= {f"{agent}/adapter": one.digest for agent, one in adapters.items()}
    try:
        made = load_artifact(Path(team.run_dir) / CROSS, CROSS, verify=True)
    except TunewrightError:
        return None
    return made if made.key == make_key(CROSS, cross_settings(ready), digests) else None


def _ready(team: Team) -> tuple[dict[str, Config], dict[str, Artifact], dict[str, Artifact]]:
    """Return config, dataset and adapter of all agents that are trained, also those that are not meant now."""
    found = {agent: _present(config) for agent, config in team.everyone.items()}
    ready = {
        agent: config
        for agent, config in team.everyone.items()
        if {"dataset", "adapter"} <= found[agent].keys()
    }
    return (
        ready,
        {agent: found[agent]["dataset"] for agent in ready},
        {agent: found[agent]["adapter"] for agent in ready},
    )


def summary(team: Team, results: Mapping[str, Result[Any]]) -> dict[str, Any]:
    """Return what is known of each agent, how they compare, and how they are started, and keep it.

    Args:
        team: The agents; all that there are are told of.
        results: Of the command, for those that failed in it.
    """
    agents: dict[str, Any] = {}
    for agent, config in team.everyone.items():
        failed = results[agent].error if agent in results else None
        agents[agent] = _figures(config) | {
            "run": config.run_dir,
            "failed": failed.problems[0].message if failed else None,
        }
    found: dict[str, Any] = {"agents": agents, "start": _start(team)}
    crossed = current_cross(team)
    if crossed is not None:
        found["cross"] = dict(crossed.facts)
    if not process_rank():
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        _write(Path(team.run_dir) / SUMMARY, text)
    return found


def require_all(results: Mapping[str, Result[Any]], found: Mapping[str, Any] | None = None) -> None:
    """Refuse results of which one has failed: every problem with its agent's name; the details are the summary.

    Raises:
        TunewrightError: Of all agents that failed.
    """
    problems = [
        replace(problem, message=f"{agent}: {problem.message}")
        for agent, result in results.items()
        if result.error
        for problem in result.error.problems
    ]
    if problems:
        raise TunewrightError(problems, found)


def _figures(config: Config) -> dict[str, Any]:
    made = _present(config)
    facts = {kind: artifact.facts for kind, artifact in made.items()}
    gates = [gate for one in facts.values() for gate in one.get("gates", ())]
    evaluated = facts.get("evaluation", {})
    score = evaluated.get("transfer_score", {})
    heldout = (evaluated.get("perplexity") or {}).get("heldout")
    return {
        "rows": facts.get("dataset", {}).get("train_rows"),
        "heldout_rows": facts.get("dataset", {}).get("eval_rows"),
        "best_eval_loss": facts.get("adapter", {}).get("best_eval_loss"),
        "transfer_score": score if score.get("score") is not None else None,
        "perplexity_ratio": heldout["ratio"] if heldout else None,
        "verdict": evaluated.get("verdict"),
        "gates_passed": sum(bool(gate["passed"]) for gate in gates),
        "gates": len(gates),
        "version": facts.get("published", {}).get("version"),
    }


def _present(config: Config) -> dict[Kind, Artifact]:
    """Return the artifacts of an agent; none where they cannot be read, which its own commands say."""
    try:
        return pipeline.present(config)
    except TunewrightError:
        return {}


def _start(team: Team) -> list[str]:
    """Return the commands that start what the agents have, in words and lines."""
    adapters: dict[str, Path] = {}
    modelfiles: dict[str, Path] = {}
    for agent, config in team.everyone.items():
        made = _present(config)
        if "published" in made and is_published(config, made["published"]):
            facts = made["published"].facts
            names = (facts["agent"], facts["adapter"], facts["version"])
            adapters[agent] = version_path(store_root(config), *names) / "adapter"
        elif "adapter" in made:
            adapters[agent] = made["adapter"].path
        if "exported" in made and "Modelfile" in made["exported"].files:
            modelfiles[agent] = made["exported"].path / "Modelfile"
    return lines_of_agents(team.everyone, adapters, modelfiles)


def _remember(team: Team) -> None:
    """Write what the agents are into their folder, so that later commands need only the folder."""
    if not process_rank():
        _write(Path(team.run_dir) / TEAM_FILE, dumped(team.tree))


def _write(file: Path, text: str) -> None:
    """Write a file whole.

    Raises:
        TunewrightError: E_IO.
    """
    draft = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # One name, so that what a killed process left is written over; the lock keeps two apart.
        with FileLock(file.with_name(f".{file.name}.lock")):
            draft.write_text(text, encoding="utf-8")
            fsync(draft)
            draft.replace(file)
    except OSError as error:
        raise failure("E_IO", f"{error.strerror}.", where=file) from error
