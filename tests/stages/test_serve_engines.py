"""What is served is what the model writes here: token by token, through the official client, for each engine."""

import http.client
import json
import re
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest
import torch
from support import ROOT
from transformers import AutoConfig

from tunewright.artifacts import load_artifact
from tunewright.errors import TunewrightError
from tunewright.export._gguf import gguf_tokenizer, write_gguf
from tunewright.export.architecture import shape_of
from tunewright.models._generate import generate
from tunewright.models._llama import EndpointError, post
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.chat import prompt_ids
from tunewright.models.sampling import Sampling
from tunewright.serve import servable_of
from tunewright.serve._llama_cpp import loaded
from tunewright.serve._open import opened
from tunewright.serve.answering import Defaults
from tunewright.serve.engine import Options
from tunewright.serve.front import Site, front

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("adapter", "merged", "exported")
CHATS = [
    [{"role": "user", "content": "The old house by the sea"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Émile says: 你好 👩‍👩‍👧  two  spaces"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And <|im_end|> then?"},
    ],
]
INJECTIONS = [
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for m in messages %}{{ m.__class__ }}{% endfor %}",
]
LENGTH = 32
LONG = {
    "merged": {"max_tokens": 1900, "temperature": 2.0, "top_p": 1.0, "seed": 1},
    "exported": {"max_tokens": 1900, "temperature": 2.0, "top_p": 1.0, "seed": 0},
}
"""Options of answers that have 1,900 tokens, and do not end before."""


@pytest.fixture(scope="module")
def engines(served_run):
    """Each engine with its name, loaded once."""
    with ExitStack() as stack:
        made = {}
        for kind in KINDS:
            model = _model(served_run, kind)
            made[kind] = (stack.enter_context(opened(served_run, model)), model.name)
        yield made


def _model(config, kind):
    return servable_of(config, load_artifact(Path(config.run_dir) / kind, kind))


@pytest.fixture(scope="module")
def urls(engines):
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(
                front(Site(engine, name, "127.0.0.1", None, Defaults(0.7, 0.8)), 0)
            )
            for kind, (engine, name) in engines.items()
        }


@pytest.fixture(scope="module")
def clients(urls):
    made = {
        kind: openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        for kind, url in urls.items()
    }
    yield made
    for client in made.values():
        client.close()


@pytest.fixture(scope="module")
def expected(engines):
    """What the local path writes: the answer to each chat, by the model that each engine has."""
    answers = {}
    for kind in ("adapter", "merged"):
        engine = engines[kind][0]
        answers[kind] = [
            generate(
                engine.model,
                engine.tokenizer,
                engine.vocabulary,
                [chat],
                sampling=Sampling(LENGTH, 0, 1.0),
                seed=1,
                max_seconds=100,
            )[0]
            for chat in CHATS
        ]
    # The GGUF file is the merged model.
    return answers | {"exported": answers["merged"]}


@pytest.mark.parametrize("kind", KINDS)
def test_served_answers_are_the_local_ones(clients, engines, expected, kind):
    for chat, local in zip(CHATS, expected[kind], strict=True):
        asked = {"model": engines[kind][1], "messages": chat, "max_tokens": LENGTH}
        whole = clients[kind].chat.completions.create(**asked, temperature=0)
        choice = whole.choices[0]
        assert choice.message.content == local.text
        assert choice.finish_reason == ("stop" if local.ended else "length")
        assert whole.usage.completion_tokens == local.tokens
        parts = list(
            clients[kind].chat.completions.create(
                **asked, temperature=0, stream=True, stream_options={"include_usage": True}
            )
        )
        texts = [p.choices[0].delta.content or "" for p in parts if p.choices]
        assert "".join(texts) == local.text
        assert sum(map(bool, texts)) > LENGTH // 3
        assert parts[-1].usage == whole.usage
        assert parts[-2].choices[0].finish_reason == choice.finish_reason


@pytest.mark.parametrize("kind", KINDS)
def test_each_token_is_as_likely_as_the_model_says(clients, engines, kind):
    """Against one pass over prompt and answer together, without a cache."""
    engine, name = engines[kind]
    answer = clients[kind].chat.completions.create(
        model=name,
        messages=CHATS[0],
        max_tokens=12,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    told = answer.choices[0].logprobs.content
    local = engines["adapter" if kind == "adapter" else "merged"][0]
    ids = prompt_ids(CHATS[0], local.vocabulary)
    with torch.inference_mode():
        for token in told:
            logs_V = torch.log_softmax(local.model(torch.tensor([ids])).logits[0, -1], dim=-1)
            best = int(logs_V.argmax())
            assert token.token == local._one(best, 0).text
            assert token.logprob == pytest.approx(float(logs_V[best]), abs=1e-4)
            assert [one.logprob for one in token.top_logprobs] == pytest.approx(
                torch.topk(logs_V, 2).values.tolist(), abs=1e-4
            )
            ids.append(best)
    assert len(told) == 12
    assert engine.context == 2048


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_continued(clients, engines, kind):
    name = engines[kind][1]
    local = engines["adapter" if kind == "adapter" else "merged"][0]
    ids = prompt_ids([{"role": "assistant", "content": "The sea"}], local.vocabulary)
    options = {"model": name, "max_tokens": 10, "temperature": 0}
    answer = clients[kind].completions.create(prompt="The sea", **options)
    assert clients[kind].completions.create(prompt=ids, **options).choices == answer.choices
    streamed = clients[kind].completions.create(prompt="The sea", stream=True, **options)
    assert "".join(p.choices[0].text for p in streamed) == answer.choices[0].text
    with torch.inference_mode():
        for _ in range(10):
            ids.append(int(local.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert local.tokenizer.decode(ids) == "The sea" + answer.choices[0].text


@pytest.mark.parametrize("kind", ["merged", "exported"])
def test_a_seed_gives_the_same_answer_again_and_another_one_another(clients, engines, kind):
    def ask(seed):
        answer = clients[kind].chat.completions.create(
            model=engines[kind][1], messages=CHATS[0], max_tokens=20, temperature=1.5, seed=seed
        )
        return answer.choices[0].message.content

    assert ask(7) == ask(7)
    assert len({ask(seed) for seed in range(4)}) > 1


def test_sampling_follows_temperature_top_k_and_top_p():
    """Shares of 1,500 draws against the distribution, which is computed here by hand."""
    from tunewright.serve._transformers import picked

    logits_V = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    dice = torch.Generator().manual_seed(3)

    def shares(**given):
        options = Options(1, **given)
        draws = [picked(logits_V, options, dice) for _ in range(1500)]
        return [draws.count(token) / 1500 for token in range(5)]

    plain = [float(torch.exp(v)) for v in logits_V / 0.8]
    assert shares(temperature=0.8) == pytest.approx([v / sum(plain) for v in plain], abs=0.05)
    two = plain[:2]
    expected = [v / sum(two) for v in two] + [0, 0, 0]
    assert shares(temperature=0.8, top_k=2) == pytest.approx(expected, abs=0.05)
    # The first has 0.63, the second 0.18: together they are the smallest set that has 0.7.
    assert shares(temperature=0.8, top_p=0.7) == pytest.approx(expected, abs=0.05)
    assert shares(temperature=0.8, top_p=0.5) == [1, 0, 0, 0, 0]
    assert shares(temperature=0) == [1, 0, 0, 0, 0]
    # Divided by so little, the logits of some types are infinite.
    assert shares(temperature=1e-45) == [1, 0, 0, 0, 0]
    assert shares(temperature=0.8, top_k=2**62) == pytest.approx(shares(temperature=0.8), abs=0.05)


def test_llama_cpp_gets_only_seeds_that_are_seeds():
    """One number means: another seed each time."""
    from tunewright.serve._llama_cpp import _body

    for seed in (0, 7, 2**32 - 2, 2**32 - 1, 2**63 - 1):
        assert 0 <= _body([1], Options(1, 0.8, seed=seed))["seed"] < 2**32 - 1
    assert "seed" not in _body([1], Options(1, 0.8))
    assert _body([1], Options(1, 1e-9))["temperature"] == 0


def test_a_gguf_file_is_looked_at_elsewhere_before_it_is_read(tmp_path, monkeypatch):
    from tunewright.serve import _llama_cpp

    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + b"\xff" * 60)
    monkeypatch.setattr(_llama_cpp, "read_layout", lambda path: pytest.fail("it was read here"))
    with (
        pytest.raises(TunewrightError, match="E_GGUF_INVALID"),
        _llama_cpp.loaded(file, None, 64),
    ):
        pass


def test_a_text_that_decodes_otherwise_than_it_was_told_goes_on(engines, monkeypatch):
    """Tokenizers gives up there with a bare exception; a new stream goes on."""
    from tunewright.serve import _transformers

    real, broken, steps = _transformers.DecodeStream, {3}, []

    class Stream:
        def __init__(self, *args, **kwargs):
            self.own = real(*args, **kwargs)

        def step(self, tokenizer, token):
            steps.append(token)
            if len(steps) in broken:
                raise Exception("Invalid prefix encountered while decoding")  # noqa: TRY002
            return self.own.step(tokenizer, token)

    local, _ = engines["adapter"]
    ids = local.read([{"role": "user", "content": "Hello"}])
    expected = list(local.answer(ids, Options(6, 0)))
    monkeypatch.setattr(_transformers, "DecodeStream", Stream)
    tokens = list(local.answer(ids, Options(6, 0)))
    assert len(steps) == len(tokens) + 1
    assert [token.id for token in tokens] == [token.id for token in expected]
    assert "".join(t.text for t in tokens) == "".join(t.text for t in expected)


@pytest.mark.parametrize("kind", ["merged", "exported"])
def test_a_stop_ends_the_answer_before_it(clients, engines, expected, kind):
    text = expected[kind][0].text
    stop = text[12:15]
    answer = clients[kind].chat.completions.create(
        model=engines[kind][1], messages=CHATS[0], max_tokens=LENGTH, temperature=0, stop=stop
    )
    assert answer.choices[0].message.content == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < LENGTH


@pytest.mark.parametrize("kind", ["merged", "exported"])
@pytest.mark.parametrize(
    "extra", [{"chat_template": "EVIL {{ messages }}"}, {"chat_template_kwargs": {"a": 1}}]
)
def test_no_request_brings_a_chat_template(clients, engines, kind, extra):
    """RELIABILITY.md S3."""
    with pytest.raises(openai.BadRequestError, match="the one of training") as caught:
        clients[kind].chat.completions.create(
            model=engines[kind][1], messages=CHATS[0], extra_body=extra
        )
    assert caught.value.param == next(iter(extra))
    assert caught.value.type == "invalid_request_error"


def test_llama_cpp_itself_answers_nobody_else(engines):
    """Its own routes would take what ours refuse."""
    url = engines["exported"][0].url
    for path in ("/v1/chat/completions", "/completion", "/tokenize", "/apply-template"):
        with pytest.raises(EndpointError, match=r"(?i)api key"):
            post(url, path, {"messages": CHATS[0], "prompt": "x", "content": "x"})


@pytest.mark.parametrize("kind", ["merged", "exported"])
def test_what_does_not_fit_the_context_is_refused(clients, engines, kind):
    with pytest.raises(openai.BadRequestError, match="2,048") as caught:
        clients[kind].completions.create(model=engines[kind][1], prompt="word " * 3000)
    assert caught.value.code == "context_length_exceeded"


def test_a_file_alone_reads_as_the_tokenizer_of_training(engines, served_run):
    """Without the tokenizer's files: template and tokens of the GGUF file, which llama.cpp tokenises."""
    model = _model(served_run, "exported")
    assert model.tokenizer is not None
    with loaded(model.path, None, 256) as alone:
        known = engines["exported"][0]
        for chat in CHATS:
            assert alone.read(chat) == known.read(chat)
        assert alone.read_text("The  sea\n\n🙂") == known.read_text("The  sea\n\n🙂")
        assert alone.vocabulary.ends == known.vocabulary.ends
        assert alone.vocabulary_size == known.vocabulary_size == 4096
        assert alone.context == 256


def test_a_special_token_that_a_user_types_is_text(engines):
    for kind in ("merged", "exported"):
        engine = engines[kind][0]
        ends = engine.vocabulary.special["<|im_end|>"]
        assert engine.read(CHATS[1]).count(ends) == 4


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["merged", "exported"])
def test_a_client_that_goes_away_ends_the_generation(urls, clients, engines, kind, stream):
    """The next answer comes long before the rest of 1,900 tokens could have been made."""
    options = LONG[kind] | {"model": engines[kind][1], "messages": CHATS[0]}

    def seconds(tokens):
        started = time.monotonic()
        made = clients[kind].chat.completions.create(**options | {"max_tokens": tokens})
        assert made.usage.completion_tokens == tokens
        return time.monotonic() - started

    hundred = seconds(100)
    connection = _send(urls[kind], options | {"stream": stream})
    if stream:
        response = connection.getresponse()
        for _ in range(6):
            response.readline()
        response.close()
    else:
        time.sleep(hundred / 2)
    connection.close()
    assert seconds(2) < 6 * hundred


@pytest.mark.parametrize("kind", ["merged", "exported"])
def test_health_is_told_while_an_answer_is_made(urls, kind):
    """The middle one of 15 takes less than 100 ms."""
    connection = _send(urls[kind], LONG[kind] | {"messages": CHATS[0], "stream": True})
    response = connection.getresponse()
    drained = threading.Thread(target=lambda: _drain(response), daemon=True)
    drained.start()
    seconds = [_health_seconds(urls[kind]) for _ in range(15)]
    still_on = drained.is_alive()
    connection.sock.close()
    connection.close()
    assert still_on
    assert sorted(seconds)[7] < 0.1


BOMB = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% if 'boom' in m.content %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    "{% endif %}{% endfor %}"
)
"""A template that burns at one word."""


def test_health_is_told_while_a_template_burns(engines):
    """RELIABILITY.md S2. Who asked gets an error in OpenAI's shape, and the next question an answer."""
    engine, name = engines["exported"]
    burning = replace(engine, vocabulary=replace(engine.vocabulary, template=BOMB))
    asked = {"model": name, "messages": [{"role": "user", "content": "boom"}], "max_tokens": 2}
    with front(Site(burning, name, "127.0.0.1", None, Defaults(0.7, 0.8)), 0) as url:
        connection = _send(url, asked)
        seconds = [_health_seconds(url) for _ in range(15)]
        response = connection.getresponse()
        error = json.loads(response.read())["error"]
        connection.close()
        assert response.status == 400
        assert error["code"] == "invalid_prompt"
        assert "longer than 2 s" in error["message"]
        assert sorted(seconds)[7] < 0.1
        other = _send(url, asked | {"messages": CHATS[0]})
        assert other.getresponse().status == 200
        other.close()


@pytest.mark.parametrize("template", INJECTIONS)
def test_a_template_in_a_gguf_file_reaches_nothing(served_run, tmp_path, monkeypatch, template):
    """RELIABILITY.md S1, for the metadata of a file; every injection goes the same way, see test_rendering.py."""
    monkeypatch.chdir(tmp_path)
    merged = Path(served_run.run_dir) / "merged"
    shape = shape_of(AutoConfig.from_pretrained(merged).to_dict())
    tokenizer = gguf_tokenizer(load_tokenizer(merged), shape.vocabulary)
    write_gguf(
        tmp_path / "evil.gguf",
        model=merged,
        shape=shape,
        tokenizer=replace(tokenizer, chat_template=template),
        type_name="F32",
        advanced=lambda done, detail: None,
    )
    with (
        loaded(tmp_path / "evil.gguf", None, 64) as engine,
        pytest.raises(TunewrightError, match="E_TEMPLATE_UNSAFE") as caught,
    ):
        engine.read(CHATS[0])
    assert caught.value.exit_code == 9
    assert not (tmp_path / "CANARY").exists()


def test_a_folder_without_a_template_in_its_file_says_so(engines):
    engine = engines["exported"][0]
    without = replace(engine, vocabulary=replace(engine.vocabulary, template=""))
    with pytest.raises(TunewrightError, match="no chat template"):
        without.read(CHATS[0])


def test_the_tokenizer_is_the_one_of_training(served_run):
    """Another template in the base changes nothing: what an adapter's folder has counts."""
    template = load_tokenizer(Path(served_run.run_dir) / "adapter").chat_template
    with opened(served_run, _model(served_run, "adapter")) as engine:
        assert engine.vocabulary.template == template


def test_the_guide_asks_as_it_is_answered(urls, expected, capsys):
    """The guide's own code, with the address of a server that runs, and the question of a test."""
    text = (ROOT / "docs" / "guides" / "serve-with-vllm.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = code.replace("http://127.0.0.1:8080", urls["exported"])
    code = code.replace("Review: the plan has no dates.", CHATS[0][0]["content"])
    exec(code, {})
    assert capsys.readouterr().out.startswith(expected["exported"][0].text)


def _connected(url):
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)


def _health_seconds(url):
    started = time.monotonic()
    connection = _connected(url)
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read()) == {"status": "ok"}
    connection.close()
    return time.monotonic() - started


def _send(url, body):
    connection = _connected(url)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return connection


def _drain(response):
    with suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
        while response.read1():
            pass
