"""A small server that speaks the OpenAI API, for tests: it answers as it is told, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeOpenAI:
    """What a server does, and what it was asked.

    Attributes:
        reply: Text of the answer to a request's body.
        models: Names that it lists.
        faults: Status, headers and body of the first answers, before it answers rightly.
        requests: Path, headers and body of each request.
        url: Up to `/v1`.
    """

    reply: Callable[[Mapping[str, Any]], str]
    models: tuple[str, ...] = ("only",)
    faults: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bodies(self) -> list[dict[str, Any]]:
        """Return what was asked."""
        return [body for _, _, body in self.requests]


@contextmanager
def serving(fake: FakeOpenAI) -> Generator[FakeOpenAI]:
    """Give the server under an address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"data": [{"id": name} for name in fake.models]})

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            sent = self.rfile.read(size)
            # Who asked may be gone before all of the question is sent.
            if len(sent) < size:
                return
            body = json.loads(sent)
            with fake.lock:
                fake.requests.append((self.path, dict(self.headers), body))
                fault = fake.faults.pop(0) if fake.faults else None
            if fault:
                self._raw(*fault)
                return
            text = fake.reply(body)
            said = {"text": text} if "prompt" in body else {"message": {"content": text}}
            cut = len(text.split()) >= body["max_tokens"]
            choice = {**said, "finish_reason": "length" if cut else "stop"}
            self._send({"choices": [choice], "usage": {"completion_tokens": len(text.split()) + 1}})

        def _send(self, value: Any) -> None:
            self._raw(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def _raw(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            # Who asked may not wait for the answer.
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
