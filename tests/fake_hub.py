"""A server on this machine that speaks the part of the Hugging Face Hub's HTTP API that datasets and models need.

The real client library talks to it through its `endpoint`. What was committed is kept commit by
commit; faults are switched on by the test. Large files go through LFS, basic or in parts.
"""

import socket
import threading
import time
import types
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_hub_api import Answer, Api, Repo, error

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Fault:
    """What goes wrong for requests of a method whose path holds a text."""

    method: str
    path: str
    times: int
    status: int | None = None
    cut_after: int | None = None
    lose_answer: bool = False
    message: str = "made to fail"


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    token: str | None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients hang up, and so do we."""


class FakeHub:
    """The server. Use it as a context; `url` is the endpoint.

    Attributes:
        tokens: Token to `write` or `read`.
        accepted: Tokens whose owner has accepted the terms of gated repositories.
        seen: Requests in the order of their arrival.
        licences: Those that a card may name.
        part_bytes: Size of the parts that large files are uploaded in; None: in one.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.tokens: dict[str, str] = {}
        self.accepted: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.actions: list[tuple[str, str, Callable[[], None]]] = []
        self.licences = {
            "apache-2.0",
            "mit",
            "cc-by-4.0",
            "cc0-1.0",
            "llama3.1",
            "other",
            "unknown",
        }
        self.part_bytes: int | None = None
        self.lock = threading.Lock()
        self.before_commit: Callable[[], None] | None = None
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(
        self,
        repo_id: str,
        files: dict[str, bytes | str],
        *,
        kind: str = "datasets",
        private: bool = False,
        gated: bool = False,
    ) -> Repo:
        """Make a repository with one commit."""
        repo = Repo(private, gated)
        raw = {k: v.encode() if isinstance(v, str) else v for k, v in files.items()}
        repo.commit("main", "first", raw)
        self.repos[kind, repo_id] = repo
        return repo

    def dataset(self, repo_id: str) -> Repo:
        return self.repos["datasets", repo_id]

    def fail(
        self, method: str, path: str, status: int, times: int = 1, message: str = "made to fail"
    ) -> None:
        """Answer the next requests with an error."""
        self.faults.append(Fault(method, path, times, status=status, message=message))

    def before(self, method: str, path: str, action: "Callable[[], None]") -> None:
        """Do something once, when the whole of such a request has arrived; then answer it."""
        self.actions.append((method, path, action))

    def action(self, method: str, path: str) -> None:
        with self.lock:
            found = [a for a in self.actions if a[0] == method and a[1] in path][:1]
            self.actions = [a for a in self.actions if a not in found]
        for _, _, action in found:
            action()

    def cut(self, method: str, path: str, after_bytes: int, times: int = 1) -> None:
        """Close the connection after so many bytes of the body: of the request for PUT and POST."""
        self.faults.append(Fault(method, path, times, cut_after=after_bytes))

    def lose_answer(self, method: str, path: str, times: int = 1) -> None:
        """Do what was asked, then close the connection without a word."""
        self.faults.append(Fault(method, path, times, lose_answer=True))

    def disturb(self, how: str, method: str, path: str) -> None:
        """Let the next such request end with an error (500), a cut connection, or a lost answer."""
        if how == "500":
            self.fail(method, path, 500)
        elif how == "cut":
            self.cut(method, path, 100)
        else:
            self.lose_answer(method, path)

    def commit_between(self, kind: str, repo_id: str) -> None:
        """Let somebody else commit a file `x`, just before the next commit arrives."""

        def other() -> None:
            self.before_commit = None
            repo = self.repos[kind, repo_id]
            repo.commit("main", "theirs", {**repo.files, "x": b"1"})

        self.before_commit = other

    def count(self, method: str, path: str) -> int:
        return sum(s.method == method and path in s.path for s in self.seen)

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault
        return None


def connect(
    hub: FakeHub, monkeypatch: Any, cache: Path, token: str | None = None, scope: str = "write"
) -> None:
    """Point this process's client at the server: no waiting between retries, a cache of its own."""
    from huggingface_hub import constants, file_download, hf_api
    from huggingface_hub.utils import _http

    clock = types.SimpleNamespace(sleep=lambda _: None, time=time.time)
    monkeypatch.setattr(_http, "time", clock)
    monkeypatch.setattr(file_download, "time", clock)
    for name, value in environment(hub, cache, token).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        hub.tokens[token] = scope


def environment(hub: FakeHub, cache: Path, token: str | None = None) -> dict[str, str]:
    """Return what a process needs in its environment to talk to the server."""
    found = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return found | ({} if token is None else {"HF_TOKEN": token})


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    # Otherwise a body waits 40 ms for the acknowledgement of its headers.
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        authorization = self.headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ") or None
        with self.hub.lock:
            self.hub.seen.append(Seen(self.command, self.path, token))
        fault = self.hub.fault(self.command, self.path)
        size = int(self.headers.get("Content-Length") or 0)
        if fault and fault.cut_after is not None and size:
            self.rfile.read(min(size, fault.cut_after))
            self._hang_up()
            return
        body = self._body(size)
        if fault and fault.status is not None:
            self._send(error(fault.status, fault.message))
            return
        self.hub.action(self.command, self.path)
        answer = Api(self.hub, self.command, self.path, token, body, self.headers).answer()
        if fault and fault.lose_answer:
            self._hang_up()
            return
        self._send(answer, fault.cut_after if fault else None)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _body(self, size: int) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(size)
        chunks: list[bytes] = []
        while length := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: Answer, cut_after: int | None = None) -> None:
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut_after is not None:
            self.wfile.write(answer.body[:cut_after])
            self.wfile.flush()
            self._hang_up()
            return
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
