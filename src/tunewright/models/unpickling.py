"""Pickled weights to safetensors, so that a model of earlier years can be used without running what came with it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tunewright.errors import failure
from tunewright.events import SILENT, Listener
from tunewright.machine import require_space
from tunewright.models.programs import is_pickled

SINGLE, SHARDS = "pytorch_model.bin", "pytorch_model-*.bin"
ADAPTER = "adapter_model.bin"
INDEX = "model.safetensors.index.json"
KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "*.md", "LICENSE*")
"""What is copied beside the weights; programs and other pickles stay behind."""
MEGABYTE = 10**6
SPARE_MEGABYTES = 64
SECONDS, SECONDS_A_GIGABYTE = 120, 60
"""Of a processor: for PyTorch itself, and for the weights."""


def convert(source: Path, out: Path, listener: Listener = SILENT) -> dict[str, Any]:
    """Write a model or adapter with its pickled weights as safetensors, and return what was done.

    Args:
        source: Folder with `pytorch_model*.bin` or `adapter_model.bin`; or one pickled file.
        out: New folder; appears complete or not at all.
        listener: Told of each file.

    Raises:
        TunewrightError: E_NOT_FOUND. E_EXISTS, `out` is there. E_MODEL, there are no pickled weights.
            E_UNSAFE_FORMAT, a file holds more than tensors, or is damaged. E_DISK_SPACE.
    """
    if not source.exists():
        raise failure("E_NOT_FOUND", "There is no such model.", where=source)
    if out.exists():
        raise failure("E_EXISTS", "The folder is there already.", where=out)
    files = _files(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    require_space(out, 2 * sum(file.stat().st_size for file in files))
    listener.started("convert", len(files), "files")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".tmp-{out.name}-") as scratch:
        draft = Path(scratch) / "out"
        draft.mkdir()
        tensors = 0
        for number, (file, name) in enumerate(files.items(), 1):
            tensors += _converted(file, draft / name, Path(scratch))
            listener.advanced(number, file.name)
        if source.is_dir():
            _copy_rest(source, draft)
        if all(name.startswith("model-") for name in files.values()):
            _write_index(draft)
        draft.rename(out)
    return {"path": str(out), "files": len(files), "tensors": tensors}


def _files(source: Path) -> dict[Path, str]:
    """Return each pickled file with the name that it gets."""
    if source.is_file() and is_pickled(source.name):
        named = source.name == ADAPTER
        return {source: "adapter_model.safetensors" if named else "model.safetensors"}
    shards = sorted(source.glob(SHARDS)) if source.is_dir() else []
    if shards:
        return {s: f"{s.stem.replace('pytorch_model', 'model', 1)}.safetensors" for s in shards}
    whole = {source / SINGLE: "model.safetensors", source / ADAPTER: "adapter_model.safetensors"}
    found = {file: name for file, name in whole.items() if file.is_file()}
    if not found:
        raise failure(
            "E_MODEL",
            "There are no pickled weights here.",
            where=source,
            fix=f"Name a folder with {SINGLE}, its shards or {ADAPTER}; or one file.",
        )
    return found


def _converted(file: Path, target: Path, folder: Path) -> int:
    """Return the number of tensors of a file, after a process of its own has written them."""
    size = file.stat().st_size
    limits = [2 * size // MEGABYTE + SPARE_MEGABYTES]
    limits.append(SECONDS + SECONDS_A_GIGABYTE * (size // 10**9 + 1))
    command = [sys.executable, "-I", "-m", "tunewright.models._unpickle_child"]
    done = subprocess.run(
        [*command, str(file.resolve()), str(target.resolve()), *map(str, limits)],
        cwd=folder,
        # No token, no key: nothing of the environment but where programs are.
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        found = {"error": f"reading it ended with {done.returncode}"}
    if "error" not in found:
        return found["tensors"]
    raise failure(
        "E_UNSAFE_FORMAT",
        f"The file is not one of weights alone: {found['error'][:200]}.",
        where=file,
        fix="Do not use it; look for the same model as safetensors.",
    )


def _copy_rest(source: Path, draft: Path) -> None:
    for pattern in KEPT:
        for file in source.glob(pattern):
            if file.is_file() and not file.name.endswith(".bin.index.json"):
                shutil.copyfile(file, draft / file.name)


def _write_index(draft: Path) -> None:
    from safetensors import safe_open

    places: dict[str, str] = {}
    for file in sorted(draft.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), file.name)
    total = sum(file.stat().st_size for file in draft.glob("*.safetensors"))
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (draft / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
