"""llama.cpp's HTTP server over the exported GGUF file, and a chat through it."""

import http.client
import json
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.errors import failure
from tunewright.events import Listener
from tunewright.models._llama import EndpointError, endpoint, post, requested
from tunewright.models.chat import Message
from tunewright.serve.history import fitting

ANSWER_SHARE = 4
"""One part in so many of the context is kept free for the answer."""


def serve_model(config: Config, exported: Artifact, *, listener: Listener) -> None:
    """Serve until interrupted; see `tunewright.serve.serve`."""
    options = config.serve
    with _interruptible(), _served(config, exported, options.host, options.port) as url:
        listener.said(f"Serving {exported.facts['served']} at {url}/v1 (Ctrl-C ends it).")
        listener.said(
            f"Try it: curl {url}/v1/chat/completions -H 'Content-Type: application/json' "
            '-d \'{"messages": [{"role": "user", "content": "Hello"}]}\''
        )
        if options.host not in ("127.0.0.1", "::1", "localhost"):
            listener.said(f"Anyone who can reach {options.host} can use it: it asks no password.")
        threading.Event().wait()


def chat_with(
    config: Config,
    exported: Artifact,
    *,
    ask: Callable[[], str | None],
    say: Callable[[str], None],
) -> None:
    """Hold a conversation; see `tunewright.serve.chat`."""
    context = _context(config, exported)
    system = config.export.system
    messages = [Message(role="system", content=system)] if system else []
    with _interruptible(), _served(config, exported, "127.0.0.1", 0) as url:

        def count(chat: Sequence[Message]) -> int:
            text = post(url, "/apply-template", {"messages": chat})["prompt"]
            return len(post(url, "/tokenize", {"content": text, "parse_special": True})["tokens"])

        while (line := ask()) is not None:
            if not line.strip():
                continue
            messages.append(Message(role="user", content=line))
            messages = fitting(messages, context - context // ANSWER_SHARE, count)
            pieces: list[str] = []
            try:
                for piece in _answer(url, messages):
                    pieces.append(piece)
                    say(piece)
            except EndpointError as error:
                raise failure(
                    "E_CONFIG_VALUE",
                    f"The question cannot be answered: {error}.",
                    where="export.num_ctx",
                    fix="Ask something shorter, or raise `export.num_ctx`.",
                ) from error
            say("\n")
            messages.append(Message(role="assistant", content="".join(pieces)))


def _answer(url: str, messages: Sequence[Message]) -> Generator[str]:
    """Give the pieces of an answer as they come."""
    body = {"messages": list(messages), "stream": True}
    with requested(url, "/v1/chat/completions", body) as response:
        for event in _events(response):
            for choice in event.get("choices", ()):
                if choice["delta"].get("content"):
                    yield choice["delta"]["content"]


def _events(response: http.client.HTTPResponse) -> Generator[dict[str, Any]]:
    """Give the JSON values of a stream of server-sent events."""
    for line in response:
        data = line.decode().removeprefix("data: ").strip()
        if line.startswith(b"data: ") and data != "[DONE]":
            yield json.loads(data)


def _context(config: Config, exported: Artifact) -> int:
    return min(config.export.num_ctx, exported.facts["context_length"])


def _served(
    config: Config, exported: Artifact, host: str, port: int
) -> AbstractContextManager[str]:
    return endpoint(
        exported.path / exported.facts["served"],
        host,
        port,
        _context(config, exported),
        temperature=config.export.temperature,
        top_p=config.export.top_p,
    )


@contextmanager
def _interruptible() -> Generator[None]:
    """End the block at Ctrl-C or SIGTERM, and go on after it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
