"""llama.cpp in this process: a GGUF file behind a local HTTP endpoint."""

import errno
import http.client
import json
import os
import queue
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import xllamacpp

from tunewright.errors import failure
from tunewright.machine import cpu_count
from tunewright.models.gguf_check import require_gguf


class EndpointError(Exception):
    """The endpoint refused a request; the text says why."""


_BYTES_PER_THREAD = 64 * 2**20
"""Weights that keep a thread busy: with less, threads wait for each other at every layer."""


@contextmanager
def endpoint(
    gguf: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    ctx: int = 2048,
    *,
    temperature: float = 0.8,
    top_p: float = 0.95,
    key: str | None = None,
    exact: bool = False,
    own_template: bool = True,
) -> Generator[str]:
    """Give the URL under which llama.cpp serves a GGUF file; it ends with the block.

    Pages of other origins cannot read the answers, and nothing but inference is switched on.

    Args:
        gguf: The file.
        host: Address to bind.
        port: Port to bind; 0: any free one.
        ctx: Tokens of context.
        temperature: For requests that name none.
        top_p: For requests that name none.
        key: What requests have to show; None: anyone of this machine may ask.
        exact: Attention is computed in 32 bits, not 16: slower, and twice the memory, for weights in 32 bits.
        own_template: llama.cpp's chats are written by the file's template. False: nobody asks for chats, and a
            template that may be anybody's is not read in this process.

    Raises:
        TunewrightError: E_PORT, the address is in use or not this machine's. E_NOT_FOUND, there is
            no such file. E_GGUF_INVALID, its header or tensor table cannot be trusted.
            E_ARTIFACT_INVALID, llama.cpp cannot load it.
    """
    if not gguf.is_file():
        raise failure("E_NOT_FOUND", "There is no such GGUF file.", where=gguf)
    require_gguf(gguf)
    _require_bindable(host, port)
    params = xllamacpp.CommonParams()  # pyright: ignore[reportAttributeAccessIssue] - no stubs
    params.model.path = str(gguf)
    params.model_alias = {gguf.stem}
    params.hostnames = [host]
    params.port = port
    params.n_ctx = ctx
    params.sampling.temp = temperature
    params.sampling.top_p = top_p
    if exact:
        _compute_exactly(params)
    if not own_template:
        params.chat_template = "chatml"
    params.verbosity = -1
    params.warmup = False
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = ""
    params.cors_credentials = False
    params.api_keys = [key] if key else []
    threads = max(1, min(cpu_count(), gguf.stat().st_size // _BYTES_PER_THREAD))
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    started: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
    stop = threading.Event()
    holder = threading.Thread(target=_hold, args=(params, started, stop, key), daemon=True)
    holder.start()
    try:
        outcome = _outcome(started, holder)
        if isinstance(outcome, Exception):
            raise failure(
                "E_ARTIFACT_INVALID", f"llama.cpp cannot use the GGUF file: {outcome}.", where=gguf
            ) from outcome
        yield outcome
    finally:
        stop.set()
        holder.join()


def _compute_exactly(params: Any) -> None:
    """Keep keys and values in float32, without flash attention, whose sums llama.cpp makes in float16."""
    names: Any = xllamacpp
    params.cache_type_k = params.cache_type_v = names.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = names.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED


def _outcome(
    started: "queue.SimpleQueue[str | Exception]", holder: threading.Thread
) -> str | Exception:
    """Return what the thread says, or that it died without a word."""
    while True:
        try:
            return started.get(timeout=1)
        except queue.Empty:
            if not holder.is_alive():
                return RuntimeError("it ended without an answer")


def _hold(
    params: Any,
    started: "queue.SimpleQueue[str | Exception]",
    stop: threading.Event,
    key: str | None,
) -> None:
    """Keep a server alive until `stop`.

    In a thread, because an interrupt that destroyed a server before its loop runs would wait for
    ever: the loop would then start, and miss that it was told to end. Interrupts reach only the
    main thread, and an answer proves that the loop runs.
    """
    try:
        server = xllamacpp.Server(params)  # pyright: ignore[reportAttributeAccessIssue] - no stubs
        url = str(server.listening_address)
        post(url, "/completion", {"prompt": [0], "n_predict": 1}, key)
    except (RuntimeError, OSError, EndpointError) as error:
        started.put(error.with_traceback(None))
        return
    started.put(url)
    stop.wait()


def post(url: str, path: str, body: Mapping[str, Any], key: str | None = None) -> Any:
    """Return the JSON answer of an endpoint; past any proxy that the environment names.

    Raises:
        EndpointError: The endpoint refused.
    """
    with requested(url, path, body, key) as response:
        return json.loads(response.read())


@contextmanager
def requested(
    url: str, path: str, body: Mapping[str, Any], key: str | None = None
) -> Generator[http.client.HTTPResponse]:
    """Give the open answer to a POST, so that it can be read while it is made.

    Raises:
        EndpointError: The endpoint refused.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    with closing(connection):
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise EndpointError(_reason(response.read(2000)))
        yield response


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def _require_bindable(host: str, port: int) -> None:
    """Try the address first: llama.cpp waits for ever for one that is not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"fails: {error.strerror}"
        raise failure("E_PORT", f"The address {reason}.", where=f"{host}:{port}") from error
