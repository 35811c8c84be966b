"""Texts to hashes of their word 5-grams, many texts at a time."""

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

WORDS = 5
"""Words of a shingle."""
MOST_CACHED = 200_000
"""Words whose hash is kept: about 30 MB."""
LONG_TEXT = 100_000
"""Characters from which a text's words are never all in memory as strings."""

# Scripts that put no space between words (Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer):
# each character counts as a word, so that a shingle is five characters.
_SPACELESS = (
    r"\u0e01-\u0e3a\u0e40-\u0eff\u0f40-\u0fbc\u1000-\u1049\u1050-\u109f\u1780-\u17d3"
    r"\u3005-\u3007\u3041-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and accents that `\w` leaves out although they are inside words.
_MARKS = (
    r"\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    r"\u0900-\u0963\u0966-\u0df3"
)
_PLAIN = re.compile(r"\w+")
_UNUSUAL = re.compile(f"[{_SPACELESS}{_MARKS}]")
_ANY_SCRIPT = re.compile(f"[{_SPACELESS}]|(?:[^\\W{_SPACELESS}]|[{_MARKS}])+")


def words_of(text: str) -> Iterable[str]:
    """Return the words of a text, without case and punctuation, in any script.

    A text without letters and digits gives its characters, so that two rows of different symbols
    are not taken for copies.
    """
    text = text.casefold()
    pattern = _PLAIN
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        pattern = _ANY_SCRIPT if _UNUSUAL.search(text) else _PLAIN
    if pattern.search(text) is None:
        return [c for c in text if not c.isspace()]
    return _one_by_one(pattern, text) if len(text) > LONG_TEXT else pattern.findall(text)


def _one_by_one(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    return (found.group() for found in pattern.finditer(text))


def hash_of(data: bytes) -> int:
    """Return a 64-bit hash that is the same in every process."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def constants(label: str, count: int) -> NDArray[np.uint64]:
    """Return odd 64-bit numbers that look random and are always the same."""
    numbers = [hash_of(f"{label} {n}".encode()) | 1 for n in range(count)]
    return np.array(numbers, dtype=np.uint64)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return values of which every bit depends on every bit of the given ones.

    Source: Appleby 2011, MurmurHash3, the finaliser fmix64.
    """
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xFF51AFD7ED558CCD)
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


class _WordHashes(dict[str, int]):
    """Hashes of words, computed when first asked for."""

    def __missing__(self, word: str) -> int:
        value = hash_of(word.encode("utf-8", "surrogatepass"))
        if len(self) < MOST_CACHED:
            self[word] = value
        return value


@dataclass(frozen=True)
class Shingled:
    """Hashes of the shingles of several texts.

    Attributes:
        hashes: All shingles, text after text; a text may have the same one twice.
        starts: Where each text's shingles start; every text has at least one.
        digests: 128 bits a text, (texts, 2): equal where two texts have the same words.
    """

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    digests: NDArray[np.uint64]


class Shingler:
    """Makes shingles; remembers the hashes of words between calls."""

    def __init__(self) -> None:
        self._hashes = _WordHashes()
        self._factors = constants("shingle", WORDS)

    def __call__(self, texts: Sequence[str]) -> Shingled:
        """Return the shingles of some texts: word 5-grams, or the whole of a shorter text.

        A shingle's hash is a multilinear one of the hashes of its words, so two different shingles
        share a hash with a chance of 2^-64.

        Source: Broder 1997, "On the resemblance and containment of documents" (shingles);
        Lemire and Kaser 2014, "Strongly universal string hashing is fast" (multilinear hashing).
        """
        flat, ends = array("Q"), []
        for text in texts:
            before = len(flat)
            flat.extend(map(self._hashes.__getitem__, words_of(text)))
            # zeros stand for the words that a short text lacks
            flat.extend([0] * (WORDS - (len(flat) - before)))
            ends.append(len(flat))
        words = np.frombuffer(flat, dtype=np.uint64)
        digests = _digests(words, ends)
        every = len(words) - WORDS + 1
        hashes = words[:every] * self._factors[0]
        for place in range(1, WORDS):
            hashes += words[place : place + every] * self._factors[place]
        after = np.array(ends, dtype=np.int64)
        inside = np.ones(len(words), dtype=np.bool_)
        for back in range(1, WORDS):
            inside[after - back] = False
        shorter = np.arange(len(ends)) * (WORDS - 1)
        starts = np.concatenate([[0], after[:-1]]) - shorter
        return Shingled(mixed(hashes[inside[:every]]), starts, digests)


def _digests(words: NDArray[np.uint64], ends: Sequence[int]) -> NDArray[np.uint64]:
    data = words.data.cast("B")
    found = bytearray()
    start = 0
    for end in ends:
        found += blake2b(data[8 * start : 8 * end], digest_size=16).digest()
        start = end
    return np.frombuffer(bytes(found), dtype="<u8").reshape(-1, 2)
