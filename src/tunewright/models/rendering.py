"""Chat templates of other people are rendered in a process of its own, with limits on time and memory."""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import resources
from typing import IO, Any

from tunewright.models.templating import Refused, rendered

SECONDS, MEGABYTES = 2.0, 256
"""Processor time and memory that a rendering may take; templates in use take milliseconds."""
PATIENCE_SECONDS = 60.0
"""A busy machine may let a process wait; that time is not the template's."""
ENDING_SECONDS = 0.2
CHUNK = 2**16


MOST_CHARACTERS = 1_000_000
"""Of a template; the longest in use have some ten thousand."""


def render(template: str, values: Mapping[str, Any] | None) -> str:
    """Return what a template writes; one that came with Tunewright is rendered here, and others by a child.

    Args:
        template: Jinja.
        values: Names that it may use, as JSON values; None: it is only read.

    Raises:
        Refused: It fails, is unsafe, or takes more time or memory than a chat template may.
    """
    if len(template) > MOST_CHARACTERS:
        text = f"it has {len(template):,} characters, {MOST_CHARACTERS:,} are allowed"
        raise Refused("limit", text)
    if template in _own():
        return rendered(template, values)
    return _CHILD.render(template, values)


@cache
def _own() -> frozenset[str]:
    """Return the templates of this package."""
    folder = resources.files("tunewright.models")
    files = [f for f in (folder / "templates").iterdir() if f.name.endswith(".jinja")]
    files.append(folder / "assets" / "tiny" / "chat_template.jinja")
    return frozenset(file.read_text(encoding="utf-8") for file in files)


class _Child:
    """A process that renders one template at a time; it is ended where one takes too long, and begun anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def render(self, template: str, values: Mapping[str, Any] | None) -> str:
        """Return what a template writes; see the function of this name."""
        request = json.dumps({"template": template, "values": values}).encode() + b"\n"
        with self._lock:
            answer = self._asked(self._running(), request)
        if "text" in answer:
            return answer["text"]
        raise Refused(answer["kind"], answer["error"], answer.get("line"))

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, begun if there is none; that of the process this one was forked from is not ours."""
        if self._owner != os.getpid():
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            limits = [str(MEGABYTES), str(SECONDS)]
            words = [sys.executable, "-I", "-m", "tunewright.models._render_child", *limits]
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for this process; the child ends with its input.
                start_new_session=True,
            )
            _line(_pipe(self._process.stdout), PATIENCE_SECONDS)
        return self._process

    def _asked(self, process: subprocess.Popen[bytes], request: bytes) -> dict[str, Any]:
        try:
            pipe = _pipe(process.stdin)
            pipe.write(request)
            pipe.flush()
            return json.loads(_line(_pipe(process.stdout), PATIENCE_SECONDS))
        except (OSError, EOFError):
            # Beyond its memory Python itself may come to an end.
            late = self.end() in (-signal.SIGPROF, -signal.SIGKILL)
            much = f"longer than {SECONDS:g} s" if late else f"more than {MEGABYTES} MB"
        return {"kind": "limit", "error": f"it takes {much}"}

    def end(self) -> int | None:
        """End the process, if it is ours, and return what it ended with."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return None
        try:
            # One that the system has ended says why.
            process.wait(timeout=ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                _pipe(pipe).close()
        return process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise TypeError("the child was begun without pipes")
    return pipe


def _line(pipe: IO[bytes], seconds: float) -> bytes:
    """Return the next line of a pipe.

    Raises:
        TimeoutError: There was none in time.
        EOFError: There is none any more.
    """
    found = bytearray()
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    while not found.endswith(b"\n"):
        if not waiting.poll(seconds * 1000):
            raise TimeoutError
        part = os.read(pipe.fileno(), CHUNK)
        if not part:
            raise EOFError
        found += part
    return bytes(found)


_CHILD = _Child()
atexit.register(_CHILD.end)
