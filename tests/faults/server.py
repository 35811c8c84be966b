"""Forks a process for every case of harness.py, and watches what it does to files."""

import gc
import importlib
import importlib.util
import json
import os
import pickle
import resource
import selectors
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.harness import Fault

from tunewright import accel
from tunewright.errors import TunewrightError

SPEEDS = accel.Speeds(float32=2.0, bfloat16=1.0)
"""Of no machine: to measure one takes longer than most processes here live."""
PRELOADED = (
    "torch",
    "torch.utils.data",
    "transformers.models.qwen3.modeling_qwen3",
    "peft",
    "trl.trainer.sft_trainer",
    "tunewright.cli",
    "tunewright.data._prepare",
    "tunewright.data._check",
    "tunewright.train._plan",
    "tunewright.train._train",
    "tunewright.evaluate._compare",
    "tunewright.merge._merge",
    "tunewright.export._export",
    "tunewright.publish.versions._publish",
)
_EVENTS = {
    "os.rename": "rename",
    "os.link": "link",
    "os.symlink": "link",
    "os.remove": "unlink",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.truncate": "truncate",
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def serve() -> None:
    """Fork a process for every request until standard input ends."""
    for name in sys.argv[2:] or PRELOADED:
        importlib.import_module(name)
    accel.measure_speeds = lambda _: SPEEDS
    # Else every collection in a child would go through all modules, and copy their pages with it.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    wake, waker = socket.socketpair()
    waker.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, socket.socket] = {}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with selectors.DefaultSelector() as selector:
        for source in (listener, wake, sys.stdin):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if wake in ready:
                wake.recv(4096)
                _reap(children)
            if listener in ready:
                _fork(listener.accept()[0], children)
            if sys.stdin in ready:
                for pid in children:
                    os.killpg(pid, signal.SIGKILL)
                return


def _send(connection: socket.socket, **values: int) -> None:
    connection.sendall(json.dumps(values).encode() + b"\n")


def _reap(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        connection = children.pop(pid)
        _send(connection, code=os.waitstatus_to_exitcode(status))
        connection.close()


def _fork(connection: socket.socket, children: dict[int, socket.socket]) -> None:
    head, pipes, _, _ = socket.recv_fds(connection, 4, 3)
    (size,) = struct.unpack("!I", head)
    raw = b""
    while len(raw) < size:
        raw += connection.recv(size - len(raw))
    request = pickle.loads(raw)  # of our own making
    try:
        function = _function(request)
    except Exception:  # noqa: BLE001 - told by the child
        text = traceback.format_exc()

        def function(*_: Any) -> int:
            sys.stderr.write(text)
            return 1

    pid = os.fork()
    if not pid:
        _live(function, request, pipes, connection)
    for pipe in pipes:
        os.close(pipe)
    children[pid] = connection


_modules: dict[str, Any] = {}


def _function(request: dict[str, Any]) -> Callable[..., Any]:
    """Return the function itself; test files are no modules that can be imported by name."""
    name, file = request["module"], request["file"]
    if name.startswith(("tunewright", "faults")):
        module = importlib.import_module(name)
    elif file in _modules:
        module = _modules[file]
    else:
        spec = importlib.util.spec_from_file_location(f"target_{len(_modules)}", file)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _modules[file] = module
    return getattr(module, request["name"])


def _live(
    function: Callable[..., Any],
    request: dict[str, Any],
    pipes: list[int],
    connection: socket.socket,
) -> None:
    """Be the child; does not return."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(pipes[0], 1)
        os.dup2(pipes[1], 2)
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        if request["dies_of_limit"]:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _Watch(request["under"], request["fault"], pipes[2]).begin()
        for kind, limit in request["limits"].items():
            if limit is not None:
                resource.setrlimit(kind, (limit, limit))
        _send(connection, pid=os.getpid())
        connection.close()
        code = _ended(function, request["arguments"])
    except BaseException:  # noqa: BLE001 - the end of the process, whatever it is
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _ended(function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """Return the exit code; what a command tells of an error is told here too."""
    try:
        return function(*arguments) or 0
    except TunewrightError as error:
        for problem in error.problems:
            sys.stderr.write(f"ERROR {problem.code}: {problem.message}\n")
            sys.stderr.write(f"where: {problem.where}\nfix: {problem.fix}\n")
        return error.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1


class _Watch:
    """An audit hook that logs every call that changes files, and lets one go wrong."""

    def __init__(self, under: str | None, fault: Fault | None, log: int) -> None:
        self._under = under
        self._fault = fault
        self._log = log
        self._counted = 0
        self._is_own = False
        # What the function under test puts in their place is not for us.
        self._write, self._kill, self._fsync = os.write, os.kill, os.fsync

    def begin(self) -> None:
        """Watch from now on; fsync is the one call that Python has no audit event for."""
        os.fsync = self.fsync
        sys.addaudithook(self)

    def __call__(self, event: str, values: tuple[Any, ...]) -> None:
        if self._is_own or (event != "open" and event not in _EVENTS):
            return
        self._is_own = True
        try:
            if event != "open":
                folder = values[-1] if event != "os.truncate" else -1
                self._seen(_EVENTS[event], _path(values[0], folder))
            elif values[2] & _WRITES and not isinstance(values[0], int):
                self._seen("open", _path(values[0], -1))
        finally:
            self._is_own = False

    def fsync(self, handle: Any) -> None:
        """Stand in for os.fsync."""
        number = handle if isinstance(handle, int) else handle.fileno()
        self._seen("fsync", _path(number, -1))
        self._fsync(number)

    def _seen(self, name: str, path: str) -> None:
        root, fault = self._under, self._fault
        if root is not None and not (path == root or path.startswith(root + os.sep)):
            return
        self._write(self._log, json.dumps([name, path]).encode() + b"\n")
        if fault is None or fault.call not in (None, name):
            return
        number, self._counted = self._counted, self._counted + 1
        if number == fault.number or (fault.forever and number > fault.number):
            if fault.error is None:
                self._kill(os.getpid(), signal.SIGKILL)
            raise OSError(fault.error, os.strerror(fault.error or 0), path)


def _path(value: Any, folder: int) -> str:
    """Return the absolute path of a name, relative to an open folder, or of an open file."""
    if isinstance(value, int):
        return _opened(value)
    name = os.fsdecode(value)
    if isinstance(folder, int) and folder >= 0:
        return os.path.join(_opened(folder), name)  # noqa: PTH118 - of text
    return os.path.abspath(name)  # noqa: PTH100 - links stay


def _opened(handle: int) -> str:
    return str(Path(f"/proc/self/fd/{handle}").readlink())
