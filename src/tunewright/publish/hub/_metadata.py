"""Whether the Hub takes what a card says at its top; asked before anything large is sent."""

import re
from typing import Literal

from huggingface_hub.errors import BadRequestError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from tunewright.errors import CODES, Problem, TunewrightError
from tunewright.publish.hub import licences

Kind = Literal["dataset", "model"]
CARD = "README.md"
_KEY = re.compile(r'"([A-Za-z_-]{2,40})')
_SHOWN = 200
"""Characters of an answer: a list of all that would do is longer."""


def require_accepted(card: str, kind: Kind, *, endpoint: str, token: str) -> None:
    """Refuse a card that the Hub would refuse with the commit, when all files have been sent.

    Raises:
        TunewrightError: E_HUB for each key that the Hub does not take.
        HfHubHTTPError: It did not answer the question.
    """
    answer = get_session().post(
        f"{endpoint}/api/validate-yaml",
        json={"content": card, "repoType": kind},
        headers=build_hf_headers(token=token),
    )
    try:
        hf_raise_for_status(answer)
    except BadRequestError as error:
        raise TunewrightError(_problems(answer.json(), card, kind)) from error


def _problems(answer: dict[str, list[dict[str, str]]], card: str, kind: Kind) -> list[Problem]:
    said = [str(one.get("message")) for one in answer.get("errors", [])] or ["no reason given"]
    return [_problem(text, card, kind) for text in said]


def _problem(said: str, card: str, kind: Kind) -> Problem:
    found = _KEY.search(said)
    key = found[1] if found else None
    short = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
    message = f"The Hub refuses the card's metadata: {short.rstrip('.')}."
    if key != "license":
        return Problem("E_HUB", message, f"{CARD}: {key}" if key else CARD, CODES["E_INTERNAL"].fix)
    option = licences.option_of("dataset" if kind == "dataset" else "adapter")
    named = re.search(r"^license: *(\S+)", card, re.MULTILINE)
    advice = licences.advice(named[1].strip("'\"") if named else None)
    return Problem(
        "E_HUB",
        message,
        f"{CARD}: license",
        f"Change the card's metadata: {option} ({advice}).",
    )
