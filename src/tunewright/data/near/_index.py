"""A search for copies and near copies that keeps nearly all of its data on disk."""

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from tunewright.data.near._candidates import Pairs, Sieve
from tunewright.data.near._minhash import MinHasher, banding
from tunewright.data.near._shingles import Shingler
from tunewright.data.near._spill import PARTS, Spill

PERMUTATIONS = 128
BATCH_CHARACTERS = 400_000
CACHED_SHINGLES = 2_000_000
"""Shingles of recently compared texts that are kept: 16 MB."""
STANDARD_ERRORS = 4
NEARBY = 4
"""Rows between two wanted ones that are read along rather than skipped."""

_BAND = np.dtype([("hash", "<u8"), ("row", "<u4")])
_TEXT = np.dtype([("words", "<u8", (2,)), ("exact", "<u8"), ("row", "<u4")])
_PAIR = np.dtype([("key", "<u8")])


@dataclass(frozen=True)
class Copies:
    """Rows with the words of another row.

    Attributes:
        exact: Links (first, copy) between rows with the same characters.
        words: Links (first, copy) between rows with the same words; other case or punctuation.
        exact_across: Links between the first of such rows on either side of the border.
        words_across: As `exact_across`, same words.
        collapsed: Whether a row is left out of the search because the first such row stands for it.
    """

    exact: Pairs
    words: Pairs
    exact_across: Pairs
    words_across: Pairs
    collapsed: NDArray[np.bool_]


class NearIndex:
    """Finds pairs of texts whose word 5-grams have a Jaccard similarity of `threshold` or more.

    Rows with the same words are found by a digest. For the others, MinHash with banding gives
    candidates (a chance under 0.5 % to overlook a pair right at the threshold), signatures sort out
    most of the wrong ones, and the rest are compared exactly. Bands, signatures and candidates are in
    a temporary folder, which is removed when the block ends; memory holds 256th parts of them and a
    few bytes a row.

    Source: Broder 1997, "On the resemblance and containment of documents".
    """

    def __init__(self, folder: Path, threshold: float, *, permutations: int = PERMUTATIONS) -> None:
        self.threshold = threshold
        self.count = 0
        self._temporary = tempfile.TemporaryDirectory(prefix="near-", dir=folder)
        home = Path(self._temporary.name)
        self._shingler = Shingler()
        self._hasher = MinHasher(banding(threshold, permutations))
        self._bands = Spill(home / "bands", _BAND)
        self._texts = Spill(home / "texts", _TEXT)
        self._pairs = Spill(home / "pairs", _PAIR)
        self._sketches = (home / "sketches").open("w+b")

    def __enter__(self) -> "NearIndex":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._bands, self._texts, self._pairs, self._sketches):
            file.close()
        self._temporary.cleanup()

    def add_many(self, texts: Sequence[str]) -> None:
        """Add texts; rows are numbered from 0 in the order of adding."""
        start = characters = 0
        for end, text in enumerate(texts, 1):
            characters += len(text)
            if characters >= BATCH_CHARACTERS or end == len(texts):
                self._add(texts[start:end])
                start, characters = end, 0

    def copies(self, border: int = 0) -> Copies:
        """Return the rows that have another row's words.

        Args:
            border: Rows before it are one side, the others another; each side has its own first row.
        """
        exact, words, exact_across, words_across = _none(), _none(), _none(), _none()
        collapsed = np.zeros(self.count, dtype=np.bool_)
        for number in range(PARTS):
            part = self._texts.part(number)
            if len(part) < 2:
                continue
            row, side = part["row"], part["row"] >= border
            same_words = (part["words"][:, 0], part["words"][:, 1])
            same_text = (*same_words, part["exact"])
            links, first = _stars(row, (*same_text, side))
            exact.append(links)
            links, _ = _stars(row[first], [key[first] for key in same_text])
            exact_across.append(links)
            links, among = _stars(row[first], [key[first] for key in (*same_words, side)])
            words.append(links)
            first = first[among]
            links, _ = _stars(row[first], [key[first] for key in same_words])
            words_across.append(links)
            rest = np.ones(len(part), dtype=np.bool_)
            rest[first] = False
            collapsed[row[rest]] = True
        return Copies(
            exact=np.concatenate(exact),
            words=np.concatenate(words),
            exact_across=np.concatenate(exact_across),
            words_across=np.concatenate(words_across),
            collapsed=collapsed,
        )

    def near(
        self,
        text_of: Callable[[int], str],
        copies: Copies,
        wanted: Callable[[int, int], bool] = lambda i, j: True,
    ) -> Iterator[tuple[int, int]]:
        """Yield near copies (i, j), i < j, among rows with different words.

        Args:
            text_of: Gives the text of a row again.
            copies: What `copies` has returned; collapsed rows take no part.
            wanted: Asked before two rows are compared; whoever needs no further link between two
                rows saves the time.
        """
        for number in range(PARTS):
            for pairs in self._candidates(self._bands.part(number), copies.collapsed):
                self._keep(pairs)
        compare = _Comparison(text_of, self._shingler)
        for number in range(PARTS):
            keys = np.unique(self._pairs.part(number)["key"])
            for key in keys.tolist():
                i, j = key >> 32, key & 0xFFFFFFFF
                if wanted(i, j) and compare(i, j, self.threshold):
                    yield i, j

    def _add(self, texts: Sequence[str]) -> None:
        shingled = self._shingler(texts)
        rows = np.arange(self.count, self.count + len(texts), dtype=np.uint32)
        records = np.empty(len(texts), dtype=_TEXT)
        records["words"], records["row"] = shingled.digests, rows
        exact = b"".join(
            blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
        )
        records["exact"] = np.frombuffer(exact, dtype="<u8")
        self._texts.add(records, (shingled.digests[:, 0] >> np.uint64(56)).astype(np.uint8))
        signatures = self._hasher.signatures(shingled)
        self._sketches.write(signatures.astype(np.uint8).tobytes())
        hashes = self._hasher.band_hashes(signatures)
        bands = np.empty(hashes.size, dtype=_BAND)
        bands["hash"], bands["row"] = hashes.ravel(), np.repeat(rows, hashes.shape[1])
        self._bands.add(bands, (bands["hash"] >> np.uint64(56)).astype(np.uint8))
        self.count += len(texts)

    def _candidates(self, part: NDArray[np.void], collapsed: NDArray[np.bool_]) -> Iterator[Pairs]:
        part = part[~collapsed[part["row"]]]
        if len(part) < 2:
            return
        values = self._hasher.shape.values
        margin = STANDARD_ERRORS * (self.threshold * (1 - self.threshold) / values) ** 0.5
        sieve = Sieve(
            self._read_sketches,
            possible=max(1, int(values * (self.threshold - margin))),
            certain=min(values, round(values * (self.threshold + margin))),
        )
        yield from sieve.pairs(part["row"], part["hash"])

    def _keep(self, pairs: Pairs) -> None:
        records = np.empty(len(pairs), dtype=_PAIR)
        records["key"] = (pairs[:, 0].astype(np.uint64) << np.uint64(32)) | pairs[:, 1]
        parts = pairs[:, 0].astype(np.int64) * PARTS // self.count
        self._pairs.add(records, parts.astype(np.uint8))

    def _read_sketches(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Return sketches of rows in rising order; neighbours are read together."""
        width = self._hasher.shape.values
        found = np.empty((len(rows), width), dtype=np.uint8)
        cuts = np.flatnonzero(np.diff(rows) > NEARBY) + 1
        for start, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True):
            low, high = int(rows[start]), int(rows[end - 1])
            self._sketches.seek(low * width)
            data = self._sketches.read((high - low + 1) * width)
            block = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
            found[start:end] = block[rows[start:end] - low]
        return found


class _Comparison:
    """Compares texts exactly; remembers the shingles of the last ones."""

    def __init__(self, text_of: Callable[[int], str], shingler: Shingler) -> None:
        self._text_of = text_of
        self._shingler = shingler
        self._known: OrderedDict[int, NDArray[np.uint64]] = OrderedDict()
        self._size = 0

    def __call__(self, one: int, other: int, threshold: float) -> bool:
        a, b = self._shingles(one), self._shingles(other)
        if min(len(a), len(b)) < threshold * max(len(a), len(b)):
            return False
        shared = len(np.intersect1d(a, b, assume_unique=True))
        return shared / (len(a) + len(b) - shared) >= threshold

    def _shingles(self, row: int) -> NDArray[np.uint64]:
        found = self._known.get(row)
        if found is None:
            found = np.unique(self._shingler([self._text_of(row)]).hashes)
            self._known[row] = found
            self._size += len(found)
            while self._size > CACHED_SHINGLES and len(self._known) > 1:
                self._size -= len(self._known.popitem(last=False)[1])
        else:
            self._known.move_to_end(row)
        return found


def _none() -> list[Pairs]:
    return [np.empty((0, 2), dtype=np.uint32)]


def _stars(
    rows: NDArray[np.uint32], keys: Sequence[NDArray[np.generic]]
) -> tuple[Pairs, NDArray[np.int64]]:
    """Return links from the first row with given keys to the others, and where the first ones are."""
    order = np.lexsort((rows, *keys))
    changes = np.zeros(len(rows), dtype=np.bool_)
    changes[0] = True
    for key in keys:
        changes[1:] |= key[order][1:] != key[order][:-1]
    first = order[np.flatnonzero(changes)]
    leaders = rows[first][np.cumsum(changes) - 1]
    links = np.stack([leaders, rows[order]], axis=1)
    return links[~changes], first
