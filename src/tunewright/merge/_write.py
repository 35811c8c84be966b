"""A merged model's weights, written shard by shard as the base's are."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.merge._shards import bytes_of, with_rows, write_index, write_shard
from tunewright.merge._updates import merged_rows, parts_of
from tunewright.models._shards import (
    DTYPES,
    INDEX,
    Bytes,
    Place,
    Stream,
    mean_row,
    places_in,
    raw_chunks,
    read_rows,
    read_tensor,
    shards_of,
)
from tunewright.models._weights import ADAPTER
from tunewright.models.changes import EMBEDDING, HEAD, Change, Changes, changes_of
from tunewright.models.headers import Stored
from tunewright.models.lora import Lora, read_lora

RESTORE = "Restore the base, or fetch it again."


@dataclass(frozen=True)
class Work:
    """What is to be merged.

    Attributes:
        base: Where each tensor of the base is.
        adapter: Where each of the adapter's is.
        lora: What its settings say.
        changes: What becomes of the base's tensors.
        files: Type and shape of each tensor of the merged model, by the file that it is in.
    """

    base: Mapping[str, Place]
    adapter: Mapping[str, Place]
    lora: Lora
    changes: Changes
    files: Mapping[str, Mapping[str, Stored]]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors of the merged model."""
        return sum(x.end - x.begin for stored in self.files.values() for x in stored.values())


def work_of(base: Path, adapter: Path, *, tied: bool) -> Work:
    """Return what a merge of two folders has to do.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, for all that does not fit; E_MODEL, the base is not one that
            can be merged into.
    """
    lora = read_lora(adapter)
    places = places_in(shards_of(base))
    parts = places_in([adapter / ADAPTER])
    changes = changes_of(
        lora,
        {name: place.stored.shape for name, place in parts.items()},
        {name: place.stored.shape for name, place in places.items()},
        tied=tied,
        where=adapter / ADAPTER,
    )
    _require_floats(places, changes)
    _require_alike(parts, changes, adapter / ADAPTER)
    if tied and HEAD in places and not _equal(places[EMBEDDING], places[HEAD]):
        raise failure(
            "E_MODEL",
            "The config says that the head is the embedding, and the weights hold another head.",
            where=places[HEAD].file,
            fix="Set `tie_word_embeddings` in config.json to what the model was trained with.",
        )
    files: dict[str, dict[str, Stored]] = {}
    for name, place in places.items():
        inside = files.setdefault(place.file.name, {})
        inside[name] = _stored(name, place, changes)
        if name == EMBEDDING and changes.unties and HEAD not in places:
            inside[HEAD] = inside[EMBEDDING]
    return Work(places, parts, lora, changes, files)


def write_weights(work: Work, out: Path, listener: Listener) -> None:
    """Write the merged model's shards, and their index where the base has one.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, a merged weight is no number.
    """
    total, done = work.total_bytes, 0
    listener.started("merge", total, "bytes")
    for file, tensors in work.files.items():

        def contents(name: str, tensors: Mapping[str, Stored] = tensors) -> Iterator[Bytes]:
            return _contents(work, name, tensors[name].shape)

        with _one_thread():
            for written in write_shard(out / file, tensors, contents):
                done += written
                listener.advanced(done, file)
    if (next(iter(work.base.values())).file.parent / INDEX).is_file():
        write_index(out, work.files, total)


@contextmanager
def _one_thread() -> Generator[None]:
    """Compute in one thread: stretches are so small that several wait for each other more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stored(name: str, place: Place, changes: Changes) -> Stored:
    """Return the description of a tensor in the merged model."""
    if name not in (EMBEDDING, HEAD) or place.rows >= changes.rows:
        return place.stored
    return with_rows(place.stored, changes.rows)


def _contents(work: Work, name: str, shape: tuple[int, ...]) -> Iterator[Bytes]:
    """Give the bytes of a tensor of the merged model."""
    change = work.changes.tensors.get(name, Change(name))
    place = work.base[change.source]
    starts = work.adapter[change.whole] if change.whole else place
    with starts.file.open("rb", buffering=0) as stream:
        if not change.used and shape == place.stored.shape:
            yield from raw_chunks(stream, place)
            return
        parts = parts_of(change, lambda part: read_tensor(work.adapter[part]))
        rows, dtype = _rows_of(stream, starts), DTYPES[place.stored.dtype]
        for block in merged_rows(rows, shape, change, parts, dtype):
            if not _is_finite(block):
                raise _not_finite(name, place.file)
            yield bytes_of(block)


def _rows_of(stream: Stream, place: Place) -> Callable[[int, int], torch.Tensor]:
    """Return what gives rows of a tensor; those beyond its last are the mean of all."""

    @cache
    def mean() -> torch.Tensor:
        return mean_row(stream, place)

    def rows(first: int, end: int) -> torch.Tensor:
        known = read_rows(stream, place, min(first, place.rows), min(end, place.rows))
        new = end - max(first, place.rows)
        return known if new <= 0 else torch.cat([known, mean().to(known.dtype).expand(new, -1)])

    return rows


def _is_finite(block: torch.Tensor) -> bool:
    # Sums go on holding NaN and infinity, and take a tenth of the time of a look at each value.
    wide = torch.float32 if block.element_size() == 2 else torch.float64
    return math.isfinite(float(block.sum(dtype=wide)))


def _not_finite(name: str, file: Path) -> TunewrightError:
    return failure(
        "E_ARTIFACT_INVALID",
        f"'{name}' would hold NaN or infinity.",
        where=file,
        fix=f"Look for it in base and adapter: one of them is damaged. {RESTORE}",
    )


def _require_floats(places: Mapping[str, Place], changes: Changes) -> None:
    problems = [
        Problem(
            "E_MODEL",
            f"'{name}' is stored as {places[change.source].stored.dtype}, which no update can be added to.",
            str(places[change.source].file),
            "Merge into the original model in 16 bits, of which this one was made.",
        )
        for name, change in changes.tensors.items()
        if places[change.source].stored.dtype not in DTYPES
    ]
    if problems:
        raise TunewrightError(problems)


def _require_alike(parts: Mapping[str, Place], changes: Changes, where: Path) -> None:
    """Refuse an adapter whose two halves of one tied tensor differ."""
    for one, other, transposed in changes.alike:
        a, b = read_tensor(parts[one]), read_tensor(parts[other])
        if not torch.equal(a, b.T if transposed else b):
            raise failure(
                "E_ARTIFACT_INVALID",
                f"'{one}' and '{other}' are parts of one tied tensor, and they differ.",
                where=where,
                fix="Train again; or save them as modules of their own (`modules_to_save`).",
            )


def _equal(one: Place, other: Place) -> bool:
    with one.file.open("rb") as a, other.file.open("rb") as b:
        chunks = zip(raw_chunks(a, one), raw_chunks(b, other), strict=False)
        return one.stored.shape == other.stored.shape and all(x == y for x, y in chunks)
