"""Environments of peers whose versions differ from ours, made once in a cache folder."""

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES: dict[str, tuple[str, ...]] = {
    # With the versions of torch that pip resolves by itself, 0.9.5 does not start.
    "llamafactory": (
        "llamafactory==0.9.5",
        "torch==2.11.0",
        "torchaudio==2.11.0",
        "torchvision==0.26.0",
    ),
    "unsloth": ("unsloth",),
    "axolotl": ("axolotl",),
}
READY = ".ready"


def interpreter(name: str, cache: Path) -> Path:
    """Return the Python of an environment, which is made if it is not there whole.

    Args:
        name: One of `PACKAGES`; empty: this one.
        cache: Folder of all environments.

    Raises:
        RuntimeError: It cannot be made; has the last lines of what pip says.
    """
    if not name:
        return Path(sys.executable)
    folder = cache / "environments" / name
    python = folder / "bin" / "python"
    wanted = "\n".join(PACKAGES[name])
    ready = folder / READY
    if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making the environment of {name}: several GB", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "-q", *PACKAGES[name]],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError("\n".join(done.stderr.strip().splitlines()[-3:]))
    ready.write_text(wanted, encoding="utf-8")
    return python
