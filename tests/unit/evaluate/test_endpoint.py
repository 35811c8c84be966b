"""OpenAI-compatible endpoints: what is asked, what is done about faults, and what is told of them."""

import time
from contextlib import ExitStack

import pytest
from fake_openai import FakeOpenAI, serving

from tunewright.errors import TunewrightError
from tunewright.evaluate._endpoint import TRIES, _key, endpoint
from tunewright.models.sampling import Sampling, TimeUpError

SAMPLING = Sampling(max_new_tokens=5, temperature=0.7, top_p=0.9)
ASKED = [[{"role": "user", "content": f"Question {n}?"}] for n in range(3)]


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "TUNED_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")


@pytest.fixture
def opened():
    with ExitStack() as stack:

        def start(fake, model=None, **options):
            url = stack.enter_context(serving(fake)).url
            made = endpoint(
                url, model, name="tuned", where="--tuned-url", sampling=SAMPLING, **options
            )
            one = stack.enter_context(made)
            object.__setattr__(one, "sleep", fake_waits.append)
            return one

        fake_waits: list[float] = []
        start.waits = fake_waits
        yield start


def echo(body):
    return body["messages"][-1]["content"] if "messages" in body else body["prompt"]


def test_answers_come_in_order_with_seeds_and_standard_fields(opened):
    fake = FakeOpenAI(echo)
    one = opened(fake, extra={"top_k": 7})
    answers = one.answer(ASKED, seed=10, max_seconds=30)
    assert [answer.text for answer in answers] == ["Question 0?", "Question 1?", "Question 2?"]
    assert [(answer.tokens, answer.ended) for answer in answers] == [(3, True)] * 3
    body = next(b for b in fake.bodies() if b["messages"] == ASKED[2])
    assert body == {
        "model": "only",
        "max_tokens": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 12,
        "top_k": 7,
        "messages": ASKED[2],
    }
    assert "Authorization" not in fake.requests[0][1]


def test_an_answer_at_the_limit_has_not_ended_and_a_thought_is_no_part_of_it(opened):
    one = opened(FakeOpenAI(lambda body: "<think>\n\n</think>\n\none two three four five"))
    (answer,) = one.answer(ASKED[:1], seed=1, max_seconds=30)
    assert answer.text == "one two three four five"
    assert not answer.ended


def test_raw_text_is_gone_on_with(opened):
    fake = FakeOpenAI(echo)
    opened(fake, "only").answer(
        [[{"role": "assistant", "content": "Once"}]], seed=1, max_seconds=30
    )
    path, _, body = fake.requests[0]
    assert path == "/v1/completions"
    assert body["prompt"] == "Once"
    assert body["model"] == "only"


def test_a_busy_server_is_asked_again_when_it_says(opened):
    faults = [(429, {"Retry-After": "3"}, b""), (503, {}, b"")]
    one = opened(FakeOpenAI(echo, faults=faults))
    (answer,) = one.answer(ASKED[:1], seed=1, max_seconds=30)
    assert answer.text == "Question 0?"
    assert opened.waits == [3.0, 2.0]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ((404, {}, b'{"error": {"message": "no such model"}}'), "404: no such model"),
        ((401, {}, b""), "refuses the key"),
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, b"{}"), "has no 'choices'"),
        ((200, {}, b'{"choices": []}'), "No answer"),
        ((302, {"Location": "http://example.org/"}, b""), "302"),
    ],
)
def test_what_is_wrong_is_told_with_the_address(opened, fault, told):
    one = opened(FakeOpenAI(echo, faults=[fault]))
    with pytest.raises(TunewrightError) as caught:
        one.answer(ASKED[:1], seed=1, max_seconds=30)
    (problem,) = caught.value.problems
    assert problem.code == "E_ENDPOINT"
    assert told in problem.message
    assert one.url in problem.where
    assert "--tuned-url" in problem.where


def test_a_server_that_stays_busy_is_given_up(opened):
    fake = FakeOpenAI(echo, faults=[(503, {}, b"overloaded")] * 9)
    one = opened(fake)
    with pytest.raises(TunewrightError, match="503: overloaded"):
        one.answer(ASKED[:1], seed=1, max_seconds=30)
    assert len(fake.requests) == TRIES


def test_a_server_that_is_not_there(opened):
    with (
        pytest.raises(TunewrightError, match="cannot be reached"),
        endpoint("http://127.0.0.1:9/v1", None, name="t", where="--tuned-url", sampling=SAMPLING),
    ):
        pass


@pytest.mark.parametrize("models", [(), ("a", "b")])
def test_of_several_models_one_must_be_named(opened, models):
    with pytest.raises(TunewrightError, match=f"lists {len(models)} models") as caught:
        opened(FakeOpenAI(echo, models=models))
    assert caught.value.problems[0].fix == "Name one of them: --tuned-model NAME."


def test_time_that_is_over_is_no_fault(opened):
    one = opened(FakeOpenAI(echo, faults=[(503, {}, b"")] * 9))
    object.__setattr__(one, "sleep", lambda seconds: None)
    with pytest.raises(TimeUpError):
        one.answer(ASKED[:1], seed=1, max_seconds=0)


def test_each_endpoint_gets_its_own_key(opened, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "general")
    monkeypatch.setenv("TUNED_API_KEY", "special")
    fake = FakeOpenAI(echo)
    opened(fake).answer(ASKED[:1], seed=1, max_seconds=30)
    assert fake.requests[0][1]["Authorization"] == "Bearer special"


@pytest.mark.parametrize("key", ["sk-123\u00e9", "sk-\n123"])
def test_a_key_that_is_none_is_refused_and_not_shown(opened, monkeypatch, key):
    monkeypatch.setenv("TUNED_API_KEY", key)
    with pytest.raises(TunewrightError, match="E_ENDPOINT") as caught:
        opened(FakeOpenAI(echo))
    assert "123" not in str(caught.value)
    assert "TUNED_API_KEY" in caught.value.problems[0].fix


def test_space_around_a_key_is_no_part_of_it(opened, monkeypatch):
    monkeypatch.setenv("TUNED_API_KEY", " sk-1\r\n")
    fake = FakeOpenAI(echo)
    opened(fake).answer(ASKED[:1], seed=1, max_seconds=30)
    assert fake.requests[0][1]["Authorization"] == "Bearer sk-1"


def test_the_general_key_goes_over_https_or_stays_here(opened, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "general")
    assert _key("--tuned-url", "https://far.example/v1", safe=True) == "general"
    assert _key("--tuned-url", "http://far.example/v1", safe=False) == ""
    assert opened(FakeOpenAI(echo)).client.headers["Authorization"] == "Bearer general"


def test_a_model_that_is_not_listed_is_refused(opened):
    with pytest.raises(TunewrightError, match="no 'other': only"):
        opened(FakeOpenAI(echo), "other")


def test_a_fault_is_told_before_the_slow_answers_come(opened):
    def slow(body):
        time.sleep(3)
        return "late"

    one = opened(FakeOpenAI(slow, faults=[(404, {}, b"")]))
    begun = time.monotonic()
    with pytest.raises(TunewrightError):
        one.answer(ASKED, seed=1, max_seconds=30)
    assert time.monotonic() - begun < 2


def test_text_that_comes_in_parts_is_joined(opened):
    body = b'{"choices": [{"message": {"content": [{"type": "text", "text": "Yes."}]}}]}'
    one = opened(FakeOpenAI(echo, faults=[(200, {}, body)]))
    assert one.answer(ASKED[:1], seed=1, max_seconds=30)[0].text == "Yes."
