"""Runs a function in a process of its own, kills it where you say, and tells what it left.

A server imports torch and the like once; every case is a fork of it, which takes milliseconds. Nothing in
the product knows of this: calls to the system are watched from outside with an audit hook.

    def work(folder: Path) -> None: ...            # at the top level of its file; arguments are pickled

    def test_it(forks, tmp_path):                  # the fixture `forks` is in conftest.py
        whole = forks.run(Case(work, (tmp_path / "a",), under=tmp_path))
        for point in range(len(whole.calls)):      # every mkdir, open, fsync, rename, unlink, ... in order
            killed = forks.run(Case(work, (tmp_path / "b",), under=tmp_path, fault=Fault(point)))
            assert killed.was_killed
            assert forks.run(Case(work, (tmp_path / "b",))).code == 0

Other ways to fail:

    Fault(3, "fsync")                              # killed just before the fourth fsync
    Fault(0, "rename", errno.EIO)                  # the first rename fails with EIO
    Fault(0, "fsync", errno.EIO, forever=True)     # this one and all later ones
    Case(..., kill_after_s=0.3)                    # SIGKILL to the process group after that time
    Case(..., file_limit=1000)                     # no file can grow beyond this: EFBIG
    Case(..., torn_at=1000)                        # the same, but the process dies there: a torn file
    Case(..., memory_limit=2**31)                  # RLIMIT_AS
    child = forks.start(Case(...)); child.signal(signal.SIGTERM); child.wait()

A command: `Case(command, (["train", "run.yaml"],))`. `Result.problems` are what it said;
`result.require("E_IO")` asserts the contract of an error: code, place, way out, exit code, no traceback.
"""

import json
import os
import pickle
import re
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunewright.errors import CODES

TESTS = Path(__file__).parent.parent
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
}
"""One thread: a process that forks must have no other."""


@dataclass(frozen=True)
class Call:
    """A call to the system that changes files.

    Attributes:
        name: open (for writing), fsync, rename, unlink, mkdir, rmdir, link or truncate.
        path: What it is about.
    """

    name: str
    path: str


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        number: Which of the calls, 0 is the first.
        call: Name of the calls that are counted; None: all.
        error: errno of the failure; None: the process is killed before the call.
        forever: All later ones fail too.
    """

    number: int
    call: str | None = None
    error: int | None = None
    forever: bool = False


@dataclass(frozen=True)
class Case:
    """A function, and how its process is disturbed.

    Attributes:
        function: At the top level of its file. What it returns is the exit code, None: 0.
        arguments: Pickled.
        under: Only calls about files in this folder are counted.
        fault: At a call to the system.
        kill_after_s: The process group gets SIGKILL after that time.
        file_limit: Bytes that no file may exceed.
        torn_at: Bytes of a file at which the process dies.
        memory_limit: Bytes of address space.
        environment: Variables besides those there are.
        folder: Working folder.
        timeout_s: A case that takes longer has failed.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    under: Path | None = None
    fault: Fault | None = None
    kill_after_s: float | None = None
    file_limit: int | None = None
    torn_at: int | None = None
    memory_limit: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    timeout_s: float = 120.0


@dataclass(frozen=True)
class Result:
    """What became of a case.

    Attributes:
        code: Exit code, or the signal's number below zero.
        stdout: What it wrote.
        stderr: What it wrote.
        calls: Calls to the system, in order; the last one of a killed process did not happen.
        seconds: From the fork to the end.
    """

    code: int
    stdout: str
    stderr: str
    calls: tuple[Call, ...]
    seconds: float

    @property
    def was_killed(self) -> bool:
        """Whether it died of SIGKILL, or of a file that reached `torn_at`."""
        return self.code in (-signal.SIGKILL, -signal.SIGXFSZ)

    @property
    def problems(self) -> list[tuple[str, str, str, str]]:
        """Code, message, place and way out of each error it told."""
        block = r"^ERROR (E_\w+): (.+)\nwhere: (.+)\nfix: (.+)$"
        return re.findall(block, self.stderr, re.MULTILINE)

    def require(self, code: str) -> None:
        """Assert that it refused with this code and in the form that every refusal has."""
        said = f"exit code {self.code}, last call {self.calls[-1:]}, stderr:\n{self.stderr}"
        assert "Traceback" not in self.stderr, said
        assert self.problems, said
        assert self.problems[0][0] == code, said
        assert self.code == CODES[code].exit_code, said
        assert len(self.problems) == self.stderr.count("ERROR "), said


def command(arguments: list[str]) -> int:
    """Run a command of Tunewright: `Case(command, (["prepare", "run.yaml"],))`."""
    from tunewright.cli import main

    return main(arguments)


class Child:
    """A case under way.

    Attributes:
        pid: Of the process, which leads a group of its own.
    """

    def __init__(self, case: Case, address: str) -> None:
        self._case = case
        self._pipes = [os.pipe() for _ in range(3)]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        request = pickle.dumps(_request(case))
        writers = [write for _, write in self._pipes]
        socket.send_fds(self._socket, [struct.pack("!I", len(request))], writers)
        self._socket.sendall(request)
        for write in writers:
            os.close(write)
        self._started = time.monotonic()
        self.pid = int(_line(self._socket)["pid"])

    def signal(self, number: int) -> None:
        """Send a signal to the process and all that it started."""
        os.killpg(self.pid, number)

    def wait(self) -> Result:
        """Return what became of it; kills it when its time is over.

        Raises:
            TimeoutError: It took longer than it may.
        """
        late = self._case.kill_after_s
        texts = self._read(self._started + (self._case.timeout_s if late is None else late))
        is_over = len(texts) == len(self._pipes)
        if not is_over:
            # It may have ended by itself just now, or not lead its group yet.
            with suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            texts = self._read(time.monotonic() + 10)
        status = int(_line(self._socket)["code"])
        self._socket.close()
        for read, _ in self._pipes:
            os.close(read)
        if not is_over and late is None:
            raise TimeoutError(f"{self._case.function.__name__} took too long: {texts}")
        stdout, stderr, calls = (texts[number].decode(errors="replace") for number in range(3))
        found = tuple(Call(*json.loads(line)) for line in calls.splitlines())
        return Result(status, stdout, stderr, found, time.monotonic() - self._started)

    def _read(self, until: float) -> dict[int, bytes]:
        """Return what came through each pipe that has ended by then."""
        gathered = self.__dict__.setdefault("_gathered", [b"", b"", b""])
        ended = self.__dict__.setdefault("_ended", set())
        with selectors.DefaultSelector() as selector:
            for number, (read, _) in enumerate(self._pipes):
                if number not in ended:
                    selector.register(read, selectors.EVENT_READ, number)
            while selector.get_map() and (left := until - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    chunk = os.read(key.fd, 65536)
                    gathered[key.data] += chunk
                    if not chunk:
                        ended.add(key.data)
                        selector.unregister(key.fd)
        return {number: gathered[number] for number in ended}


class Forks:
    """The server: `with Forks() as forks`; `modules` are what it loads in place of torch and all stages."""

    def __init__(self, *modules: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name) / "s")
        path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
        environment = os.environ | ENVIRONMENT | {"PYTHONPATH": path}
        program = "from faults.server import serve; serve()"
        self._server = subprocess.Popen(
            [sys.executable, "-c", program, self._address, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        assert self._server.stdout
        if self._server.stdout.readline() != b"ready\n":
            raise RuntimeError("the server of the fault tests did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.communicate()
        self._folder.cleanup()

    def start(self, case: Case) -> Child:
        """Return the case as it begins."""
        return Child(case, self._address)

    def run(self, case: Case) -> Result:
        """Return what became of a case."""
        return self.start(case).wait()


def _request(case: Case) -> dict[str, Any]:
    function = case.function
    return {
        "module": function.__module__,
        "file": function.__code__.co_filename,
        "name": function.__qualname__,
        "arguments": case.arguments,
        "under": None if case.under is None else str(case.under.resolve()),
        "fault": case.fault,
        "limits": {
            resource.RLIMIT_FSIZE: case.file_limit if case.torn_at is None else case.torn_at,
            resource.RLIMIT_AS: case.memory_limit,
        },
        "dies_of_limit": case.torn_at is not None,
        "environment": dict(case.environment),
        "folder": str(case.folder or Path.cwd()),
    }


def _line(connection: socket.socket) -> dict[str, int]:
    text = b""
    while not text.endswith(b"\n"):
        chunk = connection.recv(1)
        if not chunk:
            raise RuntimeError("the server of the fault tests has died")
        text += chunk
    return json.loads(text)
