"""What a shot states about itself, and the phrases that agree with it. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import yaml

_SMALL_WORDS = frozenset(
    {
        "and",
        "the",
        "for",
        "with",
        "from",
        "into",
        "low",
        "quality",
        "bad",
        "worst",
        "readable",
        "legible",
        "modern",
        "other",
        "extra",
    }
)


@dataclass(frozen=True)
class Phrase:
    """A piece of a prompt and the facts it depends on.

    Attributes:
        say: The words.
        needs: Facts that must all hold.
        avoid: Facts of which none may hold.
        bare: Of a camera: nothing is put before it.
    """

    say: str
    needs: frozenset[str] = frozenset()
    avoid: frozenset[str] = frozenset()
    bare: bool = False


@cache
def _book() -> dict[str, Any]:
    text = (files("tunewright.data.storyboards") / "phrases.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@cache
def patterns() -> Mapping[str, re.Pattern[str]]:
    """Return the pattern of every fact."""
    return {name: re.compile(words, re.IGNORECASE) for name, words in _book()["facts"].items()}


@cache
def phrases(kind: str) -> tuple[Phrase, ...]:
    """Return all phrases of a kind: camera, lens, light, style or detail."""
    entries = [
        Phrase(
            entry["say"],
            frozenset(entry.get("needs", ())),
            frozenset(entry.get("avoid", ())),
            entry.get("bare", False),
        )
        for entry in _book()[kind]
    ]
    if kind != "camera":
        return tuple(entries)
    return tuple(
        Phrase(f"{manner} {entry.say}".strip(), entry.needs, entry.avoid)
        for entry in entries
        for manner in ("", *(() if entry.bare else _book()["manners"]))
    )


@lru_cache(maxsize=4096)
def facts_in(text: str) -> frozenset[str]:
    """Return the names of all facts that a text states."""
    return frozenset(name for name, pattern in patterns().items() if pattern.search(text))


def fitting(kind: str, facts: frozenset[str], negative: str) -> tuple[Phrase, ...]:
    """Return the phrases of a kind that contradict neither the facts nor the negative prompt."""
    unwanted = _unwanted(negative)
    return tuple(
        phrase
        for phrase in phrases(kind)
        if phrase.needs <= facts and not phrase.avoid & facts and not _names(phrase.say, unwanted)
    )


def _unwanted(negative: str) -> list[list[str]]:
    """Return the words that matter of each thing in a negative prompt."""
    things = (re.findall(r"[^\W\d_]{3,}", thing.lower()) for thing in re.split(r"[,;]", negative))
    found = ([word for word in words if word not in _SMALL_WORDS] for words in things)
    return [words for words in found if words]


def _names(phrase: str, unwanted: list[list[str]]) -> bool:
    words = re.findall(r"[^\W\d_]{3,}", phrase.lower())
    return any(all(_akin(word, words) for word in thing) for thing in unwanted)


def _akin(word: str, others: list[str]) -> bool:
    """Return whether a word, or one it begins with or is within, is among others: blurry, blur."""
    return any(
        other.startswith(word) or word.startswith(other) or other in word for other in others
    )
