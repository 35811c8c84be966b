"""Where a model's files are: the bundled base, a folder, or what is fetched from the Hub."""

import json
from importlib import resources
from pathlib import Path

from httpx import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from tunewright.errors import failure, first_line
from tunewright.models._weights import check_base
from tunewright.models.programs import is_pickled, pickled_weights, refuse_programs

TINY = "tunewright/tiny"
_WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
_SMALL_PATTERNS = ["*.json", "*.jinja", "*.model", "README.md"]


def resolve_model(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return the folder of a model: the bundled base, a folder, or a Hub snapshot that is fetched.

    Raises:
        TunewrightError: E_MODEL, the folder lacks files, or one is damaged. E_UNSAFE_FORMAT, weights only
            as pickle. E_UNSAFE_PATH, its index leads out of it. E_HUB, it cannot be fetched.
    """
    if name == TINY:
        with resources.as_file(resources.files("tunewright.models") / "assets" / "tiny") as path:
            folder = path
    elif Path(name).is_dir():
        folder = Path(name)
    elif is_pickled(name):
        raise pickled_weights(name)
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise failure("E_MODEL", "There is no such model folder.", where=name)
    else:
        folder = _fetch(name, revision, weights=weights)
        _require(folder, weights=weights, hub_id=name)
        return folder
    _require(folder, weights=weights)
    return folder


def _fetch(name: str, revision: str | None, *, weights: bool) -> Path:
    patterns = _SMALL_PATTERNS + (_WEIGHT_PATTERNS if weights else [])
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        reason = first_line(error)
        raise failure("E_HUB", f"'{name}' cannot be fetched: {reason}.", where=name) from error


def _require(folder: Path, *, weights: bool, hub_id: str | None = None) -> None:
    names = {p.name for p in folder.iterdir()}
    missing = [n for n in ("config.json", "tokenizer.json") if n not in names]
    if weights and not any(n.endswith(".safetensors") for n in names):
        if any(map(is_pickled, names)):
            raise pickled_weights(folder)
        missing.append("*.safetensors")
    if missing and hub_id:
        message = f"'{hub_id}' on the Hub has no {', '.join(missing)}."
        fix = (
            "Take a repository with safetensors; or fetch it whole and rewrite its weights: "
            f"hf download {hub_id} --local-dir OLD, then tunewright convert OLD NEW"
        )
        raise failure("E_MODEL", message, where=hub_id, fix=fix)
    if missing:
        raise failure("E_MODEL", f"The folder has no {', '.join(missing)}.", where=folder)
    refuse_programs(folder)
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise failure(
            "E_MODEL", "config.json is not JSON.", where=folder / "config.json"
        ) from error
    if weights:
        check_base(folder)
