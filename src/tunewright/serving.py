"""What `serve` and `chat` are told to work on: a run, a part of one, a folder, a GGUF file, or a version in the store."""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from tunewright import pipeline
from tunewright.artifacts import MANIFEST, Artifact, Kind, called, load_artifact
from tunewright.config.load import config_of_source
from tunewright.config.names import usable_name
from tunewright.config.paths import usable_path
from tunewright.config.schema import Config
from tunewright.errors import TunewrightError, failure
from tunewright.publish.versions import manifest
from tunewright.publish.versions.checking import version_problems
from tunewright.publish.versions.layout import store_root
from tunewright.publish.versions.pointers import read_map
from tunewright.publish.versions.store import resolve
from tunewright.serve import AdapterModel, FolderModel, GgufModel, Servable, servable_of
from tunewright.targets import CONFIG_FILE, config_of, is_described

STORE = "store:"
"""Begins the name of an agent whose version in the store is meant."""
SETTINGS = "adapter_config.json"
KINDS: tuple[Literal["exported", "merged", "adapter"], ...] = ("exported", "merged", "adapter")
"""What a run can serve, in the order in which it is looked for."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_KEPT = {
    "export": ("system", "temperature", "top_p", "num_ctx"),
    "train": ("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant"),
}
"""Options that say how a version is loaded, and how it answers."""
_CHOICES = "`adapter`, `checkpoint-N`, `merged`, `gguf`, or an exported type such as `Q8_0`"

Note = Callable[[str], object]


def servable(
    target: str, overrides: Sequence[str] = (), *, what: str | None = None, note: Note
) -> tuple[Config, Servable]:
    """Return what a target stands for, and the config that goes with it.

    Files of runs and of the store are hashed first.

    Args:
        target: A config, a run, a folder in it, a checkpoint, a folder with an adapter or a model, a GGUF
            file, a version's folder in the store, or `store:` and an agent's name, `@VERSION` or `@ALIAS`
            behind it.
        overrides: `key=value` over the config.
        what: Of a run or a version: adapter, checkpoint-N, merged, gguf, an exported type; None: its GGUF
            file, else the merged model, else the adapter.
        note: Told what is passed over.

    Raises:
        TunewrightError: E_NOT_FOUND, there is nothing of that name. E_ARTIFACT_MISSING, it is not made yet.
            E_ARTIFACT_INVALID, E_DIGEST_MISMATCH, its files are not those that were made. E_USAGE,
            `what` is given for what is no run.
    """
    if target.startswith(STORE):
        return _of_agent(target, target.removeprefix(STORE), overrides, what)
    path = usable_path(target)
    if (path / manifest.MANIFEST).is_file() and _is_version(path):
        return _of_version(path, overrides, what)
    run, part = _in_run(path)
    if run is not None:
        config = config_of(str(run), overrides, note=note)
        return config, _of_run(config, what or part, note)
    if path.is_file() and path.suffix == ".gguf":
        return _bare(path, overrides, what, lambda name: GgufModel(name, f"{path}", path))
    if (path / SETTINGS).is_file():
        return _bare(path, overrides, what, lambda name: _adapter(path, name))
    if (path / "config.json").is_file():
        return _bare(path, overrides, what, lambda name: FolderModel(name, f"{path}", path))
    if is_described(target):
        config = config_of(target, overrides, note=note)
        return config, _of_run(config, what, note)
    if not path.exists() and target in _agents():
        return _of_agent(target, target, overrides, what)
    raise failure(
        "E_NOT_FOUND",
        "This is nothing that can be served.",
        where=target,
        fix="Name a config, a run, a folder with an adapter or a model, a GGUF file, or `store:AGENT`.",
    )


def _in_run(path: Path) -> tuple[Path | None, str | None]:
    """Return the run that a path is, or is in, and which part of it: one that `what` can name."""
    here = path.absolute()
    places: list[tuple[Path, str | None]] = [(here, None)]
    if here.name in ("adapter", "merged"):
        places.append((here.parent, here.name))
    if here.name == "exported":
        places.append((here.parent, "gguf"))
    if here.suffix == ".gguf" and here.parent.name == "exported":
        places.append((here.parent.parent, here.name))
    if _CHECKPOINT.fullmatch(here.name) and here.parent.name == "checkpoints":
        places.append((here.parent.parent.parent, here.name))
    found = ((run, part) for run, part in places if path.exists() and (run / CONFIG_FILE).is_file())
    return next(found, (None, None))


def _of_run(config: Config, what: str | None, note: Note) -> Servable:
    """Return what of a run is served."""
    run = Path(config.run_dir)
    if what is None:
        for kind in KINDS:
            if not (run / kind / MANIFEST).is_file():
                continue
            if not _is_stale(run, load_artifact(run / kind, kind)):
                return servable_of(config, _whole(run, kind))
            note(f"{run / kind} is passed over: it was made of an adapter that is gone.")
        # It says how to make one.
        return servable_of(config, load_artifact(run / "adapter", "adapter"))
    step = _CHECKPOINT.fullmatch(what)
    if step:
        return _of_checkpoint(config, int(step[1]))
    if what in ("adapter", "merged"):
        return servable_of(config, _current(config, cast("Literal['adapter', 'merged']", what)))
    if what != "gguf" and not what.endswith(".gguf") and not what.isupper():
        raise failure(
            "E_USAGE", f"'{what}' is no part of a run.", where="--what", fix=f"Name {_CHOICES}."
        )
    exported = _current(config, "exported")
    return servable_of(config, exported, None if what == "gguf" else _type_of(exported, what))


def _type_of(exported: Artifact, what: str) -> str:
    """Return the type that is named by itself or by its file."""
    files: dict[str, dict[str, Any]] = exported.facts["files"]
    return next((name for name, facts in files.items() if facts["file"] == what), what)


def _whole(run: Path, kind: Literal["exported", "merged", "adapter"]) -> Artifact:
    return load_artifact(run / kind, kind, verify=True)


def _current(config: Config, kind: Literal["exported", "merged", "adapter"]) -> Artifact:
    """Return an artifact that is whole and was made of what is in the run now.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING, E_ARTIFACT_INVALID.
    """
    run = Path(config.run_dir)
    made = _whole(run, kind)
    if _is_stale(run, made):
        message = f"The {called(kind)} was made of an adapter that is gone."
        raise failure(
            "E_ARTIFACT_INVALID",
            message,
            where=made.path,
            fix=f"tunewright run {shlex.quote(str(run))}",
        )
    return made


def _is_stale(run: Path, made: Artifact) -> bool:
    """Return whether an artifact was made of another parent than the one that is there.

    A parent that was deleted, as merged models are to save space, tells nothing.
    """
    for name, digest in made.parents.items():
        kind = cast("Kind", name)
        if not (run / kind / MANIFEST).is_file():
            continue
        parent = load_artifact(run / kind, kind)
        if parent.digest != digest or _is_stale(run, parent):
            return True
    return False


def _of_checkpoint(config: Config, step: int) -> Servable:
    adapter = _current(config, "adapter")
    chosen = pipeline.checkpoint_of(config, adapter, step)
    model = cast("AdapterModel", servable_of(config, adapter))
    name, words = f"{model.name}-checkpoint-{step}", f"{chosen.name} in place of {model.words}"
    return replace(model, name=name, words=words, checkpoint=chosen.path)


def _bare(
    path: Path, overrides: Sequence[str], what: str | None, make: Callable[[str], Servable]
) -> tuple[Config, Servable]:
    """Return a model that belongs to no run, and a config of defaults."""
    if what is not None:
        message = "--what names a part of a run, and this is none."
        raise failure("E_USAGE", message, where=path, fix="Leave it out.")
    name = usable_name(path.absolute().stem if path.is_file() else path.absolute().name) or "model"
    config = config_of_source(str(path), [f"name={name}", *overrides])
    return config, make(name)


def _adapter(path: Path, name: str) -> AdapterModel:
    """Return an adapter that belongs to no run: its settings name its base."""
    try:
        settings = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        base = settings["base_model_name_or_path"]
        ranks = [settings.get("r", 1), *(settings.get("rank_pattern") or {}).values()]
        if not isinstance(base, str) or not base.strip():
            raise TypeError(base)
        if not all(isinstance(rank, int) and not isinstance(rank, bool) for rank in ranks):
            raise TypeError(ranks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{SETTINGS} does not name the base, or a rank that is no whole number."
        raise failure("E_ARTIFACT_INVALID", message, where=path / SETTINGS) from error
    return AdapterModel(name, f"the adapter {path} on {base}", path, base, settings.get("revision"))


def _agents() -> set[str]:
    """Return the agents that the store knows; none where there is no store."""
    try:
        return set(read_map(store_root()))
    except TunewrightError:
        return set()


def _of_agent(
    target: str, agent: str, overrides: Sequence[str], what: str | None
) -> tuple[Config, Servable]:
    root = store_root(config_of_source(target, [*overrides]))
    return _version(resolve(root, agent), overrides, what)


def _is_version(path: Path) -> bool:
    try:
        manifest.parse((path / manifest.MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _of_version(path: Path, overrides: Sequence[str], what: str | None) -> tuple[Config, Servable]:
    """Return a version that is named by its folder, after hashing every file."""
    here = path.absolute()
    problems = version_problems(here, (here.parent.parent.name, here.parent.name, here.name))
    if problems:
        raise TunewrightError(problems)
    return _version(here, overrides, what)


def _version(folder: Path, overrides: Sequence[str], what: str | None) -> tuple[Config, Servable]:
    """Return what of a version that is whole is served: its GGUF file, or its adapter."""
    data = manifest.parse((folder / manifest.MANIFEST).read_bytes())
    config = _config_of_version(data, folder, overrides)
    name = f"{data['agent']}-{data['adapter']}-{data['version']}"
    base, revision = data["base"]["name"], data["base"]["revision"]
    where = f"of {data['agent']}/{data['adapter']}/{data['version']}"
    adapter = AdapterModel(
        name,
        f"the adapter {where} on {base}",
        folder / "adapter",
        base,
        revision,
        in_4_bits=config.train.load_in_4bit,
    )
    files = sorted(n for n in data["files"] if n.startswith("gguf/") and n.endswith(".gguf"))
    if what == "adapter" or (what is None and not files):
        return config, adapter
    served = f"gguf/{data.get('metrics', {}).get('exported', {}).get('served')}"
    wanted = served if what in (None, "gguf") and served in files else None
    if what not in (None, "gguf"):
        wanted = next((n for n in files if n.endswith(f"-{what}.gguf")), None)
    if wanted is None:
        there = ", ".join(["adapter", *(Path(n).name for n in files)])
        message = f"The version has no '{what or 'gguf'}'; it has {there}."
        raise failure("E_NOT_FOUND", message, where=folder, fix="Name one of them with `--what`.")
    file = folder / wanted
    words = f"the GGUF file {file.name} {where}"
    return config, GgufModel(name, words, file, adapter.path, base, revision)


def _config_of_version(data: dict[str, Any], folder: Path, overrides: Sequence[str]) -> Config:
    """Return the config that a version was made with; how it is served may be overridden."""
    given = data.get("config", {})
    own = [
        f"{section}.{key}={json.dumps(given[section][key])}"
        for section, keys in _KEPT.items()
        for key in keys
        if given.get(section, {}).get(key) is not None
    ]
    return config_of_source(str(folder), [f"name={data['adapter']}", *own, *overrides])
