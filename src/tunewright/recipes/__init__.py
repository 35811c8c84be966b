"""Ready projects: a config for a base and its machine, sample data, and what to type next."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Any, cast

import yaml

from tunewright.config.convert import commented
from tunewright.config.paths import usable_path
from tunewright.config.trees import merged
from tunewright.errors import failure, io_fix


@dataclass(frozen=True)
class Project:
    """A project that was written.

    Attributes:
        folder: Where it is.
        files: Its files, relative to the folder.
        commands: What to type next.
    """

    folder: Path
    files: tuple[str, ...]
    commands: tuple[str, ...]


def recipes() -> dict[str, dict[str, Any]]:
    """Return every recipe by its name."""
    return _table("recipes.yaml")


def bases() -> dict[str, dict[str, Any]]:
    """Return every base that a recipe can be made for, by its name."""
    return _table("bases.yaml")


def project_configs(recipe: str, base: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the configs of a recipe for a base, by name: plain values in our keys.

    Raises:
        TunewrightError: E_NOT_FOUND, there is no such recipe or base.
    """
    found = _named(recipes(), recipe, "recipe", "RECIPE")
    chosen = base or found["base"]
    size = "small" if chosen == "tiny" else "large"
    parts = (_named(bases(), chosen, "base", "--base")["config"], found.get(size, {}))
    return {
        name: merged({"name": name}, config, *parts) for name, config in found["configs"].items()
    }


def write_project(recipe: str, folder: str | None = None, *, base: str | None = None) -> Project:
    """Write a ready project into a folder, and return what was written; nothing is overwritten.

    Raises:
        TunewrightError: E_NOT_FOUND, there is no such recipe or base. E_EXISTS, files are there already: all
            of them named. E_NAME, the folder cannot be a path. E_IO.
    """
    configs = project_configs(recipe, base)
    found = recipes()[recipe]
    chosen = base or cast("str", found["base"])
    target = usable_path(folder or recipe)
    first = next(iter(configs))
    commands = (
        f"cd {target}",
        f"tunewright train {first}.yaml --dry-run",
        f"tunewright run {first}.yaml",
        f"tunewright chat {found.get('chat', f'runs/{first}')}",
    )
    values = {
        **{key: found[key] for key in ("makes", "data", "holds")},
        "title": recipe,
        "base": configs[first]["model"]["model_name_or_path"],
        "machine": bases()[chosen]["machine"],
        "commands": "\n".join(f"$ {command}" for command in commands[1:]),
    }
    files = dict(_sample(found["sample"], found["data"]))
    for name, config in configs.items():
        head = (f"{found['makes']}.", f"For {values['machine']}.")
        files[f"{name}.yaml"] = commented(
            config, [text[0].upper() + text[1:] for text in head]
        ).encode()
    texts = _here() / "files"
    files["README.md"] = (
        Template((texts / "README.md").read_text("utf-8")).substitute(values).encode()
    )
    files[".env.example"] = (texts / "env.example").read_bytes()
    files[".gitignore"] = (texts / "gitignore").read_bytes()
    _write(target, files)
    return Project(target, tuple(sorted(files)), commands)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    there = [name for name in sorted(files) if (folder / name).exists()]
    if there:
        names = ", ".join(there)
        message = f"There already, and nothing is overwritten: {names}."
        fix = "Name another folder, or move these files away."
        raise failure("E_EXISTS", message, where=folder, fix=fix)
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(content)
    except OSError as error:
        where, fix = error.filename or folder, io_fix(error)
        raise failure("E_IO", f"{error.strerror}.", where=where, fix=fix) from error


def _sample(name: str, place: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a bundled sample, each with its place in the project."""
    sample = resources.files("tunewright") / "data" / "samples" / name
    if sample.is_file():
        yield place, sample.read_bytes()
        return
    for file in sorted(sample.iterdir(), key=lambda file: file.name):
        yield f"{place}/{file.name}", file.read_bytes()


def _here() -> Traversable:
    return resources.files("tunewright.recipes")


def _table(name: str) -> dict[str, dict[str, Any]]:
    return yaml.safe_load((_here() / name).read_text("utf-8"))


def _named(table: Mapping[str, Any], name: str, what: str, where: str) -> dict[str, Any]:
    if name not in table:
        close = difflib.get_close_matches(name, table, n=1)
        known = f"{', '.join(table)}."
        fix = f"Did you mean '{close[0]}'? There are: {known}" if close else f"Use one of: {known}"
        raise failure("E_NOT_FOUND", f"There is no {what} {name!a}.", where=where, fix=fix)
    return table[name]
