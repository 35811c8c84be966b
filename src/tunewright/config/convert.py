"""A config as a person would write it: what differs from the defaults, and nothing else."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tunewright.config.load import Loaded
from tunewright.config.paths import usable_path
from tunewright.config.schema import AGENTS, Config, SourceSection, TeamConfig
from tunewright.config.text import Place, dumped
from tunewright.config.wording import meaning
from tunewright.errors import failure, io_fix

_WIDTH = 100


def essentials(config: Config) -> dict[str, Any]:
    """Return the values of a config that differ from the defaults, as plain YAML values."""
    given = config.model_dump(mode="json")
    sources = [_source(entry) for entry in config.prepare.source]
    plain = Config.model_validate({"prepare": {"source": "-"}}).model_dump(mode="json")
    found = _differing(given, plain)
    found.setdefault("prepare", {})["source"] = sources[0] if len(sources) == 1 else sources
    if config.check.against is not None:
        found["check"]["against"] = _source(config.check.against)
    return found


def _differing(given: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        default = plain.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            below = _differing(cast("dict[str, Any]", value), cast("dict[str, Any]", default))
            if below:
                found[key] = below
        elif key not in plain or value != default:
            found[key] = value
    return found


def _source(entry: SourceSection) -> str | dict[str, Any]:
    """Return a source as a path where it is no more than that."""
    plain = SourceSection(path=entry.path).model_dump(mode="json")
    given = _differing(entry.model_dump(mode="json"), plain)
    return {"path": entry.path, **given} if given else entry.path


def as_yaml(loaded: Loaded) -> str:
    """Return a loaded config as YAML in our keys, with what there was to say as comments."""
    said = [f"Written from {loaded.dialect}."] if loaded.dialect else []
    return _head((*said, *loaded.notes)) + dumped(essentials(loaded.config), width=_WIDTH)


def commented(values: Mapping[str, Any], head: Sequence[str]) -> str:
    """Return a config's values as YAML, each option under a line that says what it means."""
    ordered = {key: values[key] for key in TeamConfig.model_fields if key in values}
    return _head(head) + "".join(_explained(ordered, (), set()))


def _explained(values: Mapping[str, Any], place: Place, said: set[Place]) -> Iterator[str]:
    """Yield the lines; an option of several agents is explained once."""
    indent = "  " * len(place)
    for key, value in values.items():
        here = (*place, key)
        if not place and isinstance(value, dict):
            yield "\n"
        if isinstance(value, dict):
            yield f"{indent}{key}:\n"
            yield from _explained(cast("dict[str, Any]", value), here, said)
        else:
            # An agent's own options are those of a config.
            option = here[2:] if here[0] == AGENTS else here
            if option not in said:
                lines = textwrap.wrap(meaning(option), _WIDTH - len(indent) - 2)
                yield "".join(f"{indent}# {line}\n" for line in lines)
            said.add(option)
            yield textwrap.indent(dumped({key: value}, width=_WIDTH), indent)


def _head(lines: Sequence[str]) -> str:
    return "".join(f"# {line}\n" for line in lines)


def write_new(path: str, text: str) -> Path:
    """Write a file that is not there yet, and return its path.

    Raises:
        TunewrightError: E_EXISTS, it is there. E_IO. E_NAME, it cannot be a path.
    """
    target = usable_path(path)
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        message = "The file is there already, and nothing is overwritten."
        raise failure("E_EXISTS", message, where=path) from error
    except OSError as error:
        raise failure("E_IO", f"{error.strerror}.", where=path, fix=io_fix(error)) from error
    return target
