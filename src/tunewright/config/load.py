"""From a YAML file and overrides to a Config, with all problems named at once."""

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from dotenv import load_dotenv

from tunewright.config.dialects import translated
from tunewright.config.overrides import apply, origin, without
from tunewright.config.paths import usable_path
from tunewright.config.schema import AGENTS, Config, TeamConfig
from tunewright.config.sources import ELSEWHERE
from tunewright.config.text import PRESET, Place, dumped, parse, preset_names, read_text
from tunewright.config.trees import section
from tunewright.config.validate import Given, validated
from tunewright.errors import TunewrightError, failure

__all__ = [
    "ELSEWHERE",
    "PRESET",
    "Loaded",
    "Note",
    "config_of_overrides",
    "config_of_source",
    "config_schema",
    "dump_config",
    "load",
    "load_config",
    "preset_names",
    "read_dotenv",
    "require_endpoint",
]

Note = Callable[[str], object]


@dataclass(frozen=True)
class Loaded:
    """A config and what there is to say about the file.

    Attributes:
        config: The config.
        dialect: Whose keys the file has, and why we think so; None for our own.
        notes: Keys that do nothing here, and what was understood in another way, a line each.
    """

    config: Config
    dialect: str | None
    notes: tuple[str, ...]


def load(source: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Return the config of a YAML file or `preset:NAME` in any dialect, with overrides applied.

    Overrides are `section.key=value` with our keys, whatever the dialect of the file.

    Raises:
        TunewrightError: E_NOT_FOUND, E_CONFIG_FILE, or every E_CONFIG_KEY and E_CONFIG_VALUE there is.
    """
    where = str(source)
    tree, lines = parse(read_text(source), where)
    if AGENTS in tree:
        raise _several(tree, where)
    found = translated(tree, lines, where)
    if found is None:
        places = {path: Given(f"{where}:{line}") for path, line in lines.items()}
        return Loaded(_with(tree, where, places, overrides), None, ())
    problems = found.problems
    try:
        config = _with(found.tree, where, found.places, overrides)
    except TunewrightError as error:
        raise TunewrightError((*problems, *error.problems)) from error
    if problems:
        raise TunewrightError(problems)
    return Loaded(config, found.dialect, found.notes)


def load_config(
    source: str | Path, overrides: Sequence[str] = (), *, note: Note = warnings.warn
) -> Config:
    """Return the config of a YAML file or `preset:NAME`, with `section.key=value` overrides applied.

    Args:
        source: The file, in our keys, those of a TRL script, or those of Axolotl.
        overrides: Values that come before those of the file.
        note: Is told each key of the other dialects that does nothing here.

    Raises:
        TunewrightError: E_NOT_FOUND, E_CONFIG_FILE, or every E_CONFIG_KEY and E_CONFIG_VALUE there is.
    """
    found = load(source, overrides)
    for text in found.notes:
        note(text)
    return found.config


def config_of_source(source: str, overrides: Sequence[str] = ()) -> Config:
    """Return a config that only names its data: for looking at a file before there is a config.

    Raises:
        TunewrightError: E_NAME, it cannot be a path; every E_CONFIG_KEY and E_CONFIG_VALUE in the overrides.
    """
    if not source.startswith(ELSEWHERE):
        usable_path(source)
    return _with({"prepare": {"source": source}}, source, {}, overrides)


def config_of_overrides(overrides: Sequence[str], where: str) -> Config:
    """Return a config of overrides alone; `where` names them where a message must.

    Raises:
        TunewrightError: Every E_CONFIG_KEY and E_CONFIG_VALUE there is.
    """
    return _with({"prepare": {}}, where, {}, overrides)


def _with(
    tree: dict[str, Any], where: str, given: Mapping[Place, Given], overrides: Sequence[str]
) -> Config:
    places = dict(given)
    for override in overrides:
        path = apply(tree, override)
        places = without(places, path) | {path: Given(origin(override))}
    return validated(tree, where, places)


def _several(tree: Mapping[str, Any], where: str) -> TunewrightError:
    """Return the error of who takes a config of several agents for one of a single run."""
    names = ", ".join(map(str, cast("Mapping[Any, Any]", section(tree, AGENTS)))) or "none"
    return failure(
        "E_USAGE",
        f"This config is of several agents ({names}), and one is needed here.",
        where=where,
        fix="Name the run of one of them, a folder such as runs/TEAM/AGENT.",
    )


def read_dotenv() -> None:
    """Read `.env` of the current folder into the environment; variables that are set stay.

    Raises:
        TunewrightError: E_CONFIG_FILE, it is not UTF-8.
    """
    try:
        load_dotenv(Path(".env"))
    except UnicodeDecodeError as error:
        raise failure("E_CONFIG_FILE", "It is not UTF-8 text.", where=".env") from error


def require_endpoint() -> None:
    """Refuse an HF_ENDPOINT at which the Hub's client cannot even be imported.

    Raises:
        TunewrightError: E_HUB.
    """
    try:
        urlsplit(os.environ.get("HF_ENDPOINT", ""))
    except ValueError as error:
        fix = "Unset HF_ENDPOINT, or write https://host."
        raise failure(
            "E_HUB", "HF_ENDPOINT is no address.", where="HF_ENDPOINT", fix=fix
        ) from error


def dump_config(config: Config) -> str:
    """Return the config as YAML, every default filled in."""
    return dumped(config.model_dump(mode="json"))


def config_schema() -> str:
    """Return the JSON schema of the config, of one run or of several agents."""
    schema = TeamConfig.model_json_schema()
    # What all agents share need not be a whole config.
    del schema["required"]
    schema["anyOf"] = [{"required": ["prepare"]}, {"required": [AGENTS]}]
    return json.dumps(schema, indent=2)
