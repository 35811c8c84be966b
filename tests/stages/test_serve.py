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

from tunewright.artifacts import load_artifact, writing
from tunewright.config.schema import Config
from tunewright.errors import TunewrightError
from tunewright.export._gguf import gguf_tokenizer, write_gguf
from tunewright.export.architecture import shape_of
from tunewright.models._llama import EndpointError, endpoint, post, requested
from tunewright.models._load import load_tokenizer, resolve_model
from tunewright.serve import chat
from tunewright.serve._serve import _events

CHILD = """
import sys
from pathlib import Path
from tunewright.artifacts import load_artifact
from tunewright.config.schema import Config
from tunewright.serve import serve

class Printer:
    def started(self, stage, total, unit): pass
    def advanced(self, done, detail): pass
    def said(self, text): print(text, flush=True)

config = Config(name="t", prepare={"source": "x"}, serve={"port": 0})
serve(config, load_artifact(Path(sys.argv[1]), "exported"), listener=Printer())
print("ended", flush=True)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "exported"
    model = resolve_model("tunewright/tiny")
    shape = shape_of(AutoConfig.from_pretrained(model).to_dict())
    with writing(path, "exported", settings={}, parents={}) as draft:
        write_gguf(
            draft.path / "t-F16.gguf",
            model=model,
            shape=shape,
            tokenizer=gguf_tokenizer(load_tokenizer(model), shape.vocabulary),
            type_name="F16",
            advanced=lambda done, detail: None,
        )
        draft.facts.update(served="t-F16.gguf", context_length=shape.context_length)
    return load_artifact(path, "exported")


@pytest.fixture(scope="module")
def url(exported):
    with endpoint(exported.path / "t-F16.gguf", ctx=256) as url:
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


def test_the_server_ends_with_its_block(exported):
    with endpoint(exported.path / "t-F16.gguf", ctx=256) as url:
        get(url, "/health")
    with pytest.raises(ConnectionRefusedError):
        get(url, "/health")


def test_an_address_in_use(exported):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(TunewrightError, match="E_PORT") as caught,
            endpoint(exported.path / "t-F16.gguf", port=port),
        ):
            pass
    assert caught.value.problems[0].where == f"127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["203.0.113.9", "no such host"])
def test_an_address_of_another_machine(exported, host):
    with (
        pytest.raises(TunewrightError, match="E_PORT"),
        endpoint(exported.path / "t-F16.gguf", host),
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


def test_llama_cpp_stays_silent(exported, capfd):
    with endpoint(exported.path / "t-F16.gguf") as url:
        post(url, "/v1/completions", {"prompt": "The sea", "max_tokens": 5})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_interrupted(exported, number):
    command = [sys.executable, "-c", CHILD, str(exported.path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = child.stdout.readline()
    url = first.split(" at ")[1].split("/v1")[0]
    assert "t-F16.gguf" in first
    assert child.stdout.readline().startswith(f"Try it: curl {url}/v1/chat/completions")
    assert get(url, "/health")[0].status == 200
    os.kill(child.pid, number)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (0, "ended\n", "")


def conversation(exported, lines, **export_options):
    options = {"temperature": 0, **export_options}
    config = Config(name="t", prepare={"source": "x"}, export=options)
    queue, said = [*lines, None], []
    chat(config, exported, ask=lambda: queue.pop(0), say=said.append)
    return said


def test_chat_streams_and_remembers(exported, monkeypatch):
    from tunewright.serve import _serve

    seen = []
    plain = _serve._answer
    monkeypatch.setattr(
        _serve, "_answer", lambda url, chat: seen.append(list(chat)) or plain(url, chat)
    )
    said = conversation(exported, ["Hello", "  ", "And then?"], system="Be brief.", num_ctx=512)
    assert said.count("\n") == 2
    assert [m["role"] for m in seen[0]] == ["system", "user"]
    assert [m["role"] for m in seen[1]][:1] == ["system"]
    assert seen[1][-1] == {"role": "user", "content": "And then?"}
    answer = "".join(said).split("\n")[0]
    assert len(said) > 2
    assert answer


def test_a_question_longer_than_the_context(exported):
    with pytest.raises(TunewrightError, match="E_CONFIG_VALUE"):
        conversation(exported, ["word " * 400], num_ctx=128)


def test_an_interrupted_chat_ends(exported):
    def interrupt():
        raise KeyboardInterrupt

    config = Config(name="t", prepare={"source": "x"})
    assert chat(config, exported, ask=interrupt, say=lambda text: None) is None
