"""Which files of a dataset repository are which split. Pure: a listing and the card's text go in."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import PurePosixPath
from typing import Any, cast

import yaml

from tunewright.errors import TunewrightError, failure

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".arrow")
"""Kinds of data file, the one to prefer first; each but Parquet and Arrow may also end in .gz or .zst."""
PACKED = (".gz", ".zst")
_NO_DATA = frozenset(
    ["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"]
)
_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_WORD = {
    split: re.compile(rf"(?:^|[-._ 0-9])(?:{'|'.join(words)})(?:[-._ 0-9]|$)")
    for split, words in _KEYWORDS.items()
}
_SHARD = re.compile(r"data/(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*")
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
MAX_FRONT = 500_000
"""Characters of a card's metadata that are read."""
MAX_DEPTH = 40


@dataclass(frozen=True)
class Layout:
    """The splits of a dataset, or of one of its subsets.

    Attributes:
        splits: Name of each split to its data files.
        reason: What told them, in words.
    """

    splits: Mapping[str, list[str]]
    reason: str


def layout_of(files: Iterable[str], card: str, name: str | None, source: str) -> Layout:
    """Return the splits of the subset `name`; unset: of the default one.

    Raises:
        TunewrightError: E_HUB, there is no such subset (those there are are named), or the card's
            `configs` cannot be used.
    """
    visible = [file for file in sorted(files) if _is_visible(file)]
    configs = _configs(card, source)
    if configs:
        config = _subset(configs, name, source)
        title = f"the card's subset '{config.get('config_name', 'default')}'"
        return Layout(_by_card(config, visible, source), title)
    if name not in (None, "default"):
        raise failure(
            "E_HUB",
            f"There is no subset '{name}': the dataset has none.",
            where=source,
            fix="Leave the option `name` out.",
        )
    return Layout(splits_by_name(visible), "file names")


def is_data(file: str) -> bool:
    """Return whether a path is that of a data file."""
    return suffix_of(file) is not None and PurePosixPath(file).name not in _NO_DATA


def suffix_of(file: str) -> str | None:
    """Return the suffix that tells the kind of a data file, without .gz and .zst; None for other files."""
    path = PurePosixPath(file.lower())
    packed = path.suffix in PACKED
    suffix = PurePosixPath(path.stem).suffix if packed else path.suffix
    if suffix not in SUFFIXES or (packed and suffix in (".parquet", ".arrow")):
        return None
    return suffix


def splits_by_name(files: Sequence[str]) -> dict[str, list[str]]:
    """Return the splits that folder and file names tell; where none does, all files are `train`.

    Looked at are, until one tells: shards `data/SPLIT-00000-of-00001`, folder names, file names.

    Source: the Hub's documentation, "File names and splits".
    """
    data = [file for file in files if is_data(file)]
    shards: dict[str, list[str]] = {}
    for file in data:
        if match := _SHARD.fullmatch(file):
            shards.setdefault(match["split"], []).append(file)
    folders = _told(data, lambda file: PurePosixPath(file).parts[:-1])
    names = _told(data, lambda file: (PurePosixPath(file).name,))
    found = shards or folders or names or {"train": data}
    return {split: _one_kind(chosen) for split, chosen in found.items()}


def split_named(file: str) -> str | None:
    """Return the split that a file's own name tells: train, validation, test or none."""
    name = PurePosixPath(file).name
    return next((split for split, word in _WORD.items() if word.search(name)), None)


def matches(path: str, pattern: str) -> bool:
    """Return whether a path fits a pattern: `*` within a folder, `**` across folders."""
    parts = tuple(path.split("/"))
    wanted: list[str] = []
    for part in pattern.removeprefix("./").split("/"):
        if not (part == "**" and wanted[-1:] == ["**"]):
            wanted.append(part)

    @cache
    def fits(here: int, there: int) -> bool:
        if there == len(wanted):
            return here == len(parts)
        if wanted[there] == "**":
            if there + 1 == len(wanted):
                return here < len(parts)
            return fits(here, there + 1) or (here < len(parts) and fits(here + 1, there))
        return (
            here < len(parts)
            and fnmatchcase(parts[here], wanted[there])
            and fits(here + 1, there + 1)
        )

    return fits(0, 0)


def _is_visible(file: str) -> bool:
    return not any(part.startswith((".", "__")) for part in file.split("/"))


def _told(files: Sequence[str], parts_of: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in files:
        parts = parts_of(file)
        for split, word in _WORD.items():
            if any(word.search(part) for part in parts):
                found.setdefault(split, []).append(file)
                break
    return {split: found[split] for split in _KEYWORDS if split in found}


def _one_kind(files: Sequence[str]) -> list[str]:
    """Return the files of the kind that most have: the same rows are often there in several kinds."""
    counts = Counter(suffix_of(file) for file in files)
    most = max(counts.values(), default=0)
    kind = next((suffix for suffix in SUFFIXES if counts[suffix] == most), None)
    return [file for file in files if suffix_of(file) == kind]


def _configs(card: str, source: str) -> list[dict[str, Any]]:
    front = _FRONT.match(card)
    if front is None:
        return []
    try:
        content = _parsed(front[1])
    except (yaml.YAMLError, ValueError) as error:
        raise _bad_card("cannot be read", source) from error
    given = content.get("configs") if isinstance(content, dict) else None
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(config, dict) for config in given):
        raise _bad_card("has 'configs' that are no list of mappings", source)
    return [config for config in given if "data_files" in config or "data_dir" in config]


def _parsed(text: str) -> object:
    """Return YAML as Python values; what only an attack needs is refused before it is built."""
    if len(text) > MAX_FRONT:
        raise ValueError("it is too long")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("it is too deep, or uses aliases")
    return yaml.safe_load(text)


def _bad_card(what: str, source: str) -> TunewrightError:
    return failure(
        "E_HUB",
        f"The metadata of the dataset's README.md {what}.",
        where=source,
        fix="Download the data files and name them as sources.",
    )


def _subset(configs: list[dict[str, Any]], name: str | None, source: str) -> dict[str, Any]:
    names = [str(config.get("config_name", "default")) for config in configs]
    if name is not None:
        chosen = [c for c, n in zip(configs, names, strict=True) if n == name]
    else:
        chosen = [c for c in configs if c.get("default") is True]
        chosen = chosen or [c for c, n in zip(configs, names, strict=True) if n == "default"]
        chosen = chosen or (configs if len(configs) == 1 else [])
    if chosen:
        return chosen[0]
    what = "The dataset has several subsets" if name is None else f"There is no subset '{name}'"
    raise failure(
        "E_HUB",
        f"{what}: {', '.join(names[:30])}{', ...' if len(names) > 30 else ''}.",
        where=source,
        fix="Name one of them: the option `name` of the entry in prepare.source.",
    )


def _by_card(config: dict[str, Any], files: list[str], source: str) -> dict[str, list[str]]:
    folder = str(config.get("data_dir") or "").strip("./")
    below = f"{folder}/" if folder else ""
    given = config.get("data_files")
    if given is None:
        inside = [file for file in files if file.startswith(below)]
        relative = splits_by_name([file.removeprefix(below) for file in inside])
        return {split: [below + file for file in found] for split, found in relative.items()}
    splits: dict[str, list[str]] = {}
    for split, patterns in _patterns(given, source):
        found = splits.setdefault(split, [])
        wanted = [_inside(pattern, below, source) for pattern in patterns]
        for file in files:
            if is_data(file) and file not in found and any(matches(file, p) for p in wanted):
                found.append(file)
    return splits


def _patterns(given: Any, source: str) -> list[tuple[str, list[str]]]:
    """Return split and patterns of `data_files` in any form that the Hub allows."""
    if isinstance(given, str):
        return [("train", [given])]
    if isinstance(given, list) and all(isinstance(entry, str) for entry in given):
        return [("train", cast("list[str]", given))]
    if isinstance(given, dict):
        given = [{"split": split, "path": path} for split, path in given.items()]
    found: list[tuple[str, list[str]]] = []
    for entry in given if isinstance(given, list) else [None]:
        known = entry if isinstance(entry, dict) else {}
        paths = [known["path"]] if isinstance(known.get("path"), str) else known.get("path")
        if not isinstance(paths, list) or not all(isinstance(one, str) for one in paths):
            raise _bad_card("has 'data_files' that Tunewright does not understand", source)
        found.append((str(known.get("split", "train")), cast("list[str]", paths)))
    return found


def _inside(pattern: str, below: str, source: str) -> str:
    if "://" in pattern:
        raise failure(
            "E_HUB",
            f"The dataset's files are elsewhere: '{pattern}'.",
            where=source,
            fix="Download them and name them as sources.",
        )
    return below + pattern.removeprefix("./")
