"""OpenAI-compatible endpoints: the same questions, over HTTP."""

import os
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from tunewright.counting import counted
from tunewright.errors import TunewrightError, failure
from tunewright.models.messages import Message, is_raw
from tunewright.models.sampling import EMPTY_THOUGHT, Answer, Sampling, TimeUpError

KEY = "OPENAI_API_KEY"
"""Environment variable of the key for endpoints that have no variable of their own."""
TRIES = 4
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""
_LOCAL = ("127.0.0.1", "localhost", "::1")
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server and one of its models.

    Attributes:
        name: What it is, in words.
        url: Up to `/v1`.
        model: As the server names it.
        sampling: How it is asked to answer.
        where: Option that names the endpoint.
        client: Connections to it.
        extra: Fields that each request gets besides.
        sleep: Waits for so many seconds.
    """

    name: str
    url: str
    model: str
    sampling: Sampling
    where: str
    client: httpx.Client
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sleep: Callable[[float], None] = time.sleep

    def answer(
        self, prompts: Sequence[Sequence[Message]], *, seed: int, max_seconds: float
    ) -> list[Answer]:
        """Return one answer a prompt; they are asked at the same time, prompt i with seed + i.

        Raises:
            TimeUpError: `max_seconds` did not suffice.
            TunewrightError: E_ENDPOINT.
        """
        until = time.monotonic() + max_seconds

        def one(index: int) -> Answer:
            return self._one(prompts[index], seed + index, until)

        pool = ThreadPoolExecutor(max_workers=len(prompts))
        try:
            futures = [pool.submit(one, index) for index in range(len(prompts))]
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
            return [future.result() for future in futures]
        finally:
            # After a fault nobody waits for the other answers.
            pool.shutdown(wait=False, cancel_futures=True)

    def with_model(self) -> "Endpoint":
        """Return the endpoint with the model that is named, or else the only one that it lists.

        Raises:
            TunewrightError: E_ENDPOINT, it cannot be asked, or lists none or several, or others.
        """
        try:
            response = self.client.get(f"{self.url}/models", timeout=_CONNECT_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._failure(f"It cannot be reached: {error}.", _REACH) from error
        listed = self._read(response)
        try:
            names = [str(entry["id"]) for entry in listed["data"]]
        except (KeyError, TypeError) as error:
            raise self._failure("It lists no models.", _KIND) from error
        if self.model not in names if self.model else len(names) != 1:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            option = self.where.replace("url", "model")
            named = f" and no '{self.model}'" if self.model else ""
            message = (
                f"It lists {counted(len(names), 'model')}{named}{': ' if names else ''}{shown}."
            )
            how = f"{option} NAME" if option.startswith("--") else f"--set {option}=NAME"
            raise self._failure(message, f"Name one of them: {how}.")
        model = self.model or names[0]
        return replace(self, model=model, name=f"{self.name}: {model} at {self.url}")

    def _one(self, prompt: Sequence[Message], seed: int, until: float) -> Answer:
        body = {
            "model": self.model,
            "max_tokens": self.sampling.max_new_tokens,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "seed": seed,
            **self.extra,
        }
        # A raw text has no turns: it is gone on with.
        path = "/completions" if is_raw(prompt) else "/chat/completions"
        asked = {"prompt": prompt[0]["content"]} if is_raw(prompt) else {"messages": list(prompt)}
        found = self._request(path, {**body, **asked}, until)
        try:
            choice = found["choices"][0]
            text = _text(choice["text"] if is_raw(prompt) else choice["message"]["content"])
            ended = choice.get("finish_reason") == "stop"
            tokens = (found.get("usage") or {}).get("completion_tokens")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            message = f"The answer has no {error}." if isinstance(error, KeyError) else "No answer."
            raise self._failure(message, _KIND) from error
        # Not every server counts; a word has more than one token, so that this is too few, never too many.
        count = tokens if isinstance(tokens, int) else len(text.split())
        return Answer(text.removeprefix(EMPTY_THOUGHT), count, ended)

    def _request(self, path: str, body: Mapping[str, Any], until: float) -> Any:
        """Return the JSON answer; a busy server is asked again, as it says when, or ever later."""
        for trial in range(TRIES):
            left = until - time.monotonic()
            if left <= 0:
                raise TimeUpError
            try:
                timeout = httpx.Timeout(left, connect=min(left, _CONNECT_SECONDS))
                response = self.client.post(f"{self.url}{path}", json=body, timeout=timeout)
            except (httpx.ConnectError, httpx.InvalidURL, UnicodeError) as error:
                raise self._failure(f"It cannot be reached: {error}.", _REACH) from error
            except httpx.TimeoutException as error:
                if time.monotonic() >= until:
                    raise TimeUpError from error
                raise self._failure("It does not answer.", _REACH) from error
            except httpx.HTTPError as error:
                if trial + 1 == TRIES:
                    raise self._failure(f"The connection broke: {error}.", _REACH) from error
                self.sleep(2.0**trial)
                continue
            if response.status_code not in BUSY or trial + 1 == TRIES:
                return self._read(response)
            self.sleep(min(_wait_seconds(response, 2.0**trial), max(0.0, until - time.monotonic())))
        raise TimeUpError

    def _read(self, response: httpx.Response) -> Any:
        if response.status_code in (401, 403):
            raise self._failure(
                f"It refuses the key ({response.status_code}).",
                f"Set {_own_key(self.where)}, or {KEY}.",
            )
        if not response.is_success:
            reason = _reason(response)
            raise self._failure(f"It answers {response.status_code}: {reason}", _MODEL)
        try:
            return response.json()
        except ValueError as error:
            raise self._failure("Its answer is not JSON.", _MODEL) from error

    def _failure(self, message: str, fix: str) -> TunewrightError:
        return failure("E_ENDPOINT", message, where=f"{self.where}: {self.url}", fix=fix)


_REACH = "Start the server, or correct the address; it ends with /v1 as a rule."
_KIND = "Is it an OpenAI-compatible endpoint?"
_MODEL = "Look at the server's log. Is the model's name right, and does the address end with /v1?"


@contextmanager
def endpoint(
    url: str,
    model: str | None,
    *,
    name: str,
    where: str,
    sampling: Sampling,
    extra: Mapping[str, Any] | None = None,
) -> Generator[Endpoint]:
    """Give an endpoint with the model that is named, or else with the only one that the server lists.

    The key comes from BASELINE_API_KEY, TUNED_API_KEY or JUDGE_API_KEY; else, over https or on this machine, it is
    OPENAI_API_KEY. An address of this machine is asked past any proxy.

    Raises:
        TunewrightError: E_ENDPOINT, it cannot be asked, or lists several models, or others.
    """
    own = urlsplit(url).hostname in _LOCAL
    key = _key(where, url, safe=own or url.startswith("https://"))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # Redirects are not followed: the key would go along.
    with httpx.Client(headers=headers, trust_env=not own, follow_redirects=False) as client:
        address = url.rstrip("/")
        made = Endpoint(name, address, model or "", sampling, where, client, extra or {})
        yield made.with_model()


def _key(where: str, url: str, *, safe: bool) -> str:
    """Return the key of an endpoint; the general one goes only where it is `safe`.

    Raises:
        TunewrightError: E_ENDPOINT, it is no key; it is not shown.
    """
    key = (os.environ.get(_own_key(where)) or (os.environ.get(KEY, "") if safe else "")).strip()
    if not (key.isascii() and key.isprintable()):
        message = "The key has characters that no key has."
        raise failure("E_ENDPOINT", message, where=f"{where}: {url}", fix=f"Set {_own_key(where)}.")
    return key


def _text(content: object) -> str:
    """Return the text of an answer, which may come in parts.

    Raises:
        TypeError: It is no text.
    """
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""


def _own_key(where: str) -> str:
    """Return the environment variable of an endpoint's key: of `--tuned-url`, TUNED_API_KEY."""
    side = re.sub(r"^--|^compare\.|[-_]url$", "", where)
    return f"{side.upper()}_API_KEY"


def _wait_seconds(response: httpx.Response, otherwise: float) -> float:
    """Return how long the server asks to wait; a date counts as nothing said."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", otherwise)))
    except ValueError:
        return otherwise


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return response.text.strip()[:300] or "no reason given"
