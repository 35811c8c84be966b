"""Several agents in one config: what they share, and what each has of its own.

A config with `agents` holds options of all sections for all of them, and under each agent's name those that
are its own. Out of it comes a whole config for each agent.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunewright.config.names import check_name
from tunewright.config.overrides import Flag, apply, origin, without
from tunewright.config.schema import AGENTS, Config
from tunewright.config.text import Place, dotted, parse, read_text
from tunewright.config.trees import merged, section
from tunewright.config.validate import Given, validated
from tunewright.errors import Problem, TunewrightError

SHARED = ("name", "output_dir", AGENTS)
"""What an agent has none of its own of."""
RESERVED = ("base", "cross", "agents.json", "team.yaml")
"""What lies beside the runs of agents, and what they are compared with."""
BASE = ("model_name_or_path", "revision")
DEFAULT_NAME = "team"
"""Where the config has none."""
REPOSITORIES = ("hub_model_id", "hub_merged_id", "hub_gguf_id", "hub_dataset_id")
"""A repository that all are given: each agent gets one of its own, with its name added."""


@dataclass(frozen=True)
class Team:
    """Agents on one base.

    Attributes:
        run_dir: Folder in which each agent's run lies.
        configs: The whole config of each agent that is meant, by its name, in the order of the file.
        everyone: Likewise of all that there are.
        tree: What was given, overrides applied: plain values.
    """

    run_dir: str
    configs: Mapping[str, Config]
    everyone: Mapping[str, Config]
    tree: Mapping[str, Any]


def has_agents(source: str | Path) -> bool:
    """Return whether a YAML file or preset is a config of several agents.

    Raises:
        TunewrightError: E_NOT_FOUND, E_CONFIG_FILE, E_CONFIG_KEY.
    """
    return AGENTS in parse(read_text(source), str(source))[0]


def load_team(source: str | Path, overrides: Sequence[str] = ()) -> Team:
    """Return the agents of a YAML file with `agents`.

    An override is for all agents, and comes before what an agent has of its own; `agents.NAME.section.key=value`
    is for one.

    Raises:
        TunewrightError: E_NOT_FOUND, E_CONFIG_FILE, or every E_CONFIG_KEY and E_CONFIG_VALUE there is.
    """
    where = str(source)
    tree, lines = parse(read_text(source), where)
    places = {path: Given(f"{where}:{line}") for path, line in lines.items()}
    own = [one for one in overrides if one.startswith(f"{AGENTS}.")]
    for override in own:
        path = apply(tree, override)
        places = without(places, path) | {path: Given(origin(override))}
    shared = [one for one in overrides if one not in own]
    problems = _faults(tree, where, places)
    named = [one for one in shared if one.startswith("publish.agent=")]
    if named:
        fix = "Leave it out; the names are the keys of `agents`."
        message = "'publish.agent': each of `agents` is published under its own name."
        problems.append(Problem("E_CONFIG_KEY", message, origin(named[0]), fix))
    configs: dict[str, Config] = {}
    for name in () if problems else tree[AGENTS]:
        try:
            configs[name] = _config(name, tree, shared, where, places)
        except TunewrightError as error:
            problems += error.problems
    if problems:
        # What is wrong for all is wrong once.
        raise TunewrightError(dict.fromkeys(problems))
    first = next(iter(configs.values()))
    run_dir = str(Path(first.run_dir).parent)
    return Team(run_dir, configs, configs, _overridden(tree, shared))


def _faults(tree: Mapping[str, Any], where: str, places: Mapping[Place, Given]) -> list[Problem]:
    """Return a problem for every agent that is none, and for what does not stand where it belongs."""
    agents = tree.get(AGENTS)

    def problem(fault: _Fault) -> Problem:
        told = places[fault.place].where if fault.place in places else where
        message = f"'{dotted(fault.place)}': {fault.why}."
        return Problem(fault.code, message, told, fault.fix)

    if not isinstance(agents, dict) or not agents:
        why = "should be a mapping: each agent's name, and under it the options that are its own"
        fix = "agents: {critic: {prepare: {source: critic.jsonl}}}"
        return [problem(_Fault((AGENTS,), why, fix))]
    found = list(_misnamed(cast("dict[Any, Any]", agents)))
    for name, options in cast("dict[Any, Any]", agents).items():
        if isinstance(options, dict):
            found += _misplaced((AGENTS, str(name)), cast("dict[str, Any]", options))
        elif options is not None:
            fix = f"{name}: {{prepare: {{source: {name}.jsonl}}}}"
            found.append(_Fault((AGENTS, str(name)), "should be a mapping of options", fix))
    if "agent" in section(tree, "publish"):
        why = "each of `agents` is published under its own name"
        fix = "Delete it; the names are the keys of `agents`."
        found.append(_Fault(("publish", "agent"), why, fix, "E_CONFIG_KEY"))
    return [problem(fault) for fault in found]


@dataclass(frozen=True)
class _Fault:
    """What is wrong with a place, why, and what to do."""

    place: Place
    why: str
    fix: str
    code: str = "E_CONFIG_VALUE"


def _misnamed(agents: Mapping[Any, Any]) -> Iterator[_Fault]:
    """Yield what is wrong with the names of agents, which are names of folders."""
    seen: dict[str, str] = {}
    for given in agents:
        name = str(given)
        place, folded = (AGENTS, name), name.casefold()
        if not isinstance(given, str):
            why = f"YAML reads this name as {type(given).__name__}, not as text"
            yield _Fault(place, why, f'Write it in quotes: "{name}".')
            continue
        try:
            check_name(name)
        except ValueError as error:
            yield _Fault(place, str(error), "Letters, digits, dots, hyphens, underscores make one.")
            continue
        if folded in RESERVED:
            yield _Fault(place, "the folder of the agents needs this name", "Give it another one.")
        if folded in seen:
            why = f"this and '{seen[folded]}' are one folder on some systems"
            yield _Fault(place, why, "Give one of them another name.")
        seen[folded] = name


def _misplaced(agent: Place, options: Mapping[str, Any]) -> Iterator[_Fault]:
    """Yield everything that all agents share, and this one has of its own."""
    for key in SHARED:
        if key in options:
            why = f"an agent has no {key} of its own"
            fix = "Write it at the top level; each agent's run is OUTPUT_DIR/AGENT."
            yield _Fault((*agent, key), why, fix, "E_CONFIG_KEY")
    for key in BASE:
        if key in section(options, "model"):
            why = "the agents of a config share one base"
            fix = f"Write model.{key} at the top level, or a config of its own for this agent."
            yield _Fault((*agent, "model", key), why, fix, "E_CONFIG_KEY")


def _overridden(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the file with overrides in it: what is given for all, no agent has otherwise.

    Overrides that are no such thing raise their own error where the configs are made.
    """
    found = deepcopy(dict(tree))
    agents: dict[str, dict[str, Any]] = {name: own or {} for name, own in found[AGENTS].items()}
    found[AGENTS] = agents
    for override in overrides:
        path = apply(found, override)
        for own in agents.values():
            if path[:1] == ("publish",) and path[-1] in REPOSITORIES:
                # One that all are given is still made into one for each.
                section(own, "publish").pop(str(path[-1]), None)
            elif _has(own, path):
                apply(own, override)
    return found


def _has(own: Mapping[str, Any], path: Place) -> bool:
    """Return whether an agent has something of its own at a place, or above it."""
    node: Any = own
    for part in path:
        if not isinstance(node, dict):
            return True
        if part not in node:
            return False
        node = cast("dict[Any, Any]", node)[part]
    return True


def _config(
    agent: str,
    tree: Mapping[str, Any],
    overrides: Sequence[str],
    where: str,
    places: Mapping[Place, Given],
) -> Config:
    """Return the config of one agent.

    Raises:
        TunewrightError: Every E_CONFIG_KEY and E_CONFIG_VALUE there is.
    """
    shared = {key: deepcopy(value) for key, value in tree.items() if key != AGENTS}
    own: Mapping[str, Any] = deepcopy(tree[AGENTS][agent]) or {}
    found = merged(shared, own)
    told = {place: given for place, given in places.items() if place[0] != AGENTS}
    for place, given in places.items():
        if place[:2] == (AGENTS, agent) and len(place) > 2:
            told[place[2:]] = Given(given.where, dotted(place))
    for override in overrides:
        path = apply(found, override)
        told = without(told, path) | {path: Given(origin(override))}
    if "publish" not in found or isinstance(found["publish"], dict):
        forced = {
            key for key in REPOSITORIES if any(o.startswith(f"publish.{key}=") for o in overrides)
        }
        found["publish"] = _publishing(agent, found, set(section(own, "publish")) - forced)
    name = found.get("name", DEFAULT_NAME)
    folder = found.get("output_dir", Config.model_fields["output_dir"].default)
    if isinstance(name, str) and isinstance(folder, str):
        found["name"] = f"{name}-{agent}"
        found["output_dir"] = f"{folder.replace('{name}', name)}/{agent}"
    return validated(found, where, told)


def _publishing(agent: str, tree: Mapping[str, Any], own: Set[str]) -> dict[str, Any]:
    """Return the section `publish` of an agent: its names, unless it says other ones.

    Args:
        agent: Its name.
        tree: Its config.
        own: Keys of the section that are the agent's own.
    """
    found = {"agent": agent, "adapter": tree.get("name", DEFAULT_NAME)}
    found |= section(tree, "publish")
    for key in REPOSITORIES:
        if key not in own and isinstance(found.get(key), str):
            found[key] = f"{found[key]}-{agent}"
    return found


def for_agents(overrides: Sequence[str], agents: Sequence[str]) -> list[str]:
    """Return overrides that are for some agents only as their own; those of the name and folder stay for all."""
    return [
        one
        for override in overrides
        for one in (
            [override]
            if override.partition("=")[0].partition(".")[0] in (*SHARED, "model") or not agents
            else [_own(override, agent) for agent in agents]
        )
    ]


def _own(override: str, agent: str) -> str:
    own = f"{AGENTS}.{agent}.{override}"
    return Flag(own, override.flag) if isinstance(override, Flag) else own
