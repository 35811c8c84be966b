"""Commands as a user types them: in a process of their own, or in this one where that is not what is tested."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from no_tracebacks import require_none
from support import SMALL

from tunewright.cli import main
from tunewright.config.overrides import apply

ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "120"}
Done = subprocess.CompletedProcess[str]


def tunewright(*args: str, cwd: Path, **environment: str) -> Done:
    """Run a command in a process of its own, in which no traceback is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tunewright", *args],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    require_none(done.stdout + done.stderr)
    return done


def here(*args: str, cwd: Path) -> Done:
    """Run a command in this process, which has loaded what it needs: another takes seconds for that."""
    with (
        few_positions(),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = main(args)
    require_none(out.getvalue() + err.getvalue())
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def few_positions() -> Iterator[None]:
    """Compare GGUF files at 32 positions: what is tested are not the figures."""
    from tunewright.export import _proof

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_proof, "POSITIONS", 32)
        yield


def write_config(folder: Path, source: Path, *more: str) -> Path:
    """Return the config file of a small run, after writing it."""
    config = {
        "name": "small",
        "prepare": {"source": str(source)},
        "publish": {"agent": "writer", "store": "models"},
    }
    for override in (*SMALL, *more):
        apply(config, override)
    file = folder / "c.yaml"
    file.write_text(yaml.safe_dump(config))
    return file
