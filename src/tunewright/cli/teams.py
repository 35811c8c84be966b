"""Commands on a config of several agents: each stage for all of them, and one table at the end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import click

from tunewright.config.team import Team

Function = Callable[..., Any]
SEEN_ALONE = ("prepare", "check", "plan")
"""Stages of which each agent's own figures are looked at, not how agents compare."""
AGENT = click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="NAME",
    help="Of a config with `agents`: only this one. May be repeated.",
)


def taken(target: str, overrides: Sequence[str], agents: Sequence[str]) -> Team | None:
    """Return the agents that are meant; None: the target has none.

    Raises:
        click.UsageError: Agents are named where there are none.
    """
    from tunewright.agents import only
    from tunewright.config.team import for_agents
    from tunewright.targets import team_of

    if not agents:
        return team_of(target, overrides)
    team = team_of(target)
    if team is None:
        raise click.UsageError("--agent names one of a config's `agents`, and this one has none.")
    only(team, agents)
    again = team_of(target, for_agents(overrides, agents))
    return only(again, agents) if again else None


def stage(team: Team, name: str, *, as_json: bool, **options: Any) -> None:
    """Do a stage for each agent, and print what is known of all.

    Raises:
        TunewrightError: Of all agents that failed.
    """
    from tunewright import agents, pipeline
    from tunewright.cli import render

    with render.progress() as listener:
        results = agents.run_stage(team, cast("pipeline.Stage", name), listener=listener, **options)
    if name in SEEN_ALONE and not as_json:
        for agent, result in results.items():
            if result.made is not None:
                click.echo()
                render.line(agent)
                render.artifact(result.made, as_json=False)
        agents.require_all(results, agents.summary(team, results))
        return
    _tell(team, results, as_json=as_json)


def run(
    team: Team, *, as_json: bool, answers: Mapping[Any, str], silent: bool, **options: Any
) -> None:
    """Do all stages for each agent, compare them, and print what is known of all.

    At a terminal the user is asked for each agent by its name, unless `silent`; `answers` hold for all of them.

    Raises:
        TunewrightError: Of all agents that failed.
    """
    from tunewright import agents, pipeline
    from tunewright.cli import render
    from tunewright.cli.asking import decider

    with render.progress() as listener:
        decides = pipeline.Given(answers, decider(listener, silent=silent or as_json))
        results = agents.run(team, decider=decides, listener=listener, **options)
    _tell(team, results, as_json=as_json)


def train_and_run(team: Team, *, as_json: bool, **options: Any) -> None:
    """Train each agent with these options, then do all other stages, and print what is known of all.

    Raises:
        TunewrightError: Of all agents that failed.
    """
    from tunewright import agents
    from tunewright.cli import render

    with render.progress() as listener:
        results = agents.train_and_run(team, listener=listener, **options)
    _tell(team, results, as_json=as_json)


def _tell(team: Team, results: Mapping[str, Any], *, as_json: bool) -> None:
    from tunewright import agents
    from tunewright.cli import render, team_view

    found = agents.summary(team, results)
    if not as_json:
        team_view.summary(found)
    agents.require_all(results, found)
    if as_json:
        render.facts(found, as_json=True)
