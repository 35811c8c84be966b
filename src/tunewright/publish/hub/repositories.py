"""Which repository of the Hub each part of a run goes to, and how it lies there."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure

Part = Literal["dataset", "adapter", "merged", "gguf"]
PARTS: tuple[Part, ...] = get_args(Part)
OPTIONS: Mapping[Part, str] = {
    "dataset": "hub_dataset_id",
    "adapter": "hub_model_id",
    "merged": "hub_merged_id",
    "gguf": "hub_gguf_id",
}
ENDINGS: Mapping[Part, str] = {"merged": "-merged", "gguf": "-GGUF"}
"""What is put behind the adapter's repository where a part has none of its own."""
_OWN: Mapping[Part, re.Pattern[str]] = {
    "adapter": re.compile(r"adapter_model.*\.(safetensors|bin)"),
    "merged": re.compile(r"(pytorch_)?model.*\.(safetensors|bin)(\.index\.json)?"),
    "gguf": re.compile(r"template|system|params|Modelfile"),
}
"""Files that a loader takes even if they are of an earlier upload."""
_STRANGERS: Mapping[Part, tuple[str, str]] = {
    "adapter": ("config.json", "a whole model"),
    "merged": ("adapter_config.json", "an adapter"),
    "gguf": ("adapter_config.json", "an adapter"),
}
_DIRECTIVE = re.compile(r'(TEMPLATE|SYSTEM) """(.*?)"""\n', re.DOTALL)
_PARAMETER = re.compile(r"^PARAMETER (\S+) (.+)$", re.MULTILINE)


def require_token(repo_id: str) -> str:
    """Return the token.

    Raises:
        TunewrightError: E_HUB, there is none.
    """
    token = os.environ.get("HF_TOKEN") or ""
    if not token:
        raise failure(
            "E_HUB",
            "HF_TOKEN is not set.",
            where=repo_id,
            fix="Make a token with write access on the Hub, and set HF_TOKEN to it.",
        )
    return token


def repositories(config: Config, parts: Iterable[Part]) -> dict[Part, str]:
    """Return the repository of each part.

    Raises:
        TunewrightError: E_CONFIG_VALUE, none is named, or two models share one.
    """
    options = config.publish
    found: dict[Part, str] = {}
    problems: list[Problem] = []
    for part in parts:
        named: str | None = getattr(options, OPTIONS[part])
        if named is None and part in ENDINGS and options.hub_model_id:
            named = options.hub_model_id + ENDINGS[part]
        if named is None:
            where = f"publish.{OPTIONS[part]}"
            message = f"'{where}' is missing."
            problems.append(Problem("E_CONFIG_VALUE", message, where, f"--set {where}=org/name"))
        else:
            found[part] = named
    models = [name for part, name in found.items() if part != "dataset"]
    problems += [
        Problem(
            "E_CONFIG_VALUE",
            f"'{name}' is named for two models: programs that load it would take the wrong one.",
            f"publish.{OPTIONS[part]}",
            "Name a repository for each.",
        )
        for part, name in found.items()
        if part != "dataset" and models.count(name) > 1
    ]
    if problems:
        raise TunewrightError(problems)
    return found


def place_of(parts: Sequence[Part]) -> str:
    """Return the option, written as a flag's name, that `--repo-id` stands for: of several parts the adapter's."""
    part = parts[0] if len(parts) == 1 else "adapter"
    return f"publish__{OPTIONS[part]}"


def superseded(part: Part, sent: Iterable[str], present: Sequence[str], repo_id: str) -> list[str]:
    """Return the files of an earlier upload that would be loaded in place of, or beside, those that are sent.

    Raises:
        TunewrightError: E_HUB, the repository holds a model of another kind.
    """
    file, what = _STRANGERS[part]
    if file in present:
        raise failure(
            "E_HUB",
            f"The repository holds {what}: programs that load it would not know which to take.",
            where=repo_id,
            fix=f"Name another: --set publish.{OPTIONS[part]}=org/name",
        )
    kept = set(sent)
    return [name for name in present if name not in kept and _OWN[part].fullmatch(name)]


def ollama_files(modelfile: str, file: str) -> dict[str, str]:
    """Return what Ollama reads from a repository on the Hub, and the Modelfile with another GGUF file.

    Source: the Hub's documentation of Ollama: `template`, `system`, and `params` as JSON.
    """
    found = {"Modelfile": re.sub(r"(?m)^FROM .*$", lambda _: f"FROM ./{file}", modelfile, count=1)}
    rest = modelfile
    for name, text in _DIRECTIVE.findall(modelfile):
        found[name.lower()] = text
    rest = _DIRECTIVE.sub("", rest)
    params: dict[str, Any] = {}
    for name, raw in _PARAMETER.findall(rest):
        value = _value(raw)
        if name == "stop":
            params.setdefault(name, []).append(value)
        else:
            params[name] = value
    if params:
        found["params"] = json.dumps(params, ensure_ascii=False, indent=1) + "\n"
    return found


def _value(raw: str) -> Any:
    for mark in ('"""', '"'):
        if raw.startswith(mark) and raw.endswith(mark) and len(raw) >= 2 * len(mark):
            return raw[len(mark) : -len(mark)]
    try:
        return json.loads(raw)
    except ValueError:
        return raw


def without_place(text: str, place: str, name: str) -> str:
    """Return a JSON text in which a folder of this machine has its name only."""
    for ascii_only in (True, False):
        text = text.replace(json.dumps(place, ensure_ascii=ascii_only), json.dumps(name))
    return text
