"""A request's body -> what is asked for, or why it is refused. Pure.

Every field is known, or refused by name: nothing that was asked for is left out in silence, and nothing in a
request can change the chat template, which is the one of training.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from tunewright.errors import first_line
from tunewright.models.messages import Message

MAX_STOPS = 16
MAX_SEED = 2**63 - 1
MAX_ALTERNATIVES = 20
"""Source: OpenAI's limit of `top_logprobs`."""
MAX_TEMPERATURE = 2.0
"""Source: OpenAI's limit."""
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of a request, and what they are in a conversation: newer clients say developer for system."""


class RefusedError(Exception):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        param: Field at fault.
        code: In the words of OpenAI's errors.
    """

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        model: Name of the model; None: the one there is.
        messages: A conversation; None for a text that is to be continued.
        prompt: Such a text, or its tokens.
        max_tokens: Tokens of the answer at most; None: what the context leaves.
        temperature: None: the server's own.
        top_p: Likewise.
        top_k: 0: all tokens.
        seed: None: another one each time.
        stops: Texts that end the answer.
        logprobs: Alternatives to tell beside each token; None: no probabilities.
        stream: Tell the answer piece by piece.
        include_usage: And at its end how many tokens there were.
    """

    model: str | None
    messages: tuple[Message, ...] | None
    prompt: str | tuple[int, ...]
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int
    seed: int | None
    stops: tuple[str, ...]
    logprobs: int | None
    stream: bool
    include_usage: bool


_COMMON = {
    *("model", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream"),
    *("stream_options", "logprobs"),
}
_CHAT = _COMMON | {"messages", "max_completion_tokens", "top_logprobs"}
_TEXT = _COMMON | {"prompt"}
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "repeat_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Fields that are accepted with values that change nothing."""
_IGNORED = {"user", "metadata", "safety_identifier", "prompt_cache_key"}
"""Fields that tell who asks, and nothing about the answer."""
_TEMPLATE = {
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
}
"""Fields that other servers let change what the model reads."""


def parsed(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        RefusedError: It is none.
    """
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RefusedError("The body is not UTF-8.") from error
    except RecursionError as error:
        raise RefusedError("The body is nested too deeply.") from error
    except ValueError as error:
        reason = first_line(error)
        raise RefusedError(f"The body is not JSON: {reason}.") from error
    if not isinstance(body, dict):
        raise RefusedError("The body is not a JSON object.")
    return cast("dict[str, Any]", body)


def asked_chat(body: Mapping[str, Any], *, max_messages: int) -> Asked:
    """Return what a request for a chat completion asks for.

    Args:
        body: The request's.
        max_messages: More are not taken, however short they are.

    Raises:
        RefusedError: A field is unknown, or has a value that cannot be used.
    """
    _refuse_unknown(body, _CHAT)
    if "max_tokens" in body and "max_completion_tokens" in body:
        _refuse("max_completion_tokens", "means the same as 'max_tokens': give one of them")
    longest = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    wanted = _flag(body, "logprobs")
    others = _whole(body, "top_logprobs", 0, MAX_ALTERNATIVES)
    if others is not None and not wanted:
        _refuse("top_logprobs", "needs 'logprobs': true")
    messages = _messages(body.get("messages"), max_messages)
    return _asked(body, messages, "", longest=longest, logprobs=(others or 0) if wanted else None)


def asked_text(body: Mapping[str, Any]) -> Asked:
    """Return what a request for a completion asks for.

    Raises:
        RefusedError: A field is unknown, or has a value that cannot be used.
    """
    _refuse_unknown(body, _TEXT)
    logprobs = _whole(body, "logprobs", 0, MAX_ALTERNATIVES)
    return _asked(body, None, _prompt(body.get("prompt")), longest="max_tokens", logprobs=logprobs)


def _asked(
    body: Mapping[str, Any],
    messages: tuple[Message, ...] | None,
    prompt: str | tuple[int, ...],
    *,
    longest: str,
    logprobs: int | None,
) -> Asked:
    top_k = _whole(body, "top_k", -1, MAX_SEED)
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        _refuse("model", "is not text")
    stream = _flag(body, "stream")
    return Asked(
        model=model,
        messages=messages,
        prompt=prompt,
        max_tokens=_whole(body, longest, 1, MAX_SEED),
        temperature=_number(body, "temperature", lambda v: 0 <= v <= MAX_TEMPERATURE, "0 to 2"),
        top_p=_number(body, "top_p", lambda v: 0 < v <= 1, "over 0, at most 1"),
        # vLLM's word for all of them is -1.
        top_k=max(0, top_k or 0),
        seed=_whole(body, "seed", 0, MAX_SEED),
        stops=_stops(body.get("stop")),
        logprobs=logprobs,
        stream=stream,
        include_usage=_usage(body.get("stream_options"), stream=stream),
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _refuse(param: str, reason: str, code: str | None = None) -> NoReturn:
    raise RefusedError(f"'{param}' {reason}.", param=param, code=code)


def _refuse_unknown(body: Mapping[str, Any], known: set[str]) -> None:
    for name, value in body.items():
        if name in _TEMPLATE:
            reason = "is not taken from a request: the chat template is the one of training"
            _refuse(name, reason, "unsupported_parameter")
        if name in known or name in _IGNORED or value is None:
            continue
        if name not in _NEUTRAL:
            _refuse(_short(name), "is not a parameter of this server", "unknown_parameter")
        if not any(_same(value, neutral) for neutral in _NEUTRAL[name]):
            only = " or ".join(json.dumps(neutral) for neutral in _NEUTRAL[name])
            _refuse(name, f"cannot be used here but as {only}", "unsupported_value")


def _same(value: object, neutral: object) -> bool:
    """Return whether two JSON values are equal; `true` is not 1."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _short(name: str) -> str:
    return ascii(name)[1:-1][:60]


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        _refuse(name, "is neither true nor false")
    return bool(value)


def _whole(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        limit = f"from {least}" if most == MAX_SEED else f"from {least} to {most}"
        _refuse(name, f"is not a whole number {limit}")
    return value


def _number(
    body: Mapping[str, Any], name: str, fits: Callable[[float], bool], range_: str
) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    # A whole number of a thousand digits is no float.
    if not usable or abs(value) > 1e9 or not math.isfinite(value) or not fits(value):
        _refuse(name, f"is not a number in its range: {range_}")
    return float(value)


def _stops(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    given = cast("list[object]", [value] if isinstance(value, str) else value)
    if not isinstance(given, list) or len(given) > MAX_STOPS:
        _refuse("stop", f"is neither text nor a list of up to {MAX_STOPS} texts")
    return tuple(_text(one, "stop", empty=False) for one in given)


def _usage(value: object, *, stream: bool) -> bool:
    if value is None:
        return False
    if not stream:
        _refuse("stream_options", "needs 'stream': true")
    if not isinstance(value, dict):
        _refuse("stream_options", "is not an object")
    options = cast("dict[str, Any]", value)
    for name in options:
        if name not in ("include_usage", "include_obfuscation"):
            _refuse(f"stream_options.{_short(name)}", "is not a parameter of this server")
    return _flag(options, "include_usage")


def _text(value: object, where: str, *, empty: bool = True) -> str:
    if not isinstance(value, str) or not (value or empty):
        _refuse(where, "is not text" if not isinstance(value, str) else "is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        _refuse(where, "has half of a character: a lone surrogate")
    return value


def _prompt(value: object) -> str | tuple[int, ...]:
    """Return a text, or tokens; of a list of either, its only one."""
    if isinstance(value, list) and len(cast("list[object]", value)) == 1:
        only = cast("list[object]", value)[0]
        value = only if isinstance(only, str | list) else cast("list[object]", value)
    if isinstance(value, list):
        ids = cast("list[object]", value)
        if not ids or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            _refuse("prompt", "is neither a text nor a list of token ids; several are not taken")
        return tuple(cast("list[int]", ids))
    if value is None:
        _refuse("prompt", "is missing")
    return _text(value, "prompt")


def _messages(value: object, most: int) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        _refuse("messages", "is missing" if value is None else "is not a list of messages")
    given = cast("list[object]", value)
    if len(given) > most:
        reason = f"has {len(given):,} messages; with this context at most {most:,} are taken"
        _refuse("messages", reason, "context_length_exceeded")
    messages = tuple(_message(one, f"messages[{at}]") for at, one in enumerate(given))
    if messages[-1]["role"] == "assistant":
        _refuse(f"messages[{len(given) - 1}].role", "is the assistant's, and it is its turn next")
    return messages


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        _refuse(where, "is not an object")
    given = cast("dict[str, Any]", value)
    role = given.get("role")
    if not isinstance(role, str) or role not in ROLES:
        _refuse(f"{where}.role", f"is none of {', '.join(ROLES)}")
    for name, own in given.items():
        # Clients send back what an answer had besides, all of it empty.
        if name not in ("role", "content", "name") and own:
            _refuse(f"{where}.{_short(name)}", "is not taken here", "unsupported_parameter")
    return Message(role=ROLES[role], content=_content(given.get("content"), f"{where}.content"))


def _content(value: object, where: str) -> str:
    """Return the text of a content, which may be in parts."""
    if not isinstance(value, list):
        return _text(value, where)
    texts: list[str] = []
    for at, part in enumerate(cast("list[object]", value)):
        own = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        if own.get("type") != "text":
            _refuse(f"{where}[{at}]", "is not a part of the type 'text'")
        texts.append(_text(own.get("text"), f"{where}[{at}].text"))
    return "".join(texts)
