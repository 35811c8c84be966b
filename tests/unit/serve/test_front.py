"""The server before the engines, over an engine that answers as it is told: RELIABILITY.md W11, and who may ask."""

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import openai
import pytest

from tunewright.errors import failure
from tunewright.serve import connections
from tunewright.serve import front as front_module
from tunewright.serve.answering import MAX_TOKEN_BYTES, Defaults
from tunewright.serve.engine import Options, Token
from tunewright.serve.front import MAX_BODY_BYTES, Site, front

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
JSON = {"Content-Type": "application/json"}


@dataclass
class Echo:
    """An engine whose tokens are characters: it says what it read, and counts how far it came."""

    context: int = 64
    vocabulary_size: int = 0x110000
    seconds: float = 0.0
    fails: type[Exception] | None = None
    made: int = 0
    closed: threading.Event = field(default_factory=threading.Event)
    options: list[Options] = field(default_factory=list)

    def read(self, messages):
        if any("forbidden" in m["content"] for m in messages):
            raise failure("E_TEMPLATE", "The chat template fails: no.", where="chat_template")
        return [ord(c) for m in messages for c in m["content"]]

    def read_text(self, text):
        return [ord(c) for c in text]

    def answer(self, ids, options):
        self.options.append(options)
        try:
            for number, token in enumerate([*ids, 0][: options.max_tokens]):
                if self.fails and number == 2:
                    raise self.fails("out of memory at 0x7f")
                time.sleep(self.seconds)
                self.made += 1
                yield Token(token, chr(token) if token else "", ends=not token)
        finally:
            self.closed.set()


@pytest.fixture
def engine():
    return Echo()


@pytest.fixture
def said():
    return []


@pytest.fixture
def serving(engine, said):
    """A function that gives the URL of a server with these settings."""
    from contextlib import ExitStack

    class Listener:
        def started(self, stage, total, unit): ...
        def advanced(self, done, detail): ...
        def said(self, text):
            said.append(text)

    with ExitStack() as stack:

        def serve(key=None, host="127.0.0.1"):
            site = Site(engine, "echo", host, key, Defaults(0.7, 0.8), Listener())
            return stack.enter_context(front(site, 0))

        yield serve


def ask(url, method="POST", path="/v1/chat/completions", body=None, headers=None):
    """Return status, headers and the JSON body of an answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, data, JSON if headers is None else headers)
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response, json.loads(raw)


def client_of(url, key="none"):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def test_the_official_client_is_answered(serving, engine):
    with client_of(serving()) as client:
        assert [m.id for m in client.models.list()] == ["echo"]
        assert client.models.retrieve("echo").owned_by == "tunewright"
        whole = client.chat.completions.create(model="echo", **HELLO)
        assert whole.choices[0].message.content == "Hello"
        assert whole.choices[0].finish_reason == "stop"
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 6)
        parts = list(client.chat.completions.create(model="echo", stream=True, **HELLO))
        assert [p.choices[0].delta.content for p in parts] == ["", *"Hello", None]
        assert parts[-1].choices[0].finish_reason == "stop"
        text = client.completions.create(model="echo", prompt="Hello", max_tokens=3)
        assert (text.choices[0].text, text.choices[0].finish_reason) == ("Hel", "length")
    assert engine.options[0] == Options(max_tokens=59, temperature=0.7, top_p=0.8)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "JSON"),
        (b"", 400, "JSON"),
        (b"\xff\xfe", 400, "UTF-8"),
        (b"[" * 200_000, 400, "nested"),
        (b'{"messages": [], "temperature": NaN}', 400, "NaN"),
        (HELLO | {"temperature": -1}, 400, "temperature"),
        (HELLO | {"max_tokens": -1}, 400, "max_tokens"),
        (HELLO | {"n": 2}, 400, "'n'"),
        (HELLO | {"model": "gpt"}, 404, "no such model"),
        (HELLO | {"chat_template": "{{ x }}"}, 400, "template"),
        (HELLO | {"chat_template_kwargs": {"x": 1}}, 400, "template"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "role"),
        ({"messages": [{"role": "user", "content": "forbidden"}]}, 400, "template"),
        ({"messages": [{"role": "user", "content": "x" * 64}]}, 400, "context"),
        ({"messages": [{"role": "user", "content": "x"}] * 10_000}, 400, "context"),
        ({"messages": [{"role": "user", "content": "x"}] * 1_000_000}, 413, "larger"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_requests_get_errors_in_the_shape_of_openai(serving, engine, body, status, word):
    response, answer = ask(serving(), body=body)
    assert response.status == status
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert word in answer["error"]["message"]
    assert "Traceback" not in json.dumps(answer)
    assert ".py" not in json.dumps(answer)
    assert engine.made == 0


def test_requests_that_are_no_http_or_go_elsewhere(serving):
    url = serving()
    assert ask(url, "GET", "/")[0].status == 404
    assert ask(url, "GET", "/v1/../../etc/passwd")[0].status == 404
    assert ask(url, "POST", "/v1/embeddings", {})[0].status == 404
    assert ask(url, "GET", "/v1/chat/completions")[0].status == 405
    assert ask(url, "POST", "/v1/models", {})[0].status == 405
    assert ask(url, "GET", "/v1/models/other")[0].status == 404
    response, answer = ask(url, "DELETE", "/v1/models/echo")
    assert response.status == 501
    assert answer["error"]["type"] == "server_error"
    assert "Python" not in response.getheader("Server")
    for raw in (b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with socket.create_connection(urlsplit(url).netloc.split(":")) as stream:
            stream.sendall(raw)
            assert b'{"error"' in stream.recv(4096)


def test_bodies_without_a_sure_length_are_refused(serving):
    url = serving()
    for headers, status in (
        ("Content-Length: x", 411),
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: 2\r\nContent-Length: 4", 411),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", 400),
        ("Content-Length: -5", 411),
    ):
        with socket.create_connection(urlsplit(url).netloc.split(":")) as stream:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{{}}"
            stream.sendall(head.encode())
            assert f"HTTP/1.1 {status}".encode() in stream.recv(4096)


def test_a_body_that_is_too_large_is_refused_and_the_server_lives(serving, monkeypatch):
    url = serving()
    body = b'{"messages": "' + b"x" * MAX_BODY_BYTES + b'"}'
    assert ask(url, body=body)[0].status == 413
    assert ask(url, body=HELLO)[0].status == 200


def test_other_pages_cannot_ask(serving):
    """No page may read an answer; what a page may send unasked, and by whose name, is refused."""
    url = serving()
    evil = {"Origin": "http://evil.example"}
    response, _ = ask(url, body=HELLO, headers=JSON | evil)
    assert response.getheader("Access-Control-Allow-Origin") is None
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(url, body=HELLO, headers={"Content-Type": kind} | evil)[0].status == 415
    for host in ("evil.example", "127.0.0.1.nip.io", "localhost.evil.example:80"):
        assert ask(url, body=HELLO, headers=JSON | {"Host": host})[0].status == 403
        assert ask(url, "GET", "/v1/models", headers={"Host": host})[0].status == 403
    response, _ = ask(url, "OPTIONS", headers=evil)
    assert response.status == 501
    assert response.getheader("Access-Control-Allow-Origin") is None


def test_the_key_is_asked_for_everywhere_but_at_health(serving):
    url = serving("sesame")
    for key in ("none", "sesam", "sesame2"):
        with client_of(url, key) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.chat.completions.create(model="echo", **HELLO)
            assert caught.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
    with client_of(url, "sesame") as client:
        assert client.chat.completions.create(model="echo", **HELLO).choices
    assert ask(url, "GET", "/health")[1] == {"status": "ok"}
    assert ask(url, "GET", "/v1/models?api_key=sesame")[0].status == 401
    assert ask(url, body=b"{", headers=JSON)[0].status == 401


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_the_generation(serving, engine, stream):
    engine.seconds, engine.context = 0.02, 4000
    parts = urlsplit(serving())
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    long = {"messages": [{"role": "user", "content": "x" * 1000}], "stream": stream}
    connection.request("POST", "/v1/chat/completions", json.dumps(long), JSON)
    while engine.made < 3:
        time.sleep(0.01)
    connection.sock.close()
    connection.close()
    assert engine.closed.wait(5)
    assert engine.made < 400


def test_one_that_waits_and_goes_away_is_never_answered(serving, engine):
    engine.seconds, engine.context = 0.02, 4000
    url = serving()
    parts = urlsplit(url)
    first = threading.Thread(
        target=ask,
        args=(url,),
        kwargs={"body": {"messages": [{"role": "user", "content": "x" * 40}]}},
    )
    first.start()
    while not engine.made:
        time.sleep(0.01)
    second = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    second.request("POST", "/v1/chat/completions", json.dumps(HELLO), JSON)
    time.sleep(0.1)
    second.sock.close()
    second.close()
    first.join()
    assert ask(url, body={"messages": [{"role": "user", "content": "z"}]})[0].status == 200
    assert [o.max_tokens for o in engine.options] == [4000 - 40, 4000 - 1]


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_that_fails_is_told_here_and_not_there(serving, engine, said, stream):
    engine.fails = RuntimeError
    url = serving()
    with (
        client_of(url) as client,
        pytest.raises(openai.APIError, match="server says why") as caught,
    ):
        answer = client.chat.completions.create(model="echo", stream=stream, **HELLO)
        list(answer if stream else ())
    assert "0x7f" not in str(caught.value)
    assert said == ["An answer failed: out of memory at 0x7f"]
    engine.fails = None
    assert ask(url, body=HELLO)[0].status == 200


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fails", [LookupError, ConnectionResetError, BrokenPipeError, Exception])
def test_whatever_the_engine_raises_is_told(serving, engine, said, fails, stream):
    """Also what breaks between us and llama.cpp, which is no client that has gone."""
    url = serving()
    engine.fails = fails
    with client_of(url) as client, pytest.raises(openai.APIError, match="server says why"):
        answer = client.chat.completions.create(model="echo", stream=stream, **HELLO)
        list(answer if stream else ())
    assert said == [f"An answer failed: {fails.__name__}: out of memory at 0x7f"]
    engine.fails = None
    assert ask(url, body=HELLO)[0].status == 200


def test_a_fault_of_ours_is_told_here_and_the_server_lives(serving, said, monkeypatch):
    url = serving()
    with monkeypatch.context() as patch:
        patch.setattr(front_module, "asked_chat", lambda *_, **__: 1 / 0)
        response, answer = ask(url, body=HELLO)
    assert response.status == 500
    assert answer["error"]["type"] == "server_error"
    assert said == ["A request failed: ZeroDivisionError: division by zero"]
    assert ask(url, body=HELLO)[0].status == 200


def told_to(url, *sent, pause=0.0):
    """Return all that comes back to these bytes until the connection ends."""
    with socket.create_connection(urlsplit(url).netloc.split(":"), timeout=10) as stream:
        for data in sent:
            stream.sendall(data)
            time.sleep(pause)
        got = b""
        while data := stream.recv(4096):
            got += data
        return got


def test_who_may_not_ask_sends_no_body(serving):
    """The refusal comes before the body, and the connection ends."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
    told = told_to(serving("sesame"), head + b"Host: localhost\r\nContent-Length: 999\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 401")
    assert b"Connection: close" in told
    told = told_to(serving(), head + b"Host: evil.example\r\nContent-Length: 999\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "header", ["Content-Length: 40", "Transfer-Encoding: chunked", "Content-Length: x"]
)
@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_a_get_smuggles_no_second_request(serving, header, path):
    second = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n"
    told = told_to(serving(), head.encode() + second)
    assert told.startswith(b"HTTP/1.1 400")
    assert told.count(b"HTTP/1.1") == 1


def test_a_get_may_say_that_it_has_no_body(serving):
    assert ask(serving(), "GET", "/health", headers={"Content-Length": "0"})[0].status == 200


def test_a_client_of_http_1_0_gets_no_chunks(serving):
    body = json.dumps(HELLO | {"stream": True}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    headers, _, text = told_to(serving(), head.encode() + body).partition(b"\r\n\r\n")
    assert b"chunked" not in headers
    assert b"Connection: close" in headers
    events = text.decode().strip().split("\n\n")
    assert all(event.startswith("data: ") for event in events)
    assert events[-1] == "data: [DONE]"


def test_connections_have_a_limit(serving, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    url = serving()
    open_ones = [socket.create_connection(urlsplit(url).netloc.split(":")) for _ in range(2)]
    assert told_to(url).startswith(b"HTTP/1.1 503")
    for one in open_ones:
        one.close()
    until = time.monotonic() + 5
    while told_to(url, b"GET /health HTTP/1.0\r\n\r\n")[9:12] != b"200":
        assert time.monotonic() < until


def test_a_request_that_comes_byte_by_byte_has_one_deadline(serving, monkeypatch):
    monkeypatch.setattr(front_module.Handler, "timeout", 0.3)
    url = serving()
    for head in (
        b"GET /health HTTP/1.1\r\nX: ",
        b"POST /v1/completions HTTP/1.1\r\n"
        b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n",
    ):
        with socket.create_connection(urlsplit(url).netloc.split(":"), timeout=10) as stream:
            stream.sendall(head)
            ended = False
            for _ in range(40):
                time.sleep(0.05)
                try:
                    stream.sendall(b"x")
                except OSError:
                    ended = True
                    break
            assert ended


def test_what_cannot_fit_by_its_size_is_never_put_into_tokens(serving, engine):
    engine.read = lambda messages: pytest.fail("it was read")
    engine.read_text = engine.read
    text = "x" * (64 * MAX_TOKEN_BYTES + 1)
    url = serving()
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
        ("/v1/completions", {"prompt": text}),
    ):
        response, answer = ask(url, path=path, body=body)
        assert response.status == 400
        assert answer["error"]["code"] == "context_length_exceeded"


def test_options_that_no_engine_could_hold(serving, engine):
    """More than there are tokens is all of them."""
    assert ask(serving(), body=HELLO | {"top_k": 2**62, "temperature": 1e-9})[0].status == 200
    assert engine.options[0].top_k == engine.vocabulary_size
    assert engine.options[0].greedy
    assert not Options(1, 1e-4).greedy


def test_at_most_512_messages_whatever_the_context(serving, engine):
    engine.context = 10_000
    one = {"role": "user", "content": "x"}
    url = serving()
    assert ask(url, body={"messages": [one] * 512, "max_tokens": 1})[0].status == 200
    assert ask(url, body={"messages": [one] * 513, "max_tokens": 1})[0].status == 400


def test_two_at_a_time_are_put_into_tokens(serving, engine):
    now, most, lock = [0], [0], threading.Lock()

    def read(messages):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.1)
        with lock:
            now[0] -= 1
        return [65]

    engine.read = read
    url = serving()
    threads = [threading.Thread(target=ask, args=(url,), kwargs={"body": HELLO}) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [2]


def test_a_connection_that_says_nothing_is_closed(serving, monkeypatch):
    monkeypatch.setattr(front_module.Handler, "timeout", 0.2)
    with socket.create_connection(urlsplit(serving()).netloc.split(":")) as stream:
        stream.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        )
        stream.settimeout(5)
        assert stream.recv(100) == b""


def test_the_block_ends_after_the_answer_under_way(engine):
    """What the engine computes with may be let go after it."""
    engine.seconds, engine.context = 0.3, 4000
    site = Site(engine, "echo", "127.0.0.1", None, Defaults(0.7, 0.8))
    long = {"messages": [{"role": "user", "content": "x" * 1000}]}
    with front(site, 0) as url:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
        connection.request("POST", "/v1/chat/completions", json.dumps(long), JSON)
        while not engine.made:
            time.sleep(0.01)
    assert engine.closed.is_set()
    assert engine.made < 10
    connection.close()


def test_ipv6(serving):
    url = serving(host="::1")
    assert url.startswith("http://[::1]:")
    assert ask(url, "GET", "/v1/models")[0].status == 200


def test_the_server_ends_with_its_block(engine):
    site = Site(engine, "echo", "127.0.0.1", None, Defaults(0.7, 0.8))
    with front(site, 0) as url:
        assert ask(url, "GET", "/health")[0].status == 200
    with pytest.raises(ConnectionRefusedError):
        ask(url, "GET", "/health")
