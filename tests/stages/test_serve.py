import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from transformers import AutoConfig

from tunewright.config.schema import Config
from tunewright.errors import TunewrightError
from tunewright.export._gguf import gguf_tokenizer, write_gguf
from tunewright.export.architecture import shape_of
from tunewright.models._folders import resolve_model
from tunewright.models._llama import EndpointError, endpoint, post, requested
from tunewright.models._tokenizer import load_tokenizer
from tunewright.serve import GgufModel, serve
from tunewright.serve._llama_cpp import _events
from tunewright.serve.guard import KEY


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "t-F16.gguf"
    model = resolve_model("tunewright/tiny")
    shape = shape_of(AutoConfig.from_pretrained(model).to_dict())
    write_gguf(
        path,
        model=model,
        shape=shape,
        tokenizer=gguf_tokenizer(load_tokenizer(model), shape.vocabulary),
        type_name="F16",
        advanced=lambda done, detail: None,
    )
    return path


@pytest.fixture(scope="module")
def url(file):
    with endpoint(file, ctx=256) as url:
        yield url


def get(url, path, **headers):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_models_and_health(url):
    assert urlsplit(url).hostname == "127.0.0.1"
    assert json.loads(get(url, "/health")[1]) == {"status": "ok"}
    (model,) = json.loads(get(url, "/v1/models")[1])["data"]
    assert model["id"] == "t-F16"


def test_completions(url):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0}
    answer = post(url, "/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 5
    answer = post(url, "/v1/completions", {"prompt": "The sea", "max_tokens": 5})
    assert isinstance(answer["choices"][0]["text"], str)


def test_streamed_and_whole_answers_are_equal(url):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12, "temperature": 0}
    whole = post(url, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
    with requested(url, "/v1/chat/completions", body | {"stream": True}) as response:
        pieces = [e["choices"][0]["delta"].get("content") for e in _events(response)]
    assert "".join(piece or "" for piece in pieces) == whole


def test_a_bad_request_says_why(url):
    with pytest.raises(EndpointError, match="messages"):
        post(url, "/v1/chat/completions", {})


@pytest.mark.parametrize("path", ["/", "/slots", "/metrics", "/tools", "/cors-proxy"])
def test_nothing_but_inference_is_on(url, path):
    response, _ = get(url, path)
    assert response.status >= 400


def test_pages_of_other_origins_cannot_read(url):
    response, _ = get(url, "/v1/models", Origin="http://evil.example")
    assert not response.getheader("Access-Control-Allow-Origin")


def test_the_server_ends_with_its_block(file):
    with endpoint(file, ctx=256) as url:
        get(url, "/health")
    with pytest.raises(ConnectionRefusedError):
        get(url, "/health")


def test_an_address_in_use(file):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(TunewrightError, match="E_PORT") as caught,
            endpoint(file, port=port),
        ):
            pass
    assert caught.value.problems[0].where == f"127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["203.0.113.9", "no such host"])
def test_an_address_of_another_machine(file, host):
    with (
        pytest.raises(TunewrightError, match="E_PORT"),
        endpoint(file, host),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "code"), [(None, "E_NOT_FOUND"), (b"no GGUF", "E_GGUF_INVALID")]
)
def test_a_file_that_is_no_gguf(tmp_path, content, code):
    file = tmp_path / "m.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TunewrightError, match=code), endpoint(file):
        pass


def test_llama_cpp_stays_silent(file, capfd):
    with endpoint(file) as url:
        post(url, "/v1/completions", {"prompt": "The sea", "max_tokens": 5})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_the_command_serves_until_interrupted(file, number):
    command = [sys.executable, "-m", "tunewright", "serve", str(file), "--port", "0"]
    env = os.environ | {KEY: "sesame"}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    said = [child.stderr.readline().strip() for _ in range(4)]
    assert said[:2] == [
        f"Serving {file} as 't-F16'.",
        "engine: llama.cpp, since it is a GGUF file",
    ]
    url = said[2].split()[1].removesuffix("/v1")
    assert said[3].startswith(f"Try it: curl {url}/v1/chat/completions")
    assert KEY in said[3]
    assert "sesame" not in said[3]
    assert get(url, "/health")[0].status == 200
    assert get(url, "/v1/models")[0].status == 401
    assert get(url, "/v1/models", Authorization="Bearer sesame")[0].status == 200
    os.kill(child.pid, number)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_others_need_a_key(file, host, monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    config = Config(name="t", prepare={"source": "x"}, serve={"host": host})
    with pytest.raises(TunewrightError, match="E_CONFIG_VALUE: Anyone who can reach") as caught:
        serve(config, GgufModel("t", "t", file))
    assert caught.value.exit_code == 2
    assert KEY in caught.value.problems[0].fix


def test_the_front_tells_an_address_that_cannot_be_bound(file):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = Config(name="t", prepare={"source": "x"}, serve={"port": port})
        with pytest.raises(TunewrightError, match="E_PORT: The address is in use"):
            serve(config, GgufModel("t", "t", file))
