"""The HTTP server before every engine: key, limits, validation, queue, and answers that stop when nobody waits."""

import errno
import http.server
import io
import json
import select
import socket
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from tunewright.errors import failure
from tunewright.events import SILENT, Listener
from tunewright.serve import guard, replies
from tunewright.serve.answering import Answering, Defaults, EngineError, answering
from tunewright.serve.asked import Asked, RefusedError, asked_chat, asked_text, parsed
from tunewright.serve.connections import SECONDS, Connections, InTime
from tunewright.serve.engine import Engine
from tunewright.serve.queue import GoneError, Queue

MAX_BODY_BYTES = 4 * 2**20
MAX_DRAINED_BYTES = 64 * 2**20
"""Of a body that is too large so much is read, so that the refusal can be."""
LINGER_SECONDS = 2.0
"""How long a client that is refused may take to read why."""
END_SECONDS = 10.0
"""How long the answer under way may take to notice that it ends."""
MAX_MESSAGES = 512
MAX_READING = 2
"""Conversations that are put into tokens at a time."""
CHAT, TEXT, MODELS, HEALTH = "/v1/chat/completions", "/v1/completions", "/v1/models", "/health"
_FAULT = 500
METHODS: Mapping[str, str] = {CHAT: "POST", TEXT: "POST", MODELS: "GET", HEALTH: "GET"}


@dataclass(frozen=True)
class Site:
    """What a front serves.

    Attributes:
        engine: Makes the answers.
        model: Name of the model.
        host: Address that is bound.
        key: What requests have to show; None: nothing.
        defaults: For requests that leave them out.
        listener: Is told what fails here.
        queue: One answer is made at a time.
        reading: Limits how many requests are put into tokens at a time.
        created: Seconds since 1970.
        ending: Set: no more answers.
    """

    engine: Engine
    model: str
    host: str
    key: str | None
    defaults: Defaults
    listener: Listener = SILENT
    queue: Queue = field(default_factory=Queue)
    reading: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_READING))
    created: int = field(default_factory=lambda: int(time.time()))
    ending: threading.Event = field(default_factory=threading.Event)


@contextmanager
def front(site: Site, port: int) -> Generator[str]:
    """Give the URL under which an engine is served; it ends with the block.

    Raises:
        TunewrightError: E_PORT, the address cannot be bound.
    """
    server = _bound(site, port)
    thread = threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True)
    thread.start()
    name = f"[{site.host}]" if ":" in site.host else site.host
    try:
        yield f"http://{name}:{server.server_address[1]}"
    finally:
        site.ending.set()
        server.shutdown()
        # What is let go after us is still being computed with.
        site.queue.wait_empty(END_SECONDS)
        server.server_close()
        thread.join()


def _bound(site: Site, port: int) -> Connections:
    try:
        found = socket.getaddrinfo(
            site.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return Connections(found[0], found[4], partial(Handler, site), site.listener)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"fails: {error.strerror}"
        where = f"{site.host}:{port}"
        raise failure("E_PORT", f"The address {reason}.", where=where) from error


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = SECONDS

    def __init__(self, site: Site, *args: Any) -> None:
        self.site = site
        self._unread = False
        self._begun = False
        super().__init__(*args)

    def setup(self) -> None:
        """Read with one deadline for a whole request: a byte now and then keeps nothing open."""
        super().setup()
        self.rfile.close()
        self._in_time = InTime(self.connection)
        self.rfile = io.BufferedReader(self._in_time)

    def handle_one_request(self) -> None:
        """Answer a request whose head and body come in time."""
        self._unread = self._begun = False
        self._in_time.begin(self.timeout or SECONDS)
        super().handle_one_request()

    def do_GET(self) -> None:  # noqa: D102 - the name is the base's
        self._handle("GET")

    def do_POST(self) -> None:  # noqa: D102
        self._handle("POST")

    def version_string(self) -> str:
        """Return what the header Server says: no versions."""
        return "tunewright"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep no record of who asked what."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is not HTTP, or has another method."""
        self.close_connection = True
        text = message or HTTPStatus(code).phrase
        self._json(code, replies.error(RefusedError(f"{text}.", status=code)))

    def _handle(self, method: str) -> None:
        try:
            self._route(method)
        except RefusedError as refused:
            self._refuse(refused)
        except (GoneError, ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - the client is told, whatever it is
            self._failed(f"A request failed: {type(error).__name__}: {error}")

    def _refuse(self, refused: RefusedError) -> None:
        """Say why; whose body was not read gets the time to hear it."""
        if not self._unread:
            self._json(refused.status, replies.error(refused))
            return
        self.close_connection = True
        self._json(refused.status, replies.error(refused))
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._drain(MAX_BODY_BYTES, LINGER_SECONDS)

    def _failed(self, why: str) -> None:
        """Say here why, and there that it failed."""
        self.site.listener.said(why)
        self.close_connection = True
        told = replies.error(RefusedError("The answer failed; the server says why.", status=_FAULT))
        if not self._begun:
            self._json(_FAULT, told)
            return
        self._event(told)
        self._end()

    def _route(self, method: str) -> None:
        path = self.path.partition("?")[0]
        # Until it is read: it may be that nobody has to.
        self._unread = method == "POST" or self._has_body()
        if method == "GET" and self._unread:
            raise RefusedError("A GET has no body.")
        if path == HEALTH and method == "GET":
            self._json(200, {"status": "ok"})
            return
        self._require_allowed()
        known = METHODS.get(path) or ("GET" if path.startswith(f"{MODELS}/") else None)
        if known is None:
            raise RefusedError("There is no such path here.", status=404)
        if known != method:
            raise RefusedError(f"{path} is asked by {known}.", status=405)
        if method == "GET":
            self._models(path)
            return
        asked = parsed(self._body())
        if path == CHAT:
            most = min(MAX_MESSAGES, self.site.engine.context)
            self._answer(asked_chat(asked, max_messages=most))
        else:
            self._answer(asked_text(asked))

    def _has_body(self) -> bool:
        lengths = self.headers.get_all("Content-Length", [])
        return "Transfer-Encoding" in self.headers or any(one != "0" for one in lengths)

    def _require_allowed(self) -> None:
        """Refuse who has no key, and pages of other sites where none is asked for.

        Raises:
            RefusedError: 401 or 403.
        """
        site = self.site
        if not guard.shows_key(self.headers.get("Authorization"), site.key):
            message = "The API key is missing or wrong."
            raise RefusedError(message, status=401, code="invalid_api_key")
        hosts = self.headers.get_all("Host", [])
        if site.key is None and guard.is_local(site.host) and not guard.names_us(hosts, site.host):
            raise RefusedError("The Host header is not a name of this machine.", status=403)

    def _models(self, path: str) -> None:
        site = self.site
        if path == MODELS:
            self._json(200, replies.models([site.model], site.created))
        elif path == f"{MODELS}/{site.model}":
            self._json(200, replies.model(site.model, site.created))
        else:
            raise self._no_model()

    def _no_model(self) -> RefusedError:
        message = f"There is no such model here: this is '{self.site.model}'."
        return RefusedError(message, status=404, param="model", code="model_not_found")

    def _body(self) -> bytes:
        """Return the body of a request.

        Raises:
            RefusedError: It has no length, is too large, ends early, or is not said to be JSON.
        """
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit():
            raise RefusedError("Content-Length is missing.", status=411)
        size = int(lengths[0][:20])
        if "Transfer-Encoding" in self.headers:
            raise RefusedError("Content-Length and Transfer-Encoding exclude each other.")
        if size > MAX_BODY_BYTES:
            self._drain(min(size, MAX_DRAINED_BYTES), SECONDS)
            limit = f"The body is larger than {MAX_BODY_BYTES // 2**20} MiB."
            raise RefusedError(limit, status=413)
        body = self.rfile.read(size)
        if len(body) < size:
            raise GoneError
        self._unread = False
        # Pages of other sites may send any other type without asking first.
        if self.headers.get_content_type() != "application/json":
            raise RefusedError("Content-Type is not application/json.", status=415)
        return body

    def _drain(self, left: int, seconds: float) -> None:
        """Read what is not used."""
        self._in_time.begin(seconds)
        try:
            while left > 0 and (read := self.rfile.read1(min(left, 2**16))):
                left -= len(read)
        except (ConnectionError, TimeoutError):
            return

    def _wanted(self) -> bool:
        """Return whether the client is still there."""
        if self.site.ending.is_set():
            return False
        try:
            # Unlike select, it takes descriptors of any number.
            looked = select.poll()
            looked.register(self.connection, select.POLLIN)
            return not looked.poll(0) or self.connection.recv(1, socket.MSG_PEEK) != b""
        except (OSError, ValueError):
            return False

    def _answer(self, asked: Asked) -> None:
        """Answer as soon as it is the request's turn."""
        site = self.site
        if asked.model not in (None, site.model):
            raise self._no_model()
        try:
            with site.reading:
                made = answering(asked, site.engine, site.model, site.defaults)
            with site.queue.turn(self._wanted):
                if asked.stream:
                    self._stream(made)
                else:
                    self._json(200, made.whole(self._wanted))
        except EngineError as error:
            self._failed(f"An answer failed: {error}")

    def _stream(self, made: Answering) -> None:
        """Send an answer piece by piece."""
        with closing(made.events(self._wanted)) as events:
            first = next(events)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-cache")
            if self._chunked():
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            self._begun = True
            self._event(first)
            for event in events:
                self._event(event)
        self._write(b"data: [DONE]\n\n")
        self._end()

    def _chunked(self) -> bool:
        """Return whether the client knows chunks: HTTP/1.0 does not."""
        return self.request_version not in ("HTTP/0.9", "HTTP/1.0")

    def _event(self, value: Mapping[str, Any]) -> None:
        self._write(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        chunk = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        self.wfile.write(chunk if self._chunked() else data)

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n" if self._chunked() else b"")

    def _json(self, status: int, value: Mapping[str, Any]) -> None:
        data = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self._begun = True
        self.wfile.write(data)
