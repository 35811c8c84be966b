"""The command that looks whether a run is still what it was."""

from dataclasses import replace

import click

from tunewright.cli.options import JSON


@click.command()
@click.argument("target", metavar="RUN|CONFIG")
@JSON
def verify(target: str, as_json: bool) -> None:
    """Hash every file of a run again: artifacts and checkpoints are what they were when they were made.

    Example: tunewright verify runs/author
    """
    from tunewright.cli import render
    from tunewright.errors import TunewrightError
    from tunewright.targets import config_of, team_of
    from tunewright.verification import verify as look

    team = team_of(target)
    with render.progress() as listener:
        if team:
            found = [
                replace(one, name=f"{agent}/{one.name}")
                for agent, config in team.configs.items()
                for one in look(config, listener=listener)
            ]
        else:
            found = look(config_of(target), listener=listener)
    problems = [problem for one in found for problem in one.problems]
    details = {
        "verified": [{"name": o.name, "files": o.files, "whole": not o.problems} for o in found]
    }
    if problems:
        raise TunewrightError(problems, details)
    names = ", ".join(one.name for one in found)
    sentence = f"{sum(one.files for one in found)} files are as they were made: {names}."
    render.facts(details if as_json else {"whole": sentence}, as_json=as_json)
