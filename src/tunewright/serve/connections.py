"""Connections of the server: not more than a limit, and none that takes as long as it likes."""

import io
import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tunewright.events import Listener
from tunewright.serve import replies
from tunewright.serve.asked import RefusedError

SECONDS = 60.0
"""How long a request may take to arrive, and how long a client may take to read a piece of the answer."""
MAX_CONNECTIONS = 128
"""More than the requests that may wait: those hear that too many do."""


class InTime(io.RawIOBase):
    """The bytes that a socket receives, until a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + SECONDS

    def begin(self, seconds: float) -> None:
        """Set the deadline, so many seconds from now."""
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive some bytes.

        Raises:
            TimeoutError: The deadline has passed.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        before = self._connection.gettimeout()
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(before)


class Connections(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A thread for each connection; they end with the process."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        family: socket.AddressFamily,
        address: Any,
        handler: Callable[..., socketserver.BaseRequestHandler],
        listener: Listener,
    ) -> None:
        self.address_family = family
        self._listener = listener
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, if there is a place for it."""
        if not self._places.acquire(blocking=False):
            _refuse(request)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what went wrong here; connections that break are nobody's fault."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            self._listener.said(f"A request failed: {type(error).__name__}: {error}")


def _refuse(connection: socket.socket) -> None:
    refused = RefusedError("Too many connections are open; try again later.", status=503)
    data = json.dumps(replies.error(refused)).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    try:
        # Nothing here may wait for a client: this thread accepts the others.
        connection.setblocking(False)
        connection.send(head.encode() + data)
    except OSError:
        return
