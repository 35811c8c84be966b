"""Answers in the shapes of the OpenAI API. Pure.

Source: the API reference of OpenAI: chat completions, completions, models, errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.serve.asked import RefusedError
from tunewright.serve.engine import Likely, Token

Finish = Literal["stop", "length"]
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_SERVER_FAULT = 500


@dataclass(frozen=True)
class Head:
    """What all parts of an answer have in common.

    Attributes:
        id: Of the answer.
        created: Seconds since 1970.
        model: Name of the model.
        chat: It is an answer in a conversation; otherwise a text continued.
    """

    id: str
    created: int
    model: str
    chat: bool


def error(refused: RefusedError) -> dict[str, Any]:
    """Return the body of a refusal."""
    fallback = "server_error" if refused.status >= _SERVER_FAULT else "invalid_request_error"
    return {
        "error": {
            "message": str(refused),
            "type": _TYPES.get(refused.status, fallback),
            "param": refused.param,
            "code": refused.code,
        }
    }


def models(names: Sequence[str], created: int) -> dict[str, Any]:
    """Return the list of models."""
    return {"object": "list", "data": [model(name, created) for name in names]}


def model(name: str, created: int) -> dict[str, Any]:
    """Return what there is to say of a model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "tunewright"}


def usage(read: int, written: int) -> dict[str, int]:
    """Return how many tokens were read and written."""
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def whole(
    head: Head,
    text: str,
    tokens: Sequence[Token],
    *,
    finish: Finish,
    used: Mapping[str, int],
) -> dict[str, Any]:
    """Return an answer that is complete."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": _logs(head, tokens)}
    if head.chat:
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        choice["text"] = text
    return {**_frame(head, part=False), "choices": [choice], "usage": dict(used)}


def opening(head: Head) -> dict[str, Any] | None:
    """Return what comes before the first piece of an answer: who speaks, in a conversation."""
    if not head.chat:
        return None
    delta = {"role": "assistant", "content": ""}
    return _part(head, {"index": 0, "delta": delta, "finish_reason": None})


def piece(head: Head, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
    """Return a piece of an answer."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": None, "logprobs": _logs(head, tokens)}
    choice |= {"delta": {"content": text}} if head.chat else {"text": text}
    return _part(head, choice)


def closing(head: Head, finish: Finish) -> dict[str, Any]:
    """Return what ends an answer: why."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
    choice |= {"delta": {}} if head.chat else {"text": ""}
    return _part(head, choice)


def counted(head: Head, used: Mapping[str, int]) -> dict[str, Any]:
    """Return what tells the tokens of an answer in pieces."""
    return {**_frame(head, part=True), "choices": [], "usage": dict(used)}


def _part(head: Head, choice: Mapping[str, Any]) -> dict[str, Any]:
    return {**_frame(head, part=True), "choices": [choice]}


def _frame(head: Head, *, part: bool) -> dict[str, Any]:
    kind = "text_completion"
    if head.chat:
        kind = "chat.completion.chunk" if part else "chat.completion"
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model}


def _logs(head: Head, tokens: Sequence[Token]) -> dict[str, Any] | None:
    known = [token for token in tokens if token.likely and not token.ends]
    if not known:
        return None
    if head.chat:
        content = [
            {**_log(token.likely), "top_logprobs": [_log(one) for one in token.others]}
            for token in known
            if token.likely
        ]
        return {"content": content, "refusal": None}
    texts = [token.likely.text for token in known if token.likely]
    return {
        "tokens": texts,
        "token_logprobs": [token.likely.logprob for token in known if token.likely],
        "top_logprobs": [{one.text: one.logprob for one in token.others} for token in known],
        "text_offset": [sum(map(len, texts[:at])) for at in range(len(texts))],
    }


def _log(likely: Likely) -> dict[str, Any]:
    return {
        "token": likely.text,
        "logprob": likely.logprob,
        "bytes": None if likely.data is None else list(likely.data),
    }
