"""What commands are told to work on: a config, a preset, a run, or data."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from tunewright.artifacts import Kind
from tunewright.config.load import ELSEWHERE, PRESET, Note, load_config
from tunewright.config.paths import usable_path
from tunewright.config.schema import Config
from tunewright.config.team import Team, has_agents, load_team
from tunewright.config.text import CONFIG_SUFFIXES
from tunewright.errors import failure

CONFIG_FILE = "run.yaml"
"""The config of a run, in its folder."""
TEAM_FILE = "team.yaml"
"""The config of several agents, in the folder in which their runs are."""


def team_of(target: str, overrides: Sequence[str] = ()) -> Team | None:
    """Return the agents of a config that has several, or of the folder in which their runs are; None: it has none.

    Raises:
        TunewrightError: E_NAME, E_NOT_FOUND, E_CONFIG_FILE; else as load_team does.
    """
    if target.startswith(ELSEWHERE):
        return None
    if target.startswith(PRESET):
        return load_team(target, overrides) if has_agents(target) else None
    path = usable_path(target)
    if path.suffix in CONFIG_SUFFIXES and path.is_file():
        return load_team(path, overrides) if has_agents(path) else None
    if not (path / TEAM_FILE).is_file():
        return None
    team = load_team(path / TEAM_FILE, overrides)
    if any(one.startswith("output_dir=") for one in overrides):
        return team
    # As of a run: the folder may have been moved or may be named from elsewhere.
    configs = {
        agent: config.model_copy(update={"output_dir": str(path / agent)})
        for agent, config in team.configs.items()
    }
    return replace(team, run_dir=str(path), configs=configs, everyone=configs)


def is_described(target: str) -> bool:
    """Return whether a target is a config, a preset, a run, or the folder of several, and not data.

    Raises:
        TunewrightError: E_NAME, it cannot be a path.
    """
    if target.startswith((PRESET, *ELSEWHERE)):
        return target.startswith(PRESET)
    path = usable_path(target)
    is_team = (path / TEAM_FILE).is_file()
    return path.suffix in CONFIG_SUFFIXES or is_team or _run_folder(path) is not None


def _run_folder(path: Path) -> Path | None:
    """Return the run that a folder is, or that a stage's folder is in."""
    here = path.absolute()
    folders = (path, here.parent) if here.name in get_args(Kind) else (path,)
    is_folder = path.is_dir()
    return next((f for f in folders if is_folder and (f / CONFIG_FILE).is_file()), None)


def config_of(target: str, overrides: Sequence[str] = (), *, note: Note = warnings.warn) -> Config:
    """Return the config of a config file, a preset, a run folder, or a stage's folder in it.

    `note` is told each key of another tool's config that does nothing here.

    Raises:
        TunewrightError: E_NOT_FOUND, it is none of these; else as load_config does.
    """
    if target.startswith(PRESET) or not usable_path(target).is_dir():
        return load_config(target, overrides, note=note)
    folder = _run_folder(usable_path(target))
    if folder is not None:
        config = load_config(folder / CONFIG_FILE, overrides)
        # The folder may have been moved or may be named from elsewhere: it is where it was found.
        elsewhere = any(o.startswith("output_dir=") for o in overrides)
        return config if elsewhere else config.model_copy(update={"output_dir": str(folder)})
    if (usable_path(target) / TEAM_FILE).is_file():
        agents = list(load_team(usable_path(target) / TEAM_FILE).configs)
        message = f"The folder holds the runs of several agents ({', '.join(agents)})."
        raise failure(
            "E_USAGE", message, where=target, fix=f"Name one: {usable_path(target) / agents[0]}"
        )
    raise failure(
        "E_NOT_FOUND",
        "The folder is not a run: it has no run.yaml.",
        where=target,
        fix="Name a config file, or a folder that `tunewright run` has made.",
    )
