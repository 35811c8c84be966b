"""Which rows of a dataset are copies of each other, and which are copies of another dataset's."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunewright.data.near._index import NearIndex
from tunewright.data.near._shingles import words_of
from tunewright.data.near.union import Union

EXACT, WORDS, NEAR, ANSWER = range(4)
"""Kinds of a link: same characters; same words; near copies; near copies in the answer alone."""
SHORT_ANSWER_WORDS = 20
"""Answers of fewer words may be equal without being copies: yes, no, approve."""
BATCH_ROWS = 1000

Texts = tuple[str, str]
"""A row's question and answer together, and its answer."""


@dataclass(frozen=True)
class Links:
    """Pairs of rows that are copies or near copies.

    There are enough of them to join whatever belongs together, not all there are: between rows that
    others join already none is looked for. Where there is a border, every row with a copy on the other
    side has a link to one of them.

    Attributes:
        rows: Rows that were compared.
        pairs: Row numbers (i, j), i < j, in rising order.
        kinds: Of each pair, EXACT, WORDS, NEAR or ANSWER.
    """

    rows: int
    pairs: NDArray[np.int64]
    kinds: NDArray[np.uint8]

    def across(self, border: int) -> "Links":
        """Return the links between rows before the border and the others."""
        return self._where((self.pairs[:, 0] < border) & (self.pairs[:, 1] >= border))

    def within(self, border: int) -> "Links":
        """Return the links between rows on one side of the border."""
        return self._where((self.pairs[:, 0] < border) == (self.pairs[:, 1] < border))

    def count(self, *kinds: int) -> int:
        """Return how many links are of these kinds."""
        return int(np.isin(self.kinds, kinds).sum())

    def _where(self, chosen: NDArray[np.bool_]) -> "Links":
        return Links(self.rows, self.pairs[chosen], self.kinds[chosen])


def links(
    texts: Iterable[Texts],
    at: Callable[[int], Texts],
    *,
    folder: Path,
    threshold: float,
    border: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Links:
    """Return the rows that are near copies as a whole, or in an answer of 20 words or more.

    Args:
        texts: All rows in order, read once.
        at: Gives one of them again, by its number.
        folder: Where a temporary folder is made, of about a kilobyte a row.
        threshold: Jaccard similarity of word 5-grams from which two texts are near copies.
        border: Rows before it are one side of a split, the others the other side.
        progress: Told how many rows have been read.
    """
    with ExitStack() as open_files:
        search = _Search(open_files, folder, threshold)
        search.read(texts, progress)
        return search.links(at, border)


def against(
    second: Iterable[Texts],
    first: Iterable[Texts],
    at_second: Callable[[int], Texts],
    at_first: Callable[[int], Texts],
    *,
    folder: Path,
    threshold: float,
    progress: Callable[[int], None] | None = None,
) -> Links:
    """Return links (row of the second dataset, row of the first); both number from 0.

    Every row of the first dataset with a near copy in the second has a link. `links` tells what a near
    copy is, and what the arguments mean.
    """
    with ExitStack() as open_files:
        search = _Search(open_files, folder, threshold)
        border = search.read(second, None)
        rows = search.read(chain(first), progress) - border

        def at(row: int) -> Texts:
            return at_second(row) if row < border else at_first(row - border)

        found = search.links(at, border, across_only=True)
    return Links(rows, found.pairs - np.array([0, border]), found.kinds)


class _Search:
    """Two indexes: one of whole rows, one of long answers."""

    def __init__(self, open_files: ExitStack, folder: Path, threshold: float) -> None:
        self._whole = open_files.enter_context(NearIndex(folder, threshold))
        self._answers = open_files.enter_context(NearIndex(folder, threshold))
        self._answer_rows = array("I")

    def read(self, texts: Iterable[Texts], progress: Callable[[int], None] | None) -> int:
        """Add rows; return how many there are now."""
        already = self._whole.count
        for batch in _batches(texts):
            long = [n for n, (_, answer) in enumerate(batch) if _is_long(answer)]
            self._answer_rows.extend(self._whole.count + n for n in long)
            self._whole.add_many([whole for whole, _ in batch])
            self._answers.add_many([batch[n][1] for n in long])
            if progress is not None:
                progress(self._whole.count - already)
        return self._whole.count

    def links(self, at: Callable[[int], Texts], border: int, *, across_only: bool = False) -> Links:
        """Return what both indexes find."""
        rows = self._whole.count
        joined = Union(rows)
        every = np.arange(rows, dtype=np.int64)
        whole = _Relation(every, border, joined, across_only=across_only)
        found = [whole.search(self._whole, lambda row: at(row)[0], NEAR)]
        numbers = np.array(self._answer_rows, dtype=np.int64)
        answers = _Relation(numbers, border, joined, across_only=across_only)
        found.append(answers.search(self._answers, lambda row: at(row)[1], ANSWER))
        return _together(rows, *map(np.concatenate, zip(*found, strict=True)))


class _Relation:
    """Collects the links of one index."""

    def __init__(
        self, numbers: NDArray[np.int64], border: int, joined: Union, *, across_only: bool
    ) -> None:
        self._numbers = numbers
        self._border = int(np.searchsorted(numbers, border))
        self._joined = joined
        self._across_only = across_only
        self._partner = array("i", [-1]) * len(numbers)
        self._partner_kind = array("B", [0]) * len(numbers)
        self._pairs = array("I")
        self._kinds = array("B")

    def search(
        self, index: NearIndex, text_of: Callable[[int], str], kind: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return pairs of row numbers, and their kinds; `kind` is that of near copies."""
        numbers = self._numbers
        copies = index.copies(self._border)
        exact, same = (kind, kind) if kind == ANSWER else (EXACT, WORDS)
        for pairs, found in (
            (copies.exact_across, exact),
            (copies.words_across, same),
            (copies.words, same),
            (copies.exact, exact),
        ):
            self._add_all(pairs, found)
        near = index.near(lambda row: text_of(int(numbers[row])), copies, self._is_wanted)
        for one, other in near:
            self._add(one, other, kind)
        # copies were left out of the search: they have the partners of the row that stood for them
        for pairs, found in ((copies.words, same), (copies.exact, exact)):
            self._inherit(pairs, found)
        pairs = np.array(self._pairs, dtype=np.int64).reshape(-1, 2)
        return numbers[pairs], np.array(self._kinds, dtype=np.uint8)

    def _crosses(self, one: int, other: int) -> bool:
        return one < self._border <= other

    def _is_wanted(self, one: int, other: int) -> bool:
        if self._crosses(one, other):
            return self._partner[one] < 0 or self._partner[other] < 0
        if self._across_only:
            return False
        joined, numbers = self._joined, self._numbers
        return joined.first(int(numbers[one])) != joined.first(int(numbers[other]))

    def _add_all(self, pairs: NDArray[np.uint32], kind: int) -> None:
        for one, other in _listed(pairs):
            if not self._across_only or self._crosses(one, other):
                self._add(one, other, kind)

    def _add(self, one: int, other: int, kind: int) -> None:
        self._pairs.extend((one, other))
        self._kinds.append(kind)
        self._joined.join(int(self._numbers[one]), int(self._numbers[other]))
        if self._crosses(one, other):
            for row, partner in ((one, other), (other, one)):
                if self._partner[row] < 0:
                    self._partner[row], self._partner_kind[row] = partner, kind

    def _inherit(self, pairs: NDArray[np.uint32], kind: int) -> None:
        for leader, copy in _listed(pairs):
            partner = self._partner[leader]
            if partner >= 0 and self._partner[copy] < 0:
                self._partner[copy] = partner
                self._pairs.extend(sorted((copy, partner)))
                self._kinds.append(max(kind, self._partner_kind[leader]))
                self._partner_kind[copy] = self._kinds[-1]


def _is_long(answer: str) -> bool:
    # a text of n words has n characters and n - 1 gaps at least, or is of a script without gaps
    if len(answer) < SHORT_ANSWER_WORDS:
        return False
    return len(answer.split(maxsplit=SHORT_ANSWER_WORDS)) >= SHORT_ANSWER_WORDS or (
        not answer.isascii() and sum(1 for _ in words_of(answer)) >= SHORT_ANSWER_WORDS
    )


def _batches(texts: Iterable[Texts]) -> Iterator[list[Texts]]:
    batch: list[Texts] = []
    characters = 0
    for row in texts:
        batch.append(row)
        characters += len(row[0])
        if len(batch) == BATCH_ROWS or characters >= BATCH_ROWS * 1000:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _listed(pairs: NDArray[np.uint32]) -> Iterator[list[int]]:
    for start in range(0, len(pairs), BATCH_ROWS):
        yield from pairs[start : start + BATCH_ROWS].tolist()


def _together(rows: int, pairs: NDArray[np.int64], kinds: NDArray[np.uint8]) -> Links:
    """Return the links without repetitions; of two kinds the closer one."""
    order = np.lexsort((kinds, pairs[:, 1], pairs[:, 0]))
    pairs, kinds = pairs[order], kinds[order]
    new = np.ones(len(pairs), dtype=np.bool_)
    new[1:] = np.any(pairs[1:] != pairs[:-1], axis=1)
    return Links(rows, pairs[new], kinds[new])
