"""From a YAML file and overrides to a Config, with all problems named at once."""

import difflib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import yaml
from dotenv import load_dotenv
from pydantic import BaseModel, ValidationError

from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure

MAX_CONFIG_BYTES = 1_000_000
MAX_DEPTH = 20
PRESET = "preset:"
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
        places[path] = f"--set {override}"
    return _validate(tree, where, places)


def config_of_source(source: str, overrides: Sequence[str] = ()) -> Config:
    """Return a config that only names its data: for looking at a file before there is a config.

    Raises:
        TunewrightError: Every E_CONFIG_KEY and E_CONFIG_VALUE in the overrides.
    """
    tree: dict[str, Any] = {"prepare": {"source": source}}
    places = {_apply(tree, override): f"--set {override}" for override in overrides}
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
    path = Path(source)
    if not path.is_file():
        raise failure(
            "E_NOT_FOUND",
            "There is no such config file.",
            where=where,
            fix="Check the path, or start with `tunewright demo`.",
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
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise failure(
                    "E_CONFIG_FILE", "Nested too deeply.", where=where + _line(event.start_mark)
                )
            if isinstance(event, yaml.AliasEvent):
                raise failure(
                    "E_CONFIG_FILE",
                    "Aliases (*name) are not used in a config.",
                    where=where + _line(event.start_mark),
                    fix="Write the value out.",
                )
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
    key, separator, value = override.partition("=")
    path = tuple(key.split("."))
    if not separator or not all(path):
        raise failure(
            "E_USAGE",
            "An override is section.key=value.",
            where=f"--set {override}",
            fix="For example --set train.learning_rate=1e-4",
        )
    node = tree
    for part in path[:-1]:
        child: object = node.get(part) or {}
        node[part] = child
        if not isinstance(child, dict):
            raise failure(
                "E_USAGE", f"'{part}' is a value, not a section.", where=f"--set {override}"
            )
        node = cast("dict[str, Any]", child)
    try:
        node[path[-1]] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise failure(
            "E_USAGE", "The value is not valid YAML.", where=f"--set {override}"
        ) from error
    return path


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
    shown = message.removeprefix("Value error, ").removeprefix("Input should be ")
    got = f", not {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    return Problem("E_CONFIG_VALUE", f"'{key}': should be {shown}{got}.", place, _meaning(loc))


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
