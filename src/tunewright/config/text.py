"""The text of a config: read, and parsed into plain values with the line of every key."""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml

from tunewright.config.paths import usable_path
from tunewright.errors import Problem, TunewrightError, failure

MAX_CONFIG_BYTES = 1_000_000
MAX_DEPTH = 20
SHOWN = 200
"""Characters of a value that a message shows."""
PRESET = "preset:"
CONFIG_SUFFIXES = (".yaml", ".yml")
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
Place = tuple[str | int, ...]
"""Where a value is: the keys and numbers that lead to it."""


def preset_names() -> list[str]:
    """Return the names of the bundled presets."""
    folder = resources.files("tunewright.config") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def read_text(source: str | Path) -> str:
    """Return the text of a config file or preset.

    Raises:
        TunewrightError: E_NAME, E_NOT_FOUND; E_CONFIG_FILE, it is no YAML file, too large, or not UTF-8.
    """
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
        return (resources.files("tunewright.config") / "presets" / f"{name}.yaml").read_text()
    path = usable_path(where)
    if not path.is_file():
        raise failure(
            "E_NOT_FOUND",
            "There is neither a config file nor a run here.",
            where=where,
            fix="Name a config (.yaml) or a run folder (runs/NAME); or start with `tunewright demo`.",
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
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise failure(
            "E_CONFIG_FILE",
            f"Byte {error.start} is not UTF-8.",
            where=where,
            fix="Save the file as UTF-8.",
        ) from error


def parse(text: str, where: str) -> tuple[dict[str, Any], dict[Place, int]]:
    """Return plain values and the line of every key; aliases and tags are refused.

    Raises:
        TunewrightError: E_CONFIG_FILE, it is no mapping or not plain YAML; every E_CONFIG_KEY there is.
    """
    lines: dict[Place, int] = {}
    try:
        require_plain(text)
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


def require_plain(text: str) -> None:
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
    node: yaml.Node | None, path: Place, where: str, lines: dict[Place, int]
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
                        f"'{dotted(child)}' is given twice.",
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


def dotted(path: Place) -> str:
    """Return a place as it is written: `train.lora.r`."""
    return ".".join(map(str, path)) or "config"


def shown(given: object) -> str:
    """Return a value as a message shows it: on one line, not too long."""
    text = ascii(given) if isinstance(given, str) and not given.isprintable() else repr(given)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


class _Dumper(yaml.SafeDumper):
    """Writes what is read back as it was."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # YAML takes these characters for ends of lines; unescaped they would come back as others.
    style = '"' if _LINE_ENDS.search(text) else None
    return cast("Any", dumper).represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dumped(values: Mapping[str, Any], *, width: int = 80) -> str:
    """Return the YAML of plain values, in their order; lines are folded at about `width` characters."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
