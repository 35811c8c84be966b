"""From a YAML file and overrides to a Config, with all problems named at once."""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from dotenv import load_dotenv
from pydantic import BaseModel, ValidationError

from tunewright.config.paths import usable_path
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure

MAX_CONFIG_BYTES = 1_000_000
MAX_DEPTH = 20
SHOWN = 200
"""Characters of an override that a message shows."""
PRESET = "preset:"
CONFIG_SUFFIXES = (".yaml", ".yml")
ELSEWHERE = ("hub:", "sample:")
"""Sources that are no paths."""
Path_ = tuple[str | int, ...]


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a YAML file or `preset:NAME`, with `section.key=value` overrides applied.

    Raises:
        TunewrightError: E_NOT_FOUND, E_CONFIG_FILE, or every E_CONFIG_KEY and E_CONFIG_VALUE there is.
    """
    text, where = _read(source)
    tree, lines = _parse(text, where)
    places = {path: f"{where}:{line}" for path, line in lines.items()}
    for override in overrides:
        path = _apply(tree, override)
        places[path] = f"--set {override[:SHOWN]}"
    return _validate(tree, where, places)


def config_of_source(source: str, overrides: Sequence[str] = ()) -> Config:
    """Return a config that only names its data: for looking at a file before there is a config.

    Raises:
        TunewrightError: E_NAME, it cannot be a path; every E_CONFIG_KEY and E_CONFIG_VALUE in the overrides.
    """
    if not source.startswith(ELSEWHERE):
        usable_path(source)
    tree: dict[str, Any] = {"prepare": {"source": source}}
    places = {_apply(tree, override): f"--set {override[:SHOWN]}" for override in overrides}
    return _validate(tree, source, places)


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
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_schema() -> str:
    """Return the JSON schema of the config."""
    return json.dumps(Config.model_json_schema(), indent=2)


def preset_names() -> list[str]:
    """Return the names of the bundled presets."""
    folder = resources.files("tunewright.config") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def _read(source: str | Path) -> tuple[str, str]:
    where = str(source)
    if where.startswith(PRESET):
        name = where.removeprefix(PRESET)
        if name not in preset_names():
            raise failure(
                "E_NOT_FOUND",
                f"There is no preset '{name}'.",
                where=where,
                fix=f"Use one of: {', '.join(preset_names())}.",
            )
        return (
            resources.files("tunewright.config") / "presets" / f"{name}.yaml"
        ).read_text(), where
    path = usable_path(where)
    if not path.is_file():
        raise failure(
            "E_NOT_FOUND",
            "There is no such config file.",
            where=where,
            fix="Check the path, or start with `tunewright demo`.",
        )
    if path.suffix.lower() not in ("", *CONFIG_SUFFIXES):
        raise failure(
            "E_CONFIG_FILE",
            f"'{path.suffix}' is no config: a config is a YAML file.",
            where=where,
            fix=f"To look at data: tunewright check {where}. To use it, write a config with prepare.source.",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise failure("E_CONFIG_FILE", f"{error.strerror}.", where=where) from error
    if len(data) > MAX_CONFIG_BYTES:
        raise failure(
            "E_CONFIG_FILE", f"A config has at most {MAX_CONFIG_BYTES:,} bytes.", where=where
        )
    try:
        return data.decode("utf-8-sig"), where
    except UnicodeDecodeError as error:
        raise failure(
            "E_CONFIG_FILE",
            f"Byte {error.start} is not UTF-8.",
            where=where,
            fix="Save the file as UTF-8.",
        ) from error


def _parse(text: str, where: str) -> tuple[dict[str, Any], dict[Path_, int]]:
    """Return plain values and the line of every key; anchors and tags are refused."""
    lines: dict[Path_, int] = {}
    try:
        _require_plain(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        problems = list(_walk(node, (), where, lines))
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        message = str(getattr(error, "problem", None) or "cannot be read")
        raise failure(
            "E_CONFIG_FILE", f"Not valid YAML: {message}.", where=where + _line(mark)
        ) from error
    if problems:
        raise TunewrightError(problems)
    if not isinstance(tree, dict):
        raise failure(
            "E_CONFIG_FILE",
            "A config is a mapping of sections.",
            where=where,
            fix="See `tunewright config show preset:demo`.",
        )
    return cast("dict[str, Any]", tree), lines


def _require_plain(text: str) -> None:
    """Refuse what only an attack needs, before anything is built of it.

    Raises:
        yaml.MarkedYAMLError: It is not YAML, too deep, or uses aliases.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        mark: Any = event.start_mark
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        if isinstance(event, yaml.AliasEvent):
            message = "aliases (*name) are not used here, write the value out"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=mark)


def _line(mark: Any) -> str:
    return f":{mark.line + 1}" if mark else ""


def _walk(
    node: yaml.Node | None, path: Path_, where: str, lines: dict[Path_, int]
) -> list[Problem]:
    problems: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                message = "A key is a word, not a list or mapping."
                problems.append(
                    Problem("E_CONFIG_KEY", message, f"{where}:{line}", "Write key: value.")
                )
                continue
            child = (*path, key.value)
            if child in lines:
                problems.append(
                    Problem(
                        "E_CONFIG_KEY",
                        f"'{_dotted(child)}' is given twice.",
                        f"{where}:{line}",
                        f"Delete one; the other is on line {lines[child]}.",
                    )
                )
            lines[child] = line
            problems += _walk(value, child, where, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            problems += _walk(value, (*path, index), where, lines)
    return problems


def _apply(tree: dict[str, Any], override: str) -> Path_:
    """Set a value in the tree and return its place; a number in the key is that of a list's entry."""
    key, separator, value = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts) or len(parts) > MAX_DEPTH:
        raise failure(
            "E_USAGE",
            "An override is section.key=value.",
            where=f"--set {override[:SHOWN]}",
            fix="For example --set train.learning_rate=1e-4",
        )
    node: Any = tree
    path: list[str | int] = []
    for number, part in enumerate(parts):
        try:
            node, step = _entered(node, part, parts[:number])
            if number == len(parts) - 1:
                node[step] = _given(value)
            else:
                there = node[step] if isinstance(step, int) else node.get(step)
                node[step] = _opened(there, parts[: number + 1], parts[number + 1])
        except ValueError as error:
            raise failure("E_USAGE", f"{error}.", where=f"--set {override[:SHOWN]}") from error
        path.append(step)
        node = node[step]
    return tuple(path)


def _given(value: str) -> object:
    try:
        _require_plain(value)
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None)
        detail = f": {problem}" if problem else ""
        raise ValueError(f"The value is not valid YAML{detail}") from error


def _entered(node: object, part: str, before: Sequence[str]) -> tuple[Any, str | int]:
    """Return the section or list that a part of a key is in, and its key or number there."""
    shown = ".".join(before)
    if isinstance(node, list):
        entries = cast("list[Any]", node)
        last = len(entries) - 1
        if not part.isascii() or not part.isdigit() or int(part[:9]) > last:
            there = f"{shown}.0" + (f" to {shown}.{last}" if last > 0 else "")
            raise ValueError(f"'{shown}' is a list: name one of its entries, {there}")
        return entries, int(part)
    if isinstance(node, dict):
        return cast("dict[str, Any]", node), part
    raise ValueError(f"'{shown}' is a value, not a section")


def _opened(there: Any, place: Sequence[str], following: str) -> Any:
    """Return what is at a place, ready to be entered: a path that may be a mapping becomes one."""
    if there is None:
        return {}
    if place == ["prepare", "source"] and following.isdigit() and isinstance(there, str | dict):
        return [there]
    is_source = place[:2] == ["prepare", "source"] and len(place) < 4
    if isinstance(there, str) and (is_source or place == ["check", "against"]):
        return {"path": there}
    return there


def _validate(tree: Mapping[str, Any], where: str, places: Mapping[Path_, str]) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise TunewrightError(
            _problem(
                item["type"], tuple(item["loc"]), item["msg"], item.get("input"), where, places
            )
            for item in error.errors(include_url=False)
        ) from error


def _problem(
    kind: str, loc: Path_, message: str, given: object, where: str, places: Mapping[Path_, str]
) -> Problem:
    place = next((places[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in places), where)
    key = _dotted(loc)
    if kind == "extra_forbidden":
        known = _known_keys(loc[:-1])
        close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        fix = f"Did you mean '{close[0]}'?" if close else f"Known here: {', '.join(known)}."
        return Problem("E_CONFIG_KEY", f"'{key}' is not an option.", place, fix)
    if kind == "missing":
        return Problem(
            "E_CONFIG_VALUE", f"'{key}' is missing.", place, f"Add it, or --set {key}=..."
        )
    ours = message.removeprefix("Value error, ")
    wanted = (
        f"be {ours}" if ours != message else message.partition(" should ")[2] or f"be {message}"
    )
    got = f", not {_shown(given)}" if isinstance(given, str | int | float | bool | None) else ""
    return Problem("E_CONFIG_VALUE", f"'{key}': should {wanted}{got}.", place, _meaning(loc))


def _shown(given: object) -> str:
    text = ascii(given) if isinstance(given, str) and not given.isprintable() else repr(given)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _section(path: Path_) -> type[BaseModel] | None:
    section: type[BaseModel] = Config
    for part in path:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        kind: Any = field.annotation if field else None
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        section = kind
    return section


def _known_keys(path: Path_) -> list[str]:
    section = _section(path)
    return sorted(section.model_fields) if section else []


def _meaning(loc: Path_) -> str:
    section = _section(loc[:-1]) if loc else None
    field = section.model_fields.get(str(loc[-1])) if section else None
    return (field.description if field else None) or "See `tunewright config schema`."


def _dotted(path: Path_) -> str:
    return ".".join(map(str, path)) or "config"
