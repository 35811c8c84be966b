"""The one log of a run: what was started, done and skipped, all that was said, and what went wrong."""

import hashlib
import os
import re
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact
from tunewright.config import version
from tunewright.config.load import dump_config
from tunewright.config.schema import Config
from tunewright.errors import TunewrightError
from tunewright.events import SILENT, Listener, Noting
from tunewright.machine import process_rank
from tunewright.pipeline.announcing import announced
from tunewright.privacy import without_secrets

FOLDER, FILE = "logs", "run.log"
_ENDED = re.compile(r"end +(\w+) after ([0-9.]+) s")


@contextmanager
def logged(config: Config, command: str, listener: Listener = SILENT) -> Generator["Log"]:
    """Give the log of a run for the time of a command, whose start, end and errors are written down."""
    log = Log(Path(config.run_dir), listener)
    digest = hashlib.sha256(dump_config(config).encode()).hexdigest()
    log.write("start", f"{command}; Tunewright {version('tunewright')}, config SHA-256 {digest}")
    started = time.monotonic()
    try:
        yield log
    except TunewrightError as error:
        for problem in error.problems:
            log.write("error", f"{problem.code}: {problem.message} ({problem.where})")
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        log.write("stopped", f"{command} by {type(error).__name__}")
        raise
    except Exception as error:
        log.write("error", f"E_INTERNAL: {type(error).__name__}: {error}")
        raise
    finally:
        log.write("finish", f"{command} after {_clock(started)}")


def seconds_of(run_dir: Path) -> dict[str, float]:
    """Return the time that each stage took when it was last done, as the log has it."""
    try:
        text = (run_dir / FOLDER / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    # Time and process stand before.
    lines = (line.split(" ", 2)[-1] for line in text.splitlines())
    found = (_ENDED.fullmatch(line) for line in lines)
    return {match[1]: float(match[2]) for match in found if match}


class Log:
    """Writes lines behind those that are there; of several processes the first writes.

    Nothing is written before the folder of the run is there: a command that was refused at once leaves none.

    Attributes:
        listener: For the stages: passes on what they say, and notes it.
    """

    def __init__(self, run_dir: Path, listener: Listener) -> None:
        self._run_dir = run_dir
        self._told = listener
        self._waiting: list[str] = []
        self._writes = process_rank() == 0
        self.listener: Listener = Noting(listener, lambda text: self.write("note", text))

    def write(self, what: str, text: str) -> None:
        """Append a line: time, process, what kind of line it is, and the text without its secrets.

        A log that cannot be written is no reason to stop; it is said once.
        """
        if not self._writes:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._waiting.append(f"{now} {os.getpid()} {what:<8} {_one_line(without_secrets(text))}\n")
        if not self._run_dir.is_dir():
            return
        lines = "".join(self._waiting).encode()
        self._waiting.clear()
        try:
            _append(self._run_dir / FOLDER, lines)
        except OSError as error:
            self._writes = False
            self._told.said(f"The log cannot be written: {error.strerror or error}.")

    def tell(self, text: str) -> None:
        """Say what the log has in words of its own."""
        self._told.said(text)

    @contextmanager
    def stage(self, name: str, reasons: Sequence[str]) -> Generator[None]:
        """Write when a stage begins and ends, and why it is done again; others can see that it runs."""
        since = f" again, because: {'; '.join(reasons)}" if reasons else ""
        self.write("begin", f"{name}{since}")
        started = time.monotonic()
        try:
            with announced(self._run_dir, name):
                yield
        except BaseException:
            self.write("failed", f"{name} after {_clock(started)}")
            raise
        self.write("end", f"{name} after {_clock(started)}")

    def findings(self, artifact: Artifact) -> None:
        """Write what an artifact warns of, and the gates that failed."""
        for kind in artifact.facts.get("warnings", ()):
            self.write("warning", _warning(kind))
        for gate in artifact.facts.get("gates", ()):
            if not gate["passed"]:
                text = f"{gate['gate']}: {gate['value']}, limit {gate['limit']}"
                self.write("warning", f"a gate of {artifact.kind} failed: {text}")


def _warning(kind: dict[str, Any]) -> str:
    first = kind["first"][0]
    more = f", and {kind['count'] - 1:,} more" if kind["count"] > 1 else ""
    return f"{kind['code']}: {first['message']} ({first['where']}{more})"


def _clock(started: float) -> str:
    return f"{time.monotonic() - started:.1f} s"


def _one_line(text: str) -> str:
    """Return a text in one line that a terminal shows as it is."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def _append(folder: Path, lines: bytes) -> None:
    """Write to the log, and through no link, which may lead anywhere."""
    folder.mkdir(exist_ok=True)
    if folder.is_symlink():
        raise OSError(None, "its folder is a link")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(folder / FILE, flags, 0o644)
    try:
        os.write(handle, lines)
    finally:
        os.close(handle)
